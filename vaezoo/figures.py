"""Figures of a trained model for a notebook or a program: samples, reconstructions, traversals, codes and curves."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vaezoo import pictures, seeding
from vaezoo.data import DataModule
from vaezoo.models import LatentVariableModel
from vaezoo.training.eval_mode import evaluating
from vaezoo.types import Batch

if TYPE_CHECKING:
    from pandas import DataFrame

NUM_CODES = 2000  # examples behind the axes of the latent space
DPI = 100


class NotebookFigure(Figure):
    """A figure of matplotlib that a notebook shows when it is the last value of a cell."""

    def __init__(self, width: float, height: float):
        super().__init__(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        return to_png(self)


def to_png(figure: Figure) -> bytes:
    """Return a figure as the content of a .png file."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


class Show:
    """Draw figures of a trained model. Each method returns a figure of matplotlib.

    Args:
        model: the model.
        data: its data module, after its ``setup``.
        history: a row for each epoch, with the columns ``train/NAME`` and ``val/NAME``.
    """

    def __init__(self, model: LatentVariableModel, data: DataModule, history: "DataFrame"):
        self.model, self.data, self.history = model, data, history
        self.display = pictures.Display(data)

    def batch(self, num: int) -> Batch:
        """Return the first ``num`` test examples on the model's device, or all if there are fewer."""
        x, y = next(iter(self.data.batches(self.data.test, num)))
        return Batch(x.to(self.model.device), y.to(self.model.device))

    def samples(self, num: int = 32, seed: int = 0) -> Figure:
        """Draw p(x | z) for ``num`` samples z ~ p(z). A conditional model gets the classes in turn."""
        known = self.batch(NUM_CODES).y
        labels = pictures.cycle_classes(known, num)
        with evaluating(self.model), seeding.isolated(self.model.device, seed, "samples"):
            px = self.model.sample(num, labels)
            x = px.sample() if self.data.shows_draws else self.data.represent(px)
        density = pictures.describe_density(self.model)
        what = f"draws x ~ {density}" if self.data.shows_draws else f"{self.display.points} of {density}"
        heads = pictures.class_heads(known, num, self.display.class_names) if pictures.takes_labels(self.model) else []
        title = f"{what} for z ~ p(z){pictures.describe_classes(heads)}"
        return self.draw(x, lambda: self.display.grid(x, title, (), labels.cpu(), heads=heads), title)

    def reconstructions(self, num: int = 16) -> Figure:
        """Draw ``num`` test examples above their reconstructions."""
        x, y = self.batch(num)
        with evaluating(self.model):
            outputs = self.data.represent(self.model.autoencode(x, y))
        title = "inputs, and below each its reconstruction"
        pairs = torch.stack([x, outputs.to(x.dtype)], 1).flatten(0, 1)
        return self.draw(pairs, lambda: self.display.pairs(x, outputs, title), title)

    def traversals(self, rows: int = 10) -> Figure:
        """Draw one latent dimension in each row, moved from -3 to 3 standard deviations around a test example's code.

        Raises:
            ValueError: z is not one vector, or the examples cannot be drawn.
        """
        axes, batch = self.axes(), self.batch(1)
        with evaluating(self.model):
            return from_picture(pictures.traversals(self.model, batch, axes, "test set", rows, self.display))

    def manifold(self, side: int = 20) -> Figure:
        """Draw the plane of a latent of two dimensions.

        Raises:
            ValueError: z has another number of dimensions, or the examples cannot be drawn.
        """
        axes, batch = self.axes(), self.batch(1)
        if len(axes.usage) != 2:
            raise ValueError(f"a plane needs 2 latent dimensions, and z has {len(axes.usage)}: use latent_dim=2")
        if self.display.to_cells is not None:
            raise ValueError(f"a plane of {self.data.noun}s cannot be drawn: use show.traversals()")
        with evaluating(self.model):
            return from_picture(pictures.manifold(self.model, batch, axes, "test set", side, self.display))

    def axes(self) -> pictures.LatentAxes:
        """Return the axes of the latent space.

        Raises:
            ValueError: z is not one vector, or the examples cannot be drawn.
        """
        batch = self.batch(NUM_CODES)
        if not self.display.can_draw(batch.x[:1]):
            shape = tuple(batch.x.shape[1:])
            raise ValueError(f"{self.data.noun}s of shape {shape} cannot be drawn: use show.samples()")
        with evaluating(self.model), seeding.isolated(self.model.device, 0, "axes"):
            axes = pictures.measure_latent_axes(self.model, batch)
        if axes is None:
            raise ValueError(f"the latent of a {type(self.model).__name__} is not one vector: use show.samples()")
        return axes

    def curves(self) -> Figure:
        """Draw the ELBO, log p(x | z) and the KL of the training and the validation set after each epoch.

        Raises:
            ValueError: nothing was logged.
        """
        if self.history.empty:
            raise ValueError("the run has logged nothing: use logger=csv")
        names = [name for name in ("elbo", "log_px", "kl") if f"train/{name}" in self.history]
        figure = NotebookFigure(4 * len(names), 3)
        for i, name in enumerate(names):
            axes = figure.add_subplot(1, len(names), i + 1)
            for stage in ("train", "val"):
                if (column := f"{stage}/{name}") in self.history:
                    values = self.history[column].dropna()
                    marker = "." if len(values) < 30 else None
                    axes.plot(values.index + 1, values.to_numpy(), marker=marker, label=stage)
            axes.set(title=name, xlabel="epoch", ylabel="nats")
            axes.legend(frameon=False)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return figure

    def draw(self, x: Tensor, to_picture: Callable[[], pictures.Picture], title: str) -> Figure:
        """Draw examples: as images if they can be drawn, else as a map of their values.

        Args:
            x: examples (N, *shape), as the model sees them.
            to_picture: draws them, if they can be drawn.
            title: title of the figure.
        """
        if self.display.can_draw(x):
            return from_picture(to_picture())
        figure = NotebookFigure(8, 4)
        axes = figure.add_subplot()
        values = x.detach().cpu().float().flatten(1).numpy()
        figure.colorbar(axes.imshow(values, aspect="auto", interpolation="nearest", cmap="viridis"), label="value")
        axes.set(title=title, xlabel="entry", ylabel=self.data.noun)
        return figure


def from_picture(picture: pictures.Picture) -> Figure:
    """Return a picture as a figure, pixel by pixel."""
    height, width, _ = picture.shape
    figure = NotebookFigure(width / DPI, height / DPI)
    figure.figimage(np.asarray(picture))
    return figure
