"""Pictures of rows of a table: a colour for each cell and, if there are few columns, its value."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaezoo.errors import escape_unprintable
from vaezoo.pictures.look import LOOK, TEXT_SIZE, Look, add_heading, as_fractions
from vaezoo.types import Cells

MAX_TEXT_COLUMNS = 12  # more columns have colours only
MAX_LABEL = 40  # characters of the label of a row
MAX_TEXT, MAX_NAME = 13, 18  # characters of a cell or of a name above it, and of a name that stands upright
DPI = 100  # at scale 1
ROW_HEIGHT, TEXT_WIDTH, CELL_WIDTH = 0.24, 1.0, 0.26  # inches
MAX_WIDTH = 16.0  # inches
GROUP_GAP = 0.35  # rows between groups
SPREAD = 3.0  # standard deviations at the ends of the colour bar
MISSING_COLOR = (0.8, 0.8, 0.8, 1.0)


def draw_cells(
    cells: Cells, title: str, rows: Sequence[str] = (), group: int = 1, subtitle: str = "", look: Look = LOOK
) -> NDArray[np.uint8]:
    """Draw N rows of a table as a figure (height, width, 3).

    Numbers are blue below the mean of the training rows and red above it. Each category of a column has its own pale
    colour. Missing entries are grey.

    Args:
        cells: the cells.
        title: what is shown; empty: no heading.
        rows: labels of the rows; by default, they are numbered from 1.
        group: number of successive rows that belong together, such as an input and its reconstruction.
        subtitle: second line of the heading.
        look: the look.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    num, dims = cells.levels.shape
    rows = [shorten(label, MAX_LABEL) for label in rows or [str(i + 1) for i in range(num)]]
    has_text = dims <= MAX_TEXT_COLUMNS
    colors, is_dark = cell_colors(cells)
    tops = np.arange(num) + GROUP_GAP * (np.arange(num) // group) * (group > 1)
    lines = tops[-1] + 1
    width = min(MAX_WIDTH, dims * (TEXT_WIDTH if has_text else CELL_WIDTH))
    font_size = TEXT_SIZE * 72 / DPI
    left = 0.25 + look.font(TEXT_SIZE).getlength(max(rows, key=look.font(TEXT_SIZE).getlength)) / look.scale / DPI
    total_width = max(left + width + 0.3, 5.5)
    legend = describe_colors(cells, int((total_width - left) / 0.078))
    above = 0.35 if has_text else 1.5
    has_bar = not all(cells.is_category)
    below = 0.15 + 0.4 * has_bar + 0.17 * len(legend)
    size = total_width, above + lines * ROW_HEIGHT + below
    ink, muted, background = map(as_fractions, (look.colors.ink, look.colors.muted, look.colors.background))
    figure = Figure(figsize=size, dpi=DPI * look.scale, facecolor=background)
    canvas = FigureCanvasAgg(figure)
    plot = figure.add_axes(
        (left / size[0], below / size[1], width / size[0], lines * ROW_HEIGHT / size[1]), frameon=False
    )
    for start in range(0, num, group):
        part = slice(start, start + group)
        y = tops[start]
        plot.imshow(colors[part], extent=(0, dims, y + len(rows[part]), y), aspect="auto", interpolation="nearest")
    if width / dims > 0.12:
        plot.vlines(np.arange(1, dims), 0, lines, background, lw=1)
    plot.hlines(tops[1:], 0, dims, background, lw=1)
    if has_text:
        for i, j in np.ndindex(num, dims):
            style: dict[str, Any] = {"fontsize": 8, "parse_math": False, "ha": "center", "va": "center"}
            color = "white" if is_dark[i, j] else "black"
            plot.text(j + 0.5, float(tops[i]) + 0.5, shorten(cells.texts[i][j], MAX_TEXT), color=color, **style)
    every = -(-dims // int(width / 0.16))  # names that would overlap are left out
    names = [shorten(name, MAX_TEXT if has_text else MAX_NAME) for name in cells.names]
    rotation = 0 if has_text else 90
    style = {"fontsize": font_size if not has_text else 8, "parse_math": False, "color": ink}
    plot.set_xticks(np.arange(0, dims, every) + 0.5, names[::every], rotation=rotation, **style)
    plot.xaxis.tick_top()
    plot.set_yticks(tops + 0.5, rows, fontsize=font_size, parse_math=False, color=ink)
    plot.tick_params(length=0, pad=3)
    plot.set(xlim=(0, dims), ylim=(lines, 0))
    if has_bar:
        bar = figure.add_axes((left / size[0], (below - 0.22) / size[1], 2.6 / size[0], 0.1 / size[1]))
        mappable = ScalarMappable(Normalize(-SPREAD, SPREAD), diverging_colors())
        figure.colorbar(mappable, cax=bar, orientation="horizontal", ticks=[-3, -2, -1, 0, 1, 2, 3], extend="both")
        bar.tick_params(labelsize=8, length=2, pad=1, colors=muted)
    figure.text(left / size[0], 0.08 / size[1], "\n".join(legend), fontsize=font_size, va="bottom", color=muted)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return add_heading(picture, title, subtitle, look) if title else picture


def diverging_colors() -> Any:
    """Return the colours of numbers: blue below the mean, red above it."""
    from matplotlib import colormaps

    return colormaps["RdBu_r"]


def cell_colors(cells: Cells) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the colour of each cell, (N, D, 4), and whether it is dark, (N, D)."""
    from matplotlib import colormaps

    levels, pale = cells.levels, colormaps["Pastel1"](np.arange(8))  # without the grey one
    colors = diverging_colors()(np.nan_to_num((levels.clip(-SPREAD, SPREAD) + SPREAD) / (2 * SPREAD)))
    is_category = np.array(cells.is_category)
    codes = np.nan_to_num(levels[:, is_category]).round().astype(int)
    colors[:, is_category] = pale[codes % len(pale)]
    colors[np.isnan(levels)] = MISSING_COLOR
    return colors, colors[..., :3] @ [0.299, 0.587, 0.114] < 0.5


def describe_colors(cells: Cells, width: int) -> list[str]:
    """Return the meaning of the colours in lines of at most ``width`` characters."""
    parts = []
    if not all(cells.is_category):
        parts.append(f"numbers: standard deviations from the mean of the training rows{cells.note}")
    if any(cells.is_category):
        parts.append("categories: each has a pale colour of its own in its column")
    if np.isnan(cells.levels).any():
        parts.append("grey: missing")
    return [line for part in parts for line in textwrap.wrap(part, width)]


def shorten(text: str, length: int) -> str:
    """Return a text as one line of at most ``length`` characters.

    >>> shorten("mean fractal dimension", 14)
    'mean fractal …'
    """
    text = escape_unprintable(" ".join(text.split()))
    return text if len(text) <= length else f"{text[: length - 1]}…"
