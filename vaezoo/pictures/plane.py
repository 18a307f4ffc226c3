"""A plot of codes in the plane."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import color_sequences
from torch import Tensor

from vaezoo.errors import escape_unprintable
from vaezoo.pictures.look import LOOK, TEXT_SIZE, Look, Picture, add_heading, as_fractions

DPI = 100  # at scale 1
# Petroff 2021, Accessible Color Sequences for Data Visualization, https://arxiv.org/abs/2107.02270: told apart by
# people with any colour vision, too.
FEW_CLASSES, MORE_CLASSES = "petroff10", "tab20"


def class_colors(num: int) -> list[Any]:
    """Return the colours of ``num`` classes, at most 20."""
    colors = color_sequences[FEW_CLASSES]
    return list(colors if num <= len(colors) else color_sequences[MORE_CLASSES])[:num]


def scatter(
    codes: Tensor,
    labels: Tensor,
    subtitle: str,
    noun: str = "image",
    class_names: Sequence[str] = (),
    look: Look = LOOK,
) -> Picture:
    """Plot codes (N, 2) as points, colored by their labels (N,).

    Args:
        codes: codes (N, 2).
        labels: labels (N,); colors are continuous if there are more than 20.
        subtitle: second line of the heading.
        noun: the word for one example.
        class_names: the names of the classes; by default, the labels.
        look: the look.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    z, y = codes.float().numpy(), labels.numpy()
    figure = Figure(figsize=(7.6, 6.8), dpi=DPI * look.scale, layout="tight")
    canvas, plot = FigureCanvasAgg(figure), figure.add_subplot()
    classes = np.unique(y)
    style: dict[str, Any] = {"s": min(30, 25_000 / len(z)), "alpha": 0.7, "linewidths": 0}
    size = TEXT_SIZE * 72 / DPI
    ink, muted = as_fractions(look.colors.ink), as_fractions(look.colors.muted)
    if len(classes) <= 20:
        palette = np.array(class_colors(len(classes)), dtype=object)
        plot.scatter(z[:, 0], z[:, 1], c=list(palette[np.searchsorted(classes, y)]), **style)
        for color, label in zip(palette, classes, strict=True):
            plot.scatter([], [], color=color, label=class_name(label, class_names))
        legend = plot.legend(title="class" if class_names else "label", loc="upper left", bbox_to_anchor=(1, 1),
                             frameon=False, labelcolor=ink, fontsize=size, title_fontsize=size)  # fmt: skip
        legend.get_title().set_color(muted)
        for text in legend.get_texts():
            text.set_parse_math(False)
    else:
        bar = figure.colorbar(plot.scatter(z[:, 0], z[:, 1], c=y, cmap="viridis", **style))
        bar.set_label("label", color=muted, fontsize=size)
        bar.ax.tick_params(colors=muted, labelsize=size)
    figure.set_facecolor(as_fractions(look.colors.background))
    plot.set_facecolor("none")
    plot.spines[:].set_color(muted)
    plot.tick_params(colors=muted, labelsize=size)
    plot.set(aspect="equal")
    plot.set_xlabel("z0", color=ink, fontsize=size)
    plot.set_ylabel("z1", color=ink, fontsize=size)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return add_heading(picture, f"codes of {len(z):,} validation {noun}s", subtitle, look)


def class_name(label: Any, names: Sequence[str]) -> str:
    """Return the name of a class: that of the data, or its label as a number.

    >>> class_name(1, ["cat", "dog"]), class_name(2.0, [])
    ('dog', '2')
    """
    if names and 0 <= int(label) < len(names):
        name = escape_unprintable(" ".join(names[int(label)].split()))
        return name if len(name) <= 20 else f"{name[:19]}…"
    return f"{label:g}"
