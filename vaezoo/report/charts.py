"""The page's charts as PNG files for papers, by matplotlib."""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from vaezoo.report.labels import short, shown
from vaezoo.report.read import Run
from vaezoo.report.statistics import Comparison, Variant, compare

COLOURS = ("#0077bb", "#e5691f", "#00897b", "#aa3377", "#3a9fd6", "#7a7a7a")  # apart for the colour-blind too
DASHES = ("-", "--", ":", "-.")
MARKERS = "os^DvP"
DPI = 200
STEPS = (1, 2, 5, 10)  # between round numbers: the page's
SIZE = (6.4, 4.8)  # inches
MARK: dict[str, Any] = {"markersize": 8, "markeredgewidth": 1.6, "zorder": 3}
GAP = 0.04  # of an axis, between labels
LOG_SPAN = 20  # positive numbers that span this factor are put on a logarithmic axis
Style = tuple[str, str, str]  # colour, dashes, marker


def write_figures(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write what the page draws: a rate-distortion plane, curves and parallel coordinates for each comparison.

    Args:
        runs: as ``read_runs`` gives them.
        folder: where to; made when needed.

    Returns:
        The files: ``rate-distortion-SCALE.png`` and so on; none for a chart that has nothing to show.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for comparison in compare(runs):
        name = re.sub(r"\W+", "-", comparison.scale).strip("-").lower()
        for kind, draw in {"rate-distortion": rate_plane, "curves": curves, "parallel": parallel}.items():
            figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
            if draw(comparison, figure):
                files.append(folder / f"{kind}-{name}.png")
                figure.savefig(files[-1])
    return files


def styled(variants: Sequence[Variant]) -> Iterator[tuple[Variant, Style]]:
    """Each variant with its look, the same one in every figure."""
    dashes = [dash for dash in DASHES for _ in COLOURS]
    markers = [MARKERS[(i + turn) % 6] for turn in range(6) for i in range(6)]  # with the colour, 36 looks
    looks = zip(cycle(COLOURS), cycle(dashes), cycle(markers), strict=False)
    yield from zip(variants, looks, strict=False)


def rate_plane(comparison: Comparison, figure: Figure) -> bool:
    """Distortion over rate, a marker a run, lines to the mean over seeds; dashed lines join equal ELBOs."""
    every = [run.numbers for run in comparison.runs if {"kl", "distortion"} <= run.numbers.keys()]
    if not every:
        return False
    axes = figure.add_subplot(xlabel="rate KL(q, p) (nats per image)", ylabel="distortion (nats per image)")
    axes.margins(0.14)
    used = [n["active_units"] for n in every if "active_units" in n]
    scale = ScalarMappable(Normalize(min(used, default=0), max(used, default=1)), colormaps["viridis"])
    for variant, (edge, _, marker) in styled(comparison.variants):
        points = [run.numbers for run in variant.runs if {"kl", "distortion"} <= run.numbers.keys()]
        if not points:
            continue
        centre = [float(np.mean([n[name] for n in points])) for name in ("kl", "distortion")]
        for n in points:
            axes.plot([centre[0], n["kl"]], [centre[1], n["distortion"]], color="grey", linewidth=1, zorder=2)
            colour = tuple(scale.to_rgba(np.array([n["active_units"]]))[0]) if "active_units" in n else "grey"
            axes.plot(n["kl"], n["distortion"], marker, color=colour, markeredgecolor=edge, **MARK)
        axes.plot([], [], marker, color="none", markeredgecolor=edge, label=variant.label, **MARK)
    if all(n["kl"] >= 0 for n in every):
        axes.set_xlim(left=max(0, axes.get_xlim()[0]))
    iso_elbo(axes)
    legend(figure)
    if used:
        figure.colorbar(scale, ax=axes, label="active units", ticks=MaxNLocator(integer=True))
    name_marks(comparison.variants, axes)
    return True


def name_marks(variants: Sequence[Variant], axes: Axes) -> None:
    """Each variant's label beside its marks, as near as it covers neither a mark nor another text.

    The best come first; one that finds no place within two lines' height is in the legend alone.
    """
    figure: Any = axes.figure
    figure.draw_without_rendering()  # the layout settles, so that places on the paper are known
    pt = figure.dpi / 72  # px
    box = axes.get_window_extent()
    taken = [text.get_window_extent() for text in axes.texts]
    spans = []
    for variant in variants:
        rated = [run.numbers for run in variant.runs if {"kl", "distortion"} <= run.numbers.keys()]
        points = axes.transData.transform([(n["kl"], n["distortion"]) for n in rated] or np.empty((0, 2)))
        taken += [Bbox.from_bounds(x - 6 * pt, y - 6 * pt, 12 * pt, 12 * pt) for x, y in points]
        if rated:
            spans.append((variant.label, points[:, 0].min(), points[:, 0].max(), points[:, 1].mean()))
    for label, low, high, middle in spans:
        text = axes.text(0, 0, label, fontsize=9, transform=None, va="center", zorder=4)
        width, height = text.get_window_extent().size
        shifts = [sign * step * height / 2 for step in range(5) for sign in ((-1, 1) if step else (1,))]
        for y, x in ((middle + shift, x) for shift in shifts for x in (high + 8 * pt, low - 8 * pt - width)):
            place = Bbox.from_bounds(x, y - height / 2, width, height)
            inside = box.x0 <= place.x0 and place.x1 <= box.x1 and box.y0 <= place.y0 and place.y1 <= box.y1
            if inside and not place.count_overlaps(taken):
                text.set_position((x, y))
                ends = (high + 5 * pt, x - pt) if x > high else (low - 5 * pt, x + width + pt)
                if y != middle:
                    axes.add_artist(Line2D(ends, (middle, y), transform=None, color="grey", linewidth=0.7))
                taken.append(place)
                break
        else:
            text.remove()


def legend(figure: Figure) -> None:
    """The variants, above the axes, where no mark is; the figure grows with their number."""
    labels = figure.axes[0].get_legend_handles_labels()[1]
    columns = max(1, min(3, 78 // (8 + max(map(len, labels)))))
    figure.set_size_inches(SIZE[0], SIZE[1] + 0.2 * max(0, math.ceil(len(labels) / columns) - 2))
    figure.legend(loc="outside upper center", ncols=columns, frameon=False)


def iso_elbo(axes: Axes) -> None:
    """Lines of equal ELBO = -(rate + distortion), labelled, in the axes as they are."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for total in MaxNLocator(7, steps=STEPS).tick_values(left + bottom, right + top):
        start, end = max(left, total - top), min(right, total - bottom)
        if start < end:
            axes.plot([start, end], [total - start, total - end], "--", color="lightgrey", linewidth=1, zorder=1)
            axes.annotate(rounded(-total), (end, total - end), (-3, 3), textcoords="offset points", color="grey",
                          ha="right", va="bottom", fontsize=8)  # fmt: skip
    axes.set(xlim=(left, right), ylim=(bottom, top))


def rounded(value: float) -> str:
    """A round number, with a minus as the axes have it."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def curves(comparison: Comparison, figure: Figure) -> bool:
    """ELBO over epochs: validation, and thin the training."""
    values = [p.elbo for run in comparison.runs for p in run.curves.get("val", [])]
    if not values:
        return False
    axes = figure.add_subplot(xlabel="epoch (thick: validation, thin: training)", ylabel="ELBO (nats per image)")
    for variant, (colour, dash, _) in styled(comparison.variants):
        for i, run in enumerate(variant.runs):
            for split, look in {"val": (1.6, 1.0), "train": (0.7, 0.45)}.items():
                points = run.curves.get(split, [])
                name = variant.label if split == "val" and i == 0 else None
                axes.plot([p.epoch for p in points], [p.elbo for p in points], dash, color=colour,
                          linewidth=look[0], alpha=look[1], label=name)  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    ends = [run.curves["val"][-1].elbo for run in comparison.runs if run.curves.get("val")]
    low, high = min(np.quantile(values, 0.1), *ends), axes.get_ylim()[1]  # the first epochs would flatten the rest
    axes.set_ylim(low - 0.05 * (high - low), high)
    legend(figure)
    return True


def parallel(comparison: Comparison, figure: Figure) -> bool:
    """An axis for each setting that differs and one for the test ELBO; a line a run."""
    runs = [run for variant in comparison.variants for run in variant.runs if "elbo" in run.numbers]
    if not comparison.keys or len(runs) < 2:
        return False
    columns = [[run.settings.get(key) for run in runs] for key in comparison.keys]
    columns.append([run.numbers["elbo"] for run in runs])
    names = [*map(short, comparison.keys), "test ELBO\n(nats per image)"]
    rows = max(len(set(column)) for column in columns[:-1])
    figure.set_size_inches(max(SIZE[0], 1.6 * len(columns)), max(SIZE[1], 1 + 0.18 * rows))
    axes = figure.add_subplot(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.05, 1.05), yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_xticks(range(len(columns)), names)
    heights = []
    for x, values in enumerate(columns):
        last = x == len(columns) - 1
        places, marks = placed(values, round_marks=last)
        heights.append(places)
        axes.axvline(x, color="black", linewidth=0.8)
        for text, y in marks:
            axes.annotate(text, (x, y), (4 if last else -4, 0), textcoords="offset points",
                          ha="left" if last else "right", va="center", fontsize=9, zorder=5,
                          bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})  # fmt: skip
    looks = {id(run): look for variant, look in styled(comparison.variants) for run in variant.runs}
    for run, line in zip(runs, zip(*heights, strict=True), strict=True):
        colour, dash, _ = looks[id(run)]
        axes.plot(line, dash, color=colour, linewidth=1.4, alpha=0.85)
    return True


def placed(values: Sequence[Any], round_marks: bool) -> tuple[list[float], list[tuple[str, float]]]:
    """Heights in [0, 1] of an axis' values, and its labels: round numbers, or the values themselves.

    Numbers stand to scale, logarithmic where they span a factor of ``LOG_SPAN``; anything else evenly, from the
    top in the order in which it comes.
    """
    distinct = list(dict.fromkeys(values))
    if len(distinct) < 2 or not all(isinstance(v, int | float) for v in distinct):
        even = {value: 1 - (i + 0.5) / len(distinct) for i, value in enumerate(distinct)}
        return [even[value] for value in values], [(shown(value), place) for value, place in even.items()]
    distinct.sort()
    by = math.log if distinct[0] > 0 and distinct[-1] / distinct[0] >= LOG_SPAN else float
    low, high = by(distinct[0]), by(distinct[-1])
    at = {value: (by(value) - low) / (high - low) for value in distinct}
    if not round_marks:
        spaced: list[tuple[str, float]] = []
        for value, place in at.items():
            if not spaced or place - spaced[-1][1] >= GAP:
                spaced.append((shown(value), place))
        return [at[value] for value in values], spaced
    marks = [v for v in MaxNLocator(5).tick_values(low, high) if low <= v <= high]
    return [at[value] for value in values], [(rounded(v), (v - low) / (high - low)) for v in marks]
