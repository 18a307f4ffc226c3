"""Pictures of a model: reconstructions, samples, traversals and maps of the latent space, as labeled grids."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.distributions import Distribution

from vaezoo.models import LatentVariableModel
from vaezoo.table_pictures import draw_cells
from vaezoo.types import Batch

Picture = NDArray[np.uint8]  # (height, width, 3)
NUM_COLUMNS = 8  # images in a row
MIN_IMAGE_SIZE = 56  # pixels: smaller images are enlarged to this size or slightly more
MAX_SIZE = 1280  # pixels: longer side of a grid, without gaps and labels
# pixels: images with a longer side above the first and up to the second number, such as texts, are never scaled down
KEPT_SIZES = (128, 256)
GAP = 4  # pixels between images
TITLE_HEIGHT = 26  # pixels: height of a title


def to_rgb(images: Tensor) -> Picture:
    """Convert images (N, C, H, W) with values in [0, 1] to RGB bytes (N, H, W, 3).

    One channel is gray, two are red and green, three RGB, four RGB with alpha over white; of more channels the first
    three are shown. Values outside [0, 1], which the mean of a Gaussian may have, are clamped.

    >>> to_rgb(torch.tensor([0.0, 0.5]).reshape(1, 1, 1, 2)).tolist()
    [[[[0, 0, 0], [128, 128, 128]]]]
    """
    images = images.detach().cpu().float().clamp(0, 1)
    channels = images.shape[1]
    if channels == 1:
        images = images.expand(-1, 3, -1, -1)
    elif channels == 2:
        images = F.pad(images, (0, 0, 0, 0, 0, 1))
    elif channels == 4:
        images = images[:, :3] * images[:, 3:] + 1 - images[:, 3:]
    return (images[:, :3] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def resize_for_grid(images: Picture, rows: int, columns: int) -> Picture:
    """Resize images for a grid.

    Small images are enlarged by a whole factor, so each pixel becomes a square. If the grid would be larger than
    ``MAX_SIZE``, images are averaged over squares of pixels.

    Args:
        images: images (N, H, W, 3).
        rows: rows of the grid.
        columns: columns of the grid.

    Returns:
        Images (N, H', W', 3).
    """
    _, height, width, _ = images.shape
    longer = max(rows * height, columns * width)
    if longer > MAX_SIZE:
        planes = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        return to_rgb(F.avg_pool2d(planes, -(-longer // MAX_SIZE), ceil_mode=True))
    factor = min(-(-MIN_IMAGE_SIZE // max(height, width)), MAX_SIZE // longer)
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def fit_to_grid(images: Picture, num: int, stacked: int = 1) -> tuple[Picture, int]:
    """Resize images for a grid with ``num`` cells, and return them with the number of its columns.

    Images whose longer side is in ``KEPT_SIZES`` keep their size. Their grid has as many columns as fit into
    ``MAX_SIZE``, and any height.

    Args:
        images: images (N, H, W, 3).
        num: number of cells.
        stacked: number of images in a cell, one above the other.
    """
    _, height, width, _ = images.shape
    columns = min(NUM_COLUMNS, num)
    if KEPT_SIZES[0] < max(height, width) <= KEPT_SIZES[1]:
        return images, min(columns, MAX_SIZE // width)
    return resize_for_grid(images, stacked * -(-num // columns), columns), columns


def make_grid(images: Picture, columns: int, gap: int = GAP) -> Picture:
    """Place images (N, H, W, 3) row by row in a grid on white, with ``gap`` pixels around each."""
    num, height, width, _ = images.shape
    rows = -(-num // columns)
    cells = np.full((rows * columns, height + gap, width + gap, 3), 255, np.uint8)
    cells[:num, :height, :width] = images
    cells = cells.reshape(rows, columns, *cells.shape[1:]).swapaxes(1, 2)
    picture = cells.reshape(rows * (height + gap), columns * (width + gap), 3)
    return np.pad(picture, ((gap, 0), (gap, 0), (0, 0)), constant_values=255)


def add_labels(
    picture: Picture, title: str, rows: Sequence[str] = (), columns: Sequence[str] = (), corner: str = ""
) -> Picture:
    """Add a title, and labels of rows and columns, around a picture.

    Args:
        picture: picture (height, width, 3).
        title: text above the picture, left-aligned.
        rows: evenly spaced labels at the left, right-aligned.
        columns: evenly spaced labels above the picture, centered.
        corner: text above the row labels that says what they are.
    """
    height, width, _ = picture.shape
    large, font = ImageFont.load_default(15), ImageFont.load_default(13)
    left = max((int(font.getlength(label)) + 12 for label in (corner, *rows) if label), default=0)
    top = TITLE_HEIGHT + 18 * bool(columns)
    spare = max(0, int(large.getlength(title)) + 2 * GAP - left - width)  # for a title that is wider than the picture
    canvas = Image.new("RGB", (left + width + spare, top + height), "white")
    canvas.paste(Image.fromarray(picture), (left, top))
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, 14), title, "black", large, anchor="lm")
    draw.text((left - 6, top - 8), corner, "dimgrey", font, anchor="rm")
    for i, label in enumerate(columns):
        draw.text((left + (i + 0.5) * width / len(columns), top - 8), label, "dimgrey", font, anchor="mm")
    for i, label in enumerate(rows):
        draw.text((left - 6, top + (i + 0.5) * height / len(rows)), label, "black", font, anchor="rm")
    return np.asarray(canvas)


def first_batches(loader: Iterable[Batch], num: int) -> Iterator[Batch]:
    """Return batches of a loader until they have at least ``num`` examples, or all batches if there are fewer."""
    for batch in loader:
        yield batch
        num -= len(batch.x)
        if num <= 0:
            return


class LatentAxes(NamedTuple):
    """The D dimensions of a flat latent, ranked by their use.

    Args:
        usage: the larger, the more a dimension is used, (D,): its KL if the model has a KL for each dimension, else the
            variance of its codes.
        usage_name: "KL (nats)" or "variance".
        center: mean of each dimension, (D,).
        scale: standard deviation of each dimension, (D,).
        source: what ``center`` and ``scale`` are computed from: "prior" or "codes".
    """

    usage: Tensor
    usage_name: str
    center: Tensor
    scale: Tensor
    source: str


def measure_latent_axes(model: LatentVariableModel, batch: Batch) -> LatentAxes | None:
    """Measure the use of the latent dimensions on a batch; None if the model does not have one flat latent."""
    latents = model(batch.x, batch.y, num_samples=1).latents
    shape = model.latent_shape
    if len(shape) != 1 or len(latents) > 1:
        return None
    if latents and latents[0].kl_per_dim is not None:
        p = latents[0].p
        centre, spread = (value.reshape(-1, *shape)[0] for value in (p.mean, p.stddev))
        return LatentAxes(latents[0].kl_per_dim.mean(0), "KL (nats)", centre, spread, "prior")
    codes = model.encode(batch.x, batch.y)
    return LatentAxes(codes.var(0), "variance", codes.mean(0), codes.std(0), "codes")


class Display:
    """Draw examples, or distributions p(x | z), as a data module says.

    Args:
        data: a data module with ``represent`` and ``to_images``, or with ``to_cells`` if its examples are rows of a
            table. Of any other, examples and means are images.
    """

    def __init__(self, data: Any = None):
        self.to_cells: Any = getattr(data, "to_cells", None)
        self.noun: str = getattr(data, "noun", "image")
        self.represent: Any = getattr(data, "represent", lambda px: px.mean)
        self.to_images: Any = getattr(data, "to_images", lambda x: x if x.dim() == 4 else None)
        self.with_context: Any = getattr(data, "with_context", lambda images, context: images)

    def can_draw(self, x: Tensor) -> bool:
        """Return whether examples x (N, *shape) can be drawn."""
        return self.to_cells is not None or self.to_images(x) is not None

    def examples(self, examples: Tensor | Distribution) -> Tensor:
        """Return examples (N, *shape), or the examples that represent distributions."""
        return examples if isinstance(examples, Tensor) else self.represent(examples)

    def __call__(self, examples: Tensor | Distribution) -> Tensor:
        """Return examples, or what represents distributions, as images (N, C, H, W) with values in [0, 1]."""
        images: Tensor = self.to_images(self.examples(examples))
        return images

    def grid(
        self,
        examples: Tensor | Distribution,
        title: str,
        labels: Sequence[str] = (),
        context: Tensor | None = None,
    ) -> Picture:
        """Draw N examples. Labels stand before rows of a table; images have none, but are drawn with their conditions.

        Args:
            examples: the examples, or distributions.
            title: text above the picture.
            labels: labels of the rows of a table.
            context: conditions of the examples, (N, ...); they are seen if they are images.
        """
        if self.to_cells is not None:
            return draw_cells(self.to_cells(self.examples(examples)), title, labels)
        images = self(examples)
        return image_grid(images if context is None else self.with_context(images, context), title)

    def rows(self, examples: Tensor, title: str) -> Picture:
        """Draw N sequences of examples (N, steps, *shape): each is a row, or a column if the images are wide."""
        num, steps = examples.shape[:2]
        if self.to_cells is not None:
            labels = [f"{i + 1} step {step}" for i in range(num) for step in range(steps)]
            return draw_cells(self.to_cells(examples.flatten(0, 1)), title, labels, group=steps)
        images = to_rgb(self(examples.flatten(0, 1)))
        if images.shape[2] > KEPT_SIZES[0]:
            images = images.reshape(num, steps, *images.shape[1:]).swapaxes(0, 1).reshape(images.shape)
            num, steps = steps, num
        return add_labels(make_grid(resize_for_grid(images, num, steps), steps), title)

    def pairs(self, inputs: Tensor, outputs: Tensor | Distribution, title: str) -> Picture:
        """Draw each of N inputs above its output."""
        if self.to_cells is not None:
            both = torch.stack([inputs, self.examples(outputs).to(inputs)], 1).flatten(0, 1)
            labels = [f"{i + 1} {name}" for i in range(len(inputs)) for name in ("input", "reconstruction")]
            return draw_cells(self.to_cells(both), title, labels, group=2)
        return image_pairs(self(inputs), self(outputs), title)


IMAGES = Display()


def image_pairs(inputs: Tensor, outputs: Tensor, title: str) -> Picture:
    """Draw each input above its output, images (N, C, H, W) each."""
    both, columns = fit_to_grid(to_rgb(torch.cat([inputs, outputs])), len(inputs), stacked=2)
    above, below = np.split(both, 2)
    line = np.full_like(above[:, :1], 255)
    return add_labels(make_grid(np.concatenate([above, line, below], axis=1), columns), title)


def image_grid(images: Tensor, title: str) -> Picture:
    """Draw images (N, C, H, W) row by row."""
    return add_labels(make_grid(*fit_to_grid(to_rgb(images), len(images))), title)


def cycle_classes(labels: Tensor, num: int) -> Tensor:
    """Return ``num`` labels that cycle through the classes of labels (N, ...).

    Conditions that are images (N, C, H, W) have no classes: some of them are returned, evenly spaced, each
    ``NUM_COLUMNS`` times one after another.

    >>> cycle_classes(torch.tensor([3, 1, 3]), 5)
    tensor([1, 3, 1, 3, 1])
    """
    if labels.dim() == 4:
        rows = -(-num // NUM_COLUMNS)
        which = torch.arange(rows, device=labels.device) * len(labels) // rows
        return labels[which].repeat_interleave(NUM_COLUMNS, 0)[:num]
    classes = labels.unique(dim=0)
    return classes[torch.arange(num, device=classes.device) % len(classes)]


def reconstructions(
    model: LatentVariableModel, batch: Batch, num: int, when: str, display: Display = IMAGES
) -> Picture:
    """Draw ``num`` inputs, each above its reconstruction, the mean of p(x | z = encode(x)).

    Args:
        model: the model, in evaluation mode.
        batch: images and labels.
        num: number of inputs.
        when: text for the title, such as "epoch 3".
        display: makes images of the examples.
    """
    x, y = batch.x[:num], batch.y[:num]
    outputs = model.autoencode(x, y)
    return display.pairs(x, outputs, f"inputs over reconstructions, {when}")


def samples(model: LatentVariableModel, batch: Batch, num: int, when: str, display: Display = IMAGES) -> Picture:
    """Draw the means of p(x | z) for ``num`` samples z ~ p(z). A conditional model cycles through the classes.

    Args:
        model: the model, in evaluation mode.
        batch: images and labels.
        num: number of samples.
        when: text for the title, such as "epoch 3".
        display: makes images of the examples.
    """
    context = cycle_classes(batch.y, num)
    return display.grid(model.sample(num, context), f"decoded samples of z, {when}", context=context)


def traversals(
    model: LatentVariableModel, batch: Batch, axes: LatentAxes, when: str, rows: int = 10, display: Display = IMAGES
) -> Picture:
    """Draw one latent dimension per row, moved from -3 to 3 standard deviations around the code of one image.

    Args:
        model: the model, in evaluation mode.
        batch: images and labels; the first image gives the code.
        axes: use, center and scale of the dimensions; the most used dimension comes first.
        when: text for the title, such as "epoch 3".
        rows: largest number of rows.
        display: makes images of the examples.
    """
    steps = torch.arange(-5, 6) * 0.6
    order = axes.usage.argsort(descending=True)[:rows]
    z = model.encode(batch.x[:1], batch.y[:1]).repeat(len(order), len(steps), 1)  # (rows, columns, D)
    for row, d in enumerate(order):
        z[row, :, d] = axes.center[d] + steps.to(axes.scale) * axes.scale[d]
    outputs = model.decode(z.flatten(0, 1), batch.y[:1].repeat_interleave(z[..., 0].numel(), 0))
    title = f"traversals of one example, in standard deviations of the {axes.source}, {when}"
    if display.to_cells is not None:
        labels = [f"z{d} ({axes.usage[d]:.2f}): {step:+.1f}" for d in order.tolist() for step in steps.tolist()]
        title = f"{title}, beside each z its {axes.usage_name}"
        return draw_cells(display.to_cells(display.examples(outputs)), title, labels, group=len(steps))
    images = to_rgb(display(outputs))
    return add_labels(
        make_grid(resize_for_grid(images, len(order), len(steps)), len(steps)),
        title,
        rows=[f"z{d}  {axes.usage[d]:.2f}" for d in order.tolist()],
        columns=[f"{step:g}" for step in steps.tolist()],
        corner=axes.usage_name,
    )


def manifold(
    model: LatentVariableModel, batch: Batch, axes: LatentAxes, when: str, side: int = 20, display: Display = IMAGES
) -> Picture:
    """Draw the plane of a 2-D latent, decoded at equally spaced quantiles of the prior.

    Kingma & Welling 2013, Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114, figure 4. z0 grows to the
    right, z1 upwards.

    Args:
        model: the model, in evaluation mode.
        batch: images and labels; a conditional model gets the first label.
        axes: center and scale of the two dimensions.
        when: text for the title, such as "epoch 3".
        side: number of rows and columns.
        display: makes images of the examples.
    """
    steps = torch.special.ndtri((torch.arange(side) + 0.5) / side).to(axes.center)
    z = torch.stack(torch.meshgrid(steps, steps.flip(0), indexing="xy"), dim=-1).flatten(0, 1)  # (side^2, 2)
    context = batch.y[:1].repeat_interleave(len(z), 0)
    images = to_rgb(display(model.decode(axes.center + axes.scale * z, context)))
    return add_labels(
        make_grid(resize_for_grid(images, side, side), side, gap=2), f"manifold, z0 to the right, z1 upwards, {when}"
    )


def scatter(codes: Tensor, labels: Tensor, when: str, noun: str = "image") -> Picture:
    """Plot codes (N, 2) as points, colored by their labels (N,).

    Args:
        codes: codes (N, 2).
        labels: labels (N,); colors are continuous if there are more than 20.
        when: text for the title, such as "epoch 3".
        noun: the word for one example.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    z, y = codes.float().numpy(), labels.numpy()
    figure = Figure(figsize=(7.2, 6.4), dpi=110, layout="tight")
    canvas, plot = FigureCanvasAgg(figure), figure.add_subplot()
    classes = np.unique(y)
    style: dict[str, Any] = {"s": min(30, 25_000 / len(z)), "alpha": 0.7, "linewidths": 0}
    if len(classes) <= 20:
        palette = colormaps["tab10" if len(classes) <= 10 else "tab20"]
        plot.scatter(z[:, 0], z[:, 1], c=palette(np.searchsorted(classes, y)), **style)
        for i, name in enumerate(classes):
            plot.scatter([], [], color=palette(i), label=f"{name:g}")
        plot.legend(title="label", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    else:
        figure.colorbar(plot.scatter(z[:, 0], z[:, 1], c=y, cmap="viridis", **style), label="label")
    plot.set(xlabel="z0", ylabel="z1", aspect="equal", title=f"codes of {len(z):,} validation {noun}s, {when}")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
