"""Figures: the page's charts as PNG files for papers, drawn with matplotlib."""

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

from vaezoo.metrics.quantities import QUANTITIES, use_noun
from vaezoo.report.labels import format_value, short_key
from vaezoo.report.read import Run
from vaezoo.report.statistics import Comparison, Variant, compare

COLOURS = ("#0077bb", "#e5691f", "#00897b", "#aa3377", "#3a9fd6", "#7a7a7a")  # distinguishable for colour-blind readers
DASHES = ("-", "--", ":", "-.")
MARKERS = "os^DvP"
DPI = 200
STEPS = (1, 2, 5, 10)  # between round numbers, as on the page
SIZE = (6.4, 4.8)  # inches
MARK: dict[str, Any] = {"markersize": 8, "markeredgewidth": 1.6, "zorder": 3}
GAP = 0.04  # least distance of labels, as a fraction of the axis
LOG_SPAN = 20  # positive numbers that span this factor get a logarithmic axis
Style = tuple[str, str, str]  # colour, dashes, marker


def write_figures(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write the page's charts: a rate-distortion plane, curves and parallel coordinates for each comparison.

    Args:
        runs: the result of ``read_runs``.
        folder: the folder for the files; created if missing.

    Returns:
        The files, such as ``rate-distortion-KIND.png`` for a kind of ELBO. A chart without data has no file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for comparison in compare(runs):
        name = re.sub(r"\W+", "-", comparison.elbo_kind).strip("-").lower()
        for kind, draw in {"rate-distortion": rate_plane, "curves": curves, "parallel": parallel}.items():
            figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
            if draw(comparison, figure):
                files.append(folder / f"{kind}-{name}.png")
                figure.savefig(files[-1])
    return files


def styled(variants: Sequence[Variant]) -> Iterator[tuple[Variant, Style]]:
    """Yield each variant with its style, which is the same in every figure."""
    dashes = [dash for dash in DASHES for _ in COLOURS]
    markers = [MARKERS[(i + turn) % 6] for turn in range(6) for i in range(6)]  # colour and marker together: 36 styles
    styles = zip(cycle(COLOURS), cycle(dashes), cycle(markers), strict=False)
    yield from zip(variants, styles, strict=False)


def axis_label(key: str, noun: str) -> str:
    """Name of an axis: label and unit of its number. ``noun`` is the word for one example of the data."""
    return use_noun(f"{QUANTITIES[key].title(key)} ({QUANTITIES[key].unit})", noun)


def rate_plane(comparison: Comparison, figure: Figure) -> bool:
    """Draw distortion over rate: a marker for each run, joined with the mean over seeds; dashed lines of equal ELBO."""
    every = [run.numbers for run in comparison.runs if {"kl", "distortion"} <= run.numbers.keys()]
    if not every:
        return False
    noun = comparison.runs[0].noun
    axes = figure.add_subplot(xlabel=axis_label("kl", noun), ylabel=axis_label("distortion", noun))
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
        figure.colorbar(scale, ax=axes, label=QUANTITIES["active_units"].label, ticks=MaxNLocator(integer=True))
    name_marks(comparison.variants, axes)
    return True


def name_marks(variants: Sequence[Variant], axes: Axes) -> None:
    """Write each variant's label beside its marks, as near as it covers neither a mark nor another text.

    The best variants come first. A label without a free place within two lines' height is in the legend only.
    """
    figure: Any = axes.figure
    figure.draw_without_rendering()  # computes the layout, so positions on the page are known
    pt = figure.dpi / 72  # px
    box = axes.get_window_extent()
    occupied = [text.get_window_extent() for text in axes.texts]
    spans = []
    for variant in variants:
        rated = [run.numbers for run in variant.runs if {"kl", "distortion"} <= run.numbers.keys()]
        points = axes.transData.transform([(n["kl"], n["distortion"]) for n in rated] or np.empty((0, 2)))
        occupied += [Bbox.from_bounds(x - 6 * pt, y - 6 * pt, 12 * pt, 12 * pt) for x, y in points]
        if rated:
            spans.append((variant.label, points[:, 0].min(), points[:, 0].max(), points[:, 1].mean()))
    for label, low, high, middle in spans:
        text = axes.text(0, 0, label, fontsize=9, transform=None, va="center", zorder=4)
        width, height = text.get_window_extent().size
        shifts = [sign * step * height / 2 for step in range(5) for sign in ((-1, 1) if step else (1,))]
        for y, x in ((middle + shift, x) for shift in shifts for x in (high + 8 * pt, low - 8 * pt - width)):
            place = Bbox.from_bounds(x, y - height / 2, width, height)
            inside = box.x0 <= place.x0 and place.x1 <= box.x1 and box.y0 <= place.y0 and place.y1 <= box.y1
            if inside and not place.count_overlaps(occupied):
                text.set_position((x, y))
                ends = (high + 5 * pt, x - pt) if x > high else (low - 5 * pt, x + width + pt)
                if y != middle:
                    axes.add_artist(Line2D(ends, (middle, y), transform=None, color="grey", linewidth=0.7))
                occupied.append(place)
                break
        else:
            text.remove()


def legend(figure: Figure) -> None:
    """Draw the legend above the axes; the figure grows with the number of variants."""
    labels = figure.axes[0].get_legend_handles_labels()[1]
    columns = max(1, min(3, 78 // (8 + max(map(len, labels)))))
    figure.set_size_inches(SIZE[0], SIZE[1] + 0.2 * max(0, math.ceil(len(labels) / columns) - 2))
    figure.legend(loc="outside upper center", ncols=columns, frameon=False)


def iso_elbo(axes: Axes) -> None:
    """Draw labelled lines of equal ELBO = -(rate + distortion) without changing the limits of the axes."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for total in MaxNLocator(7, steps=STEPS).tick_values(left + bottom, right + top):
        start, end = max(left, total - top), min(right, total - bottom)
        if start < end:
            axes.plot([start, end], [total - start, total - end], "--", color="lightgrey", linewidth=1, zorder=1)
            axes.annotate(rounded(-total), (end, total - end), (-3, 3), textcoords="offset points", color="grey",
                          ha="right", va="bottom", fontsize=8)  # fmt: skip
    axes.set(xlim=(left, right), ylim=(bottom, top))


def rounded(value: float) -> str:
    """A round number with the minus sign of the axes."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def curves(comparison: Comparison, figure: Figure) -> bool:
    """Draw the ELBO over epochs, thick for validation and thin for training."""
    values = [p.elbo for run in comparison.runs for p in run.curves.get("val", [])]
    if not values:
        return False
    unit = f"nats per {comparison.runs[0].noun}"
    axes = figure.add_subplot(xlabel="epoch (thick: validation, thin: training)", ylabel=f"ELBO ({unit})")
    for variant, (colour, dash, _) in styled(comparison.variants):
        for i, run in enumerate(variant.runs):
            for split, look in {"val": (1.6, 1.0), "train": (0.7, 0.45)}.items():
                points = run.curves.get(split, [])
                name = variant.label if split == "val" and i == 0 else None
                axes.plot([p.epoch for p in points], [p.elbo for p in points], dash, color=colour,
                          linewidth=look[0], alpha=look[1], label=name)  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    ends = [run.curves["val"][-1].elbo for run in comparison.runs if run.curves.get("val")]
    low, high = min(np.quantile(values, 0.1), *ends), axes.get_ylim()[1]  # the first epochs may lie far below
    axes.set_ylim(low - 0.05 * (high - low), high)
    legend(figure)
    return True


def parallel(comparison: Comparison, figure: Figure) -> bool:
    """Draw an axis for each setting that differs and one for the test ELBO, with a line for each run."""
    runs = [run for variant in comparison.variants for run in variant.runs if "elbo" in run.numbers]
    if not comparison.keys or len(runs) < 2:
        return False
    columns = [[run.settings.get(key) for run in runs] for key in comparison.keys]
    columns.append([run.numbers["elbo"] for run in runs])
    names = [*map(short_key, comparison.keys), axis_label("elbo", comparison.runs[0].noun).replace(" (", "\n(")]
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
    styles = {id(run): style for variant, style in styled(comparison.variants) for run in variant.runs}
    for run, line in zip(runs, zip(*heights, strict=True), strict=True):
        colour, dash, _ = styles[id(run)]
        axes.plot(line, dash, color=colour, linewidth=1.4, alpha=0.85)
    return True


def placed(values: Sequence[Any], round_marks: bool) -> tuple[list[float], list[tuple[str, float]]]:
    """Place values and labels on an axis of height 1.

    Numbers are placed to scale, logarithmically if they span a factor of ``LOG_SPAN``. Other values are spaced evenly,
    in their order from the top.

    Args:
        values: the values.
        round_marks: whether the labels are round numbers, not the values themselves.

    Returns:
        The height of each value, and each label with its height.
    """
    distinct = list(dict.fromkeys(values))
    if len(distinct) < 2 or not all(isinstance(v, int | float) for v in distinct):
        even = {value: 1 - (i + 0.5) / len(distinct) for i, value in enumerate(distinct)}
        return [even[value] for value in values], [(format_value(value), place) for value, place in even.items()]
    distinct.sort()
    by = math.log if distinct[0] > 0 and distinct[-1] / distinct[0] >= LOG_SPAN else float
    low, high = by(distinct[0]), by(distinct[-1])
    at = {value: (by(value) - low) / (high - low) for value in distinct}
    if not round_marks:
        spaced: list[tuple[str, float]] = []
        for value, place in at.items():
            if not spaced or place - spaced[-1][1] >= GAP:
                spaced.append((format_value(value), place))
        return [at[value] for value in values], spaced
    marks = [v for v in MaxNLocator(5).tick_values(low, high) if low <= v <= high]
    return [at[value] for value in values], [(rounded(v), (v - low) / (high - low)) for v in marks]
