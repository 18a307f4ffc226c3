"""Pictures of a model: reconstructions, samples, traversals and the plane of a latent of two dimensions."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo.models import LatentVariableModel
from vaezoo.pictures.axes import LatentAxes
from vaezoo.pictures.display import IMAGES, Display, describe_classes
from vaezoo.pictures.grid import (
    MAX_SIZE,
    NUM_COLUMNS,
    add_labels,
    enlargement,
    is_kept,
    make_grid,
    repeat_pixels,
    resize_for_grid,
    to_rgb,
)
from vaezoo.pictures.look import Picture
from vaezoo.pictures.plane import class_name
from vaezoo.pictures.table import draw_cells
from vaezoo.types import Batch

MAX_CLASSES = 10  # that are shown in a picture of samples during training
MAX_STEPS, MIN_STEPS = 11, 3  # of a traversal
MIN_ROWS = 3


def first_batches(loader: Iterable[Batch], num: int) -> Iterator[Batch]:
    """Return batches of a loader until they have at least ``num`` examples, or all batches if there are fewer."""
    for batch in loader:
        yield batch
        num -= len(batch.x)
        if num <= 0:
            return


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


def class_heads(labels: Tensor, num: int, names: Sequence[str] = ()) -> list[str]:
    """Return the names of the classes that ``cycle_classes`` gives to ``num`` examples; empty if they are images."""
    if labels.dim() == 4:
        return []
    classes = labels.unique(dim=0)[:num].cpu()
    return [", ".join(class_name(value, names) for value in row) for row in classes.reshape(len(classes), -1).tolist()]


def reconstructions(
    model: LatentVariableModel, batch: Batch, num: int, subtitle: str, display: Display = IMAGES, split: str = ""
) -> Picture:
    """Draw ``num`` inputs, each above its reconstruction, the mean of p(x | z = encode(x)).

    Args:
        model: the model, in evaluation mode.
        batch: images and labels.
        num: number of inputs.
        subtitle: of what: model, data, seed and length of the training, such as "mlp_vae on MNIST, seed 0, 5 epochs".
        display: makes images of the examples.
        split: the word for the set of the batch, such as "validation", for the title.
    """
    x, y = batch.x[:num], batch.y[:num]
    outputs = model.autoencode(x, y)
    return display.pairs(x, outputs, title_reconstructions(model, display, split), subtitle)


def title_reconstructions(model: LatentVariableModel, display: Display, split: str = "") -> str:
    """Return the title of a picture of reconstructions; ``split`` as in ``reconstructions``."""
    inputs = f"{split} {display.noun}s" if split else "inputs"
    point = f"{display.points.removesuffix('s')} of {describe_density(model)}"
    return f"{inputs}, and below each its reconstruction: the {point} at its code z"


def means_and_draws(px: Distribution, display: Display, name: str = "p(x | z)") -> dict[str, Tensor]:
    """Return what represents distributions p(x | z), and a draw of each, by caption.

    If the draws are the means, p(x | z) is deterministic, and they are left out.

    Args:
        px: the distributions.
        display: says what represents them.
        name: p(x | z) or p(x | z, y).
    """
    means, draws = display.examples(px), px.sample()
    if torch.equal(means.float().nan_to_num(), draws.float().nan_to_num()):
        return {f"{display.points} of {name}, which is deterministic: draws are equal to them": means}
    return {f"{display.points} of {name}": means, f"draws x ~ {name} at the same z": draws}


class Samples(NamedTuple):
    """Samples z ~ p(z), decoded.

    Args:
        parts: means and draws of p(x | z), (N, *shape) each, by caption.
        title: what they are.
        context: what the model was given besides z, (N, ...).
        heads: the names of the classes, which come in turn; empty if the model takes none.
    """

    parts: dict[str, Tensor]
    title: str
    context: Tensor
    heads: list[str]


def samples(model: LatentVariableModel, batch: Batch, num: int, subtitle: str, display: Display = IMAGES) -> Picture:
    """Draw the means of p(x | z) for ``num`` samples z ~ p(z) and, below them, draws x ~ p(x | z): ``draw_samples``.

    Args:
        model: the model, in evaluation mode.
        batch: images and labels.
        num: number of samples.
        subtitle: as in ``reconstructions``.
        display: makes images of the examples.
    """
    return show_samples(draw_samples(model, batch, num, display), subtitle, display)


def show_samples(drawn: Samples, subtitle: str, display: Display = IMAGES) -> Picture:
    """Return the picture of samples: means and, below them, draws."""
    return display.parts(drawn.parts, drawn.title, subtitle, drawn.context, drawn.heads)


def draw_samples(model: LatentVariableModel, batch: Batch, num: int, display: Display = IMAGES) -> Samples:
    """Return the means of p(x | z) for ``num`` samples z ~ p(z), and draws x ~ p(x | z).

    Classes are shown as by ``Display.grid``; of more than ``MAX_CLASSES``, the first ones.

    Args:
        model: the model, in evaluation mode.
        batch: images and labels.
        num: number of samples.
        display: says what represents p(x | z), and names the classes.
    """
    name, labels, heads, which = describe_density(model), batch.y, [], ""
    if takes_labels(model) and labels.dim() < 4:
        classes = labels.unique(dim=0)
        labels = classes[:MAX_CLASSES]
        heads = class_heads(labels, num, display.class_names)
        total = max(len(classes), len(display.class_names))
        few, part = describe_classes(heads), f"{len(heads)} of {total}" if len(heads) < total else ""
        which = (f"{few} ({part})" if few else f", classes y: {part}") if part else few or ", all classes y"
    context = cycle_classes(labels, num)
    px = model.sample(num, context)
    full = num // len(heads) * len(heads) if heads else num  # as many of each class
    parts = {text: x[:full] for text, x in means_and_draws(px, display, name).items()}
    return Samples(parts, f"{name} for z ~ p(z){which}", context[:full], heads)


def takes_labels(model: LatentVariableModel) -> bool:
    """Return whether the model generates examples of a given class or condition."""
    return model.conditional or model.uses_labels


def describe_density(model: LatentVariableModel) -> str:
    """Return the name of the distribution of the model: p(x | z), or p(x | z, y) if it takes labels."""
    return "p(x | z, y)" if takes_labels(model) else "p(x | z)"


def describe_label(model: LatentVariableModel, batch: Batch, display: Display) -> str:
    """Return the words for the class of the first example, if the model takes classes."""
    if not takes_labels(model) or batch.y.dim() == 4:
        return ""
    return f", of class {class_heads(batch.y[:1], 1, display.class_names)[0]}"


def nearest_steps(axes: LatentAxes, code: Tensor, steps: Tensor) -> list[int]:
    """Return for each dimension the number of the step that is nearest to a code.

    Args:
        axes: center and scale of the D dimensions.
        code: the code, (D,).
        steps: steps in standard deviations, (S,).
    """
    places = axes.center[:, None] + steps.to(axes.scale) * axes.scale[:, None]
    nearest: list[int] = (places - code[:, None]).abs().argmin(1).tolist()
    return nearest


def traversals(
    model: LatentVariableModel,
    batch: Batch,
    axes: LatentAxes,
    subtitle: str,
    rows: int = 10,
    display: Display = IMAGES,
    split: str = "",
) -> Picture:
    """Draw one latent dimension per row, moved from -3 to 3 standard deviations around the code of one image.

    In each row, the step that is nearest to the example's own code is marked. Of large images there are fewer steps
    and rows.

    Args:
        model: the model, in evaluation mode.
        batch: images and labels; the first image gives the code.
        axes: use, center and scale of the dimensions; the most used dimension comes first.
        subtitle: as in ``reconstructions``.
        rows: largest number of rows.
        display: makes images of the examples.
        split: the word for the set on which the use was measured, such as "validation".
    """
    usage_name = f"{split} {axes.usage_name}".lstrip()
    num_steps, enlarged = MAX_STEPS, 1
    if display.to_cells is None:
        sample = to_rgb(display(batch.x[:1]))
        height, width = sample.shape[1:3]
        enlarged = enlargement(height, width)
        if is_kept(sample):
            num_steps = min(MAX_STEPS, max(MIN_STEPS, (display.max_width // width - 1) // 2 * 2 + 1))
        if is_kept(sample) or height > 2 * width:
            rows = min(rows, max(MIN_ROWS, MAX_SIZE // (height * enlarged)))
    steps = torch.linspace(-3, 3, num_steps) if num_steps < MAX_STEPS else torch.arange(-5, 6) * 0.6
    order = axes.usage.argsort(descending=True)[:rows]
    code = model.encode(batch.x[:1], batch.y[:1])
    z = code.repeat(len(order), len(steps), 1)  # (rows, columns, D)
    for row, d in enumerate(order):
        z[row, :, d] = axes.center[d] + steps.to(axes.scale) * axes.scale[d]
    outputs = model.decode(z.flatten(0, 1), batch.y[:1].repeat_interleave(z[..., 0].numel(), 0))
    nearest = nearest_steps(axes, code[0], steps)
    title = (
        f"traversals: {display.points} of {describe_density(model)} as one dimension of an example's code moves, in "
        f"standard deviations of the {axes.source}{describe_label(model, batch, display)}"
    )
    look = display.look
    if display.to_cells is not None:
        labels = [
            f"z{d} ({axes.usage[d]:.2f}): {step:+.1f}{' *' if i == nearest[d] else ''}"
            for d in order.tolist() for i, step in enumerate(steps.tolist())
        ]  # fmt: skip
        title = f"{title}; beside each z its {usage_name}; *: nearest to the code of the example"
        cells = display.to_cells(display.examples(outputs))
        return draw_cells(cells, title, labels, len(steps), subtitle, look)
    images, size = to_rgb(display(outputs)), (len(order), len(steps))
    images = repeat_pixels(images, look.scale) if num_steps < MAX_STEPS else resize_for_grid(images, *size, look.scale)
    marked = [(row, nearest[d]) for row, d in enumerate(order.tolist())]
    return add_labels(
        make_grid(images, len(steps), look=look, marked=marked),
        f"{title}; framed: nearest to the code",
        rows=[f"z{d}  {axes.usage[d]:.2f}" for d in order.tolist()],
        columns=[f"{step:g}" for step in steps.tolist()],
        corner=usage_name,
        subtitle=subtitle,
        look=look,
    )


def manifold(
    model: LatentVariableModel, batch: Batch, axes: LatentAxes, subtitle: str, side: int = 20, display: Display = IMAGES
) -> Picture:
    """Draw the plane of a 2-D latent, decoded at equally spaced quantiles of the prior.

    Kingma & Welling 2013, Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114, figure 4. z0 grows to the
    right, z1 upwards.

    Args:
        model: the model, in evaluation mode.
        batch: images and labels; a conditional model gets the first label.
        axes: center and scale of the two dimensions.
        subtitle: as in ``reconstructions``.
        side: number of rows and columns.
        display: makes images of the examples.
    """
    steps = torch.special.ndtri((torch.arange(side) + 0.5) / side).to(axes.center)
    z = torch.stack(torch.meshgrid(steps, steps.flip(0), indexing="xy"), dim=-1).flatten(0, 1)  # (side^2, 2)
    context = batch.y[:1].repeat_interleave(len(z), 0)
    images, look = to_rgb(display(model.decode(axes.center + axes.scale * z, context))), display.look
    across, up = ([f"{value:.2f}" for value in (axes.center[i] + axes.scale[i] * steps).tolist()] for i in range(2))
    source = "the prior" if axes.source == "prior" else "a normal distribution with the moments of the codes"
    label = describe_label(model, batch, display)
    return add_labels(
        make_grid(resize_for_grid(images, side, side, look.scale), side, gap=2, look=look),
        f"manifold: {display.points} of {describe_density(model)} at equally spaced quantiles of {source}{label}",
        rows=up[::-1],
        columns=across,
        corner="z1 \u2191  z0 \u2192",
        subtitle=subtitle,
        look=look,
    )
