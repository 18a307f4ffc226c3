"""Draw examples, or distributions p(x | z), as a data module says."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo.pictures.grid import (
    KEPT_SIZES,
    MAX_SIZE,
    NUM_COLUMNS,
    add_labels,
    fit_to_grid,
    make_grid,
    resize_for_grid,
    to_rgb,
)
from vaezoo.pictures.look import LOOK, Look, Picture, add_caption, add_heading, stack
from vaezoo.pictures.table import draw_cells

MANY_CLASSES = 5  # from so many on, only the columns name the classes, and the title does not


class Display:
    """Draw examples, or distributions p(x | z), as a data module says.

    Args:
        data: a data module with ``represent`` and ``to_images``, or with ``to_cells`` if its examples are rows of a
            table. Of any other, examples and means are images.
        look: size and colours of the pictures.
        max_width: largest width of a grid of large images, such as texts, in pixels, at scale 1.

    Attributes:
        points: the word for what represents p(x | z): "means", or "modes" of tokens and categories.
        class_names: the names of the classes; empty if they have none.
    """

    def __init__(self, data: Any = None, look: Look = LOOK, max_width: int = MAX_SIZE):
        self.look, self.max_width = look, max_width
        self.to_cells: Any = getattr(data, "to_cells", None)
        self.noun: str = getattr(data, "noun", "image")
        self.represent: Any = getattr(data, "represent", lambda px: px.mean)
        self.to_images: Any = getattr(data, "to_images", lambda x: x if x.dim() == 4 else None)
        self.with_context: Any = getattr(data, "with_context", lambda images, context: images)
        self.points = "modes" if getattr(data, "data_kind", "") in ("token", "categorical") else "means"
        self.class_names: Sequence[str] = getattr(data, "class_names", None) or []

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
        subtitle: str = "",
        heads: Sequence[str] = (),
    ) -> Picture:
        """Draw N examples. Labels stand before rows of a table; images have none, but are drawn with their conditions.

        Args:
            examples: the examples, or distributions.
            title: what is shown; empty: images without a heading.
            labels: labels of the rows of a table.
            context: conditions of the examples, (N, ...); they are seen if they are images.
            subtitle: second line of the heading.
            heads: the classes of the examples, which come in turn: each class is a column, or a row if the images are
                wide. Two to four classes have several columns each, and the columns of one class have no heads: the
                title names it (``describe_classes``). Before a row of a table stands its class.
        """
        if self.to_cells is not None:
            labels = labels or class_labels(heads, len(self.examples(examples)))
            return draw_cells(self.to_cells(self.examples(examples)), title, labels, 1, subtitle, self.look)
        images = self(examples)
        pixels = to_rgb(images if context is None else self.with_context(images, context))
        if len(heads) < 2:
            fitted, columns = fit_to_grid(pixels, len(pixels), scale=self.look.scale, max_width=self.max_width)
            return add_labels(make_grid(fitted, columns, look=self.look), title, subtitle=subtitle, look=self.look)
        if pixels.shape[2] <= KEPT_SIZES[0]:
            heads = [*heads] * max(1, min(NUM_COLUMNS, len(pixels)) // len(heads))
            fitted, columns = fit_to_grid(pixels, len(pixels), scale=self.look.scale, columns=len(heads))
            return add_labels(
                make_grid(fitted, columns, look=self.look), title, (), heads, subtitle=subtitle, look=self.look
            )
        full = pixels[: max(1, len(pixels) // len(heads)) * len(heads)]  # as many of each class
        by_class = full.reshape(-1, len(heads), *pixels.shape[1:]).swapaxes(0, 1)
        _, columns = fit_to_grid(pixels, by_class.shape[1], max_width=self.max_width)
        by_class = by_class[:, :columns]
        fitted, _ = fit_to_grid(by_class.reshape(-1, *pixels.shape[1:]), len(pixels), 1, self.look.scale, columns)
        return add_labels(
            make_grid(fitted, by_class.shape[1], look=self.look), title, heads, subtitle=subtitle, look=self.look
        )

    def parts(
        self,
        parts: dict[str, Tensor],
        title: str,
        subtitle: str = "",
        context: Tensor | None = None,
        heads: Sequence[str] = (),
    ) -> Picture:
        """Draw several forms of the same N examples: grids one below the other, or lines of a table side by side.

        Args:
            parts: the examples (N, *shape) of each form, such as "means" and "draws", by caption. Of rows of a table,
                its first word is their label.
            title: what is shown.
            subtitle: second line of the heading.
            context: as in ``grid``.
            heads: as in ``grid``.
        """
        if self.to_cells is None:
            grids = [
                add_caption(self.grid(x, "", (), context, heads=heads), text, self.look) for text, x in parts.items()
            ]
            return add_heading(stack(grids, self.look), title, subtitle, self.look)
        num, names = len(next(iter(parts.values()))), [text.split()[0].removesuffix("s") for text in parts]
        rows = torch.stack([x.to(next(iter(parts.values()))) for x in parts.values()], 1).flatten(0, 1)
        labels = [f"{label} {name}" for label in class_labels(heads, num) for name in names]
        return draw_cells(self.to_cells(rows), f"{title}: {', '.join(parts)}", labels, len(parts), subtitle, self.look)

    def rows(self, examples: Tensor, title: str, subtitle: str = "") -> Picture:
        """Draw N sequences of examples (N, steps, *shape): each is a row, or a column if the images are wide."""
        num, steps = examples.shape[:2]
        if self.to_cells is not None:
            labels = [f"{i + 1} step {step}" for i in range(num) for step in range(steps)]
            return draw_cells(self.to_cells(examples.flatten(0, 1)), title, labels, steps, subtitle, self.look)
        images = to_rgb(self(examples.flatten(0, 1)))
        if images.shape[2] > KEPT_SIZES[0]:
            images = images.reshape(num, steps, *images.shape[1:]).swapaxes(0, 1).reshape(images.shape)
            num, steps = steps, num
        fitted = resize_for_grid(images, num, steps, self.look.scale)
        return add_labels(make_grid(fitted, steps, look=self.look), title, subtitle=subtitle, look=self.look)

    def pairs(
        self,
        inputs: Tensor,
        outputs: Tensor | Distribution,
        title: str,
        subtitle: str = "",
        name: str = "reconstruction",
        keys: Sequence[Any] = (),
    ) -> Picture:
        """Draw each of N inputs above its output.

        Args:
            inputs: the inputs, (N, *shape).
            outputs: the outputs, or distributions.
            title: what is shown.
            subtitle: second line of the heading.
            name: the word for an output in the labels of the rows of a table.
            keys: which example each input is, for the rows of a table; by default, they are numbered from 1.
        """
        if self.to_cells is None:
            return image_pairs(self(inputs), self(outputs), title, subtitle, self.look, self.max_width)
        both = torch.stack([inputs, self.examples(outputs).to(inputs)], 1).flatten(0, 1)
        numbers = [str(key) for key in keys] or [str(i + 1) for i in range(len(inputs))]
        labels = [f"{number} {word}" for number in numbers for word in ("input", name)]
        return draw_cells(self.to_cells(both), title, labels, 2, subtitle, self.look)


IMAGES = Display()


def class_labels(heads: Sequence[str], num: int) -> list[str]:
    """Return the labels of ``num`` rows of a table, numbered from 1, with the classes, which come in turn."""
    return [f"{i + 1} {heads[i % len(heads)]}" if heads else f"{i + 1}" for i in range(num)]


def describe_classes(heads: Sequence[str]) -> str:
    """Return the words for the classes in the title of a picture of samples; empty for none, and for many.

    >>> describe_classes(["3"]), describe_classes(["3", "5"])
    (', class 3', ', classes 3, 5')
    """
    if not 0 < len(heads) < MANY_CLASSES:
        return ""
    return f", class{'es' * (len(heads) > 1)} {', '.join(heads)}"


def image_pairs(
    inputs: Tensor,
    outputs: Tensor,
    title: str,
    subtitle: str = "",
    look: Look = LOOK,
    max_width: int = MAX_SIZE,
) -> Picture:
    """Draw each input above its output, images (N, C, H, W) each."""
    pixels = to_rgb(torch.cat([inputs, outputs]))
    both, columns = fit_to_grid(pixels, len(inputs), stacked=2, scale=look.scale, max_width=max_width)
    above, below = np.split(both, 2)
    line = np.empty_like(above[:, : look.scale])
    line[:] = look.colors.background
    pairs = make_grid(np.concatenate([above, line, below], axis=1), columns, look=look)
    return add_labels(pairs, title, subtitle=subtitle, look=look)
