"""The layout of a chart: round numbers on an axis, values on a parallel axis, names beside points."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

from vaezoo.report.labels import format_value

WIDTH = 520  # px of a plot that names are placed for; a wider one has more room
STEPS = (1, 2, 5, 10)  # between round numbers
GAP = 0.05  # least distance of labels, as a fraction of the axis
LOG_SPAN = 20  # positive numbers that span this factor get a logarithmic axis
LETTER, LINE, MARK = 6.6, 14, 8  # px: width of a letter, height of a line, half the size of a mark


def extent(values: Sequence[float], room: float) -> tuple[float, float]:
    """The range of values, wider on both sides by the fraction ``room``."""
    low, high = min(values), max(values)
    pad = (high - low or abs(high) or 1) * room
    return low - pad, high + pad


def round_numbers(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round numbers from low to high."""
    power = 10 ** math.floor(math.log10((high - low) / count))
    step = next(m * power for m in STEPS if m * power * count >= 0.999 * (high - low))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def round_number(value: float) -> str:
    """A round number with the minus sign of the axes."""
    return f"{value:,g}".replace("-", "\N{MINUS SIGN}")


def on_axis(values: Sequence[Any], round_marks: bool) -> tuple[list[float], list[tuple[str, float]]]:
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
    by = math.log if distinct[0] > 0 and distinct[-1] / distinct[0] >= LOG_SPAN and not round_marks else float
    low, high = by(distinct[0]), by(distinct[-1])
    at = {value: (by(value) - low) / (high - low) for value in distinct}
    if round_marks:
        marks = [(round_number(v), (v - low) / (high - low)) for v in round_numbers(low, high, 5)]
    else:
        marks = []
        for value, place in at.items():
            if not marks or place - marks[-1][1] >= GAP:
                marks.append((format_value(value), place))
    return [at[value] for value in values], marks


class Box(NamedTuple):
    """A rectangle in px."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Box") -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)

    def is_inside(self, width: float, height: float) -> bool:
        return self.left >= 0 and self.top >= 0 and self.right <= width and self.bottom <= height


class Frame(NamedTuple):
    """The domains of x and y and the size of a plot in px."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: float
    height: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Position in px, from the upper left corner."""
        across, up = ((v - low) / (high - low) for v, (low, high) in ((x, self.x), (y, self.y)))
        return across * self.width, (1 - up) * self.height


def place_names(rows: Sequence[dict[str, Any]], iso: Sequence[dict[str, Any]], frame: Frame) -> list[dict[str, Any]]:
    """Place each variant's name beside its points, as near as it covers neither a point nor another text.

    The best variants come first. A name without a free place within two lines is left out: the legend has it.

    Args:
        rows: the points, with variant, kl and distortion.
        iso: the labelled lines of equal ELBO, which end at (x2, y2).
        frame: the plot.
    """
    points = [(row["variant"], *frame.at(row["kl"], row["distortion"])) for row in rows]
    occupied = [Box(x - MARK, y - MARK, x + MARK, y + MARK) for _, x, y in points]
    for line in iso:
        x, y = frame.at(line["x2"], line["y2"])
        occupied.append(Box(x - 4 - LETTER * len(line["text"]), y - 3 - LINE, x - 4, y - 3))
    placed = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        ends = {"left": max(own, key=lambda row: row["kl"]), "right": min(own, key=lambda row: row["kl"])}
        length = LETTER * len(variant)
        shifts = sorted((n * LINE / 2 for n in range(-4, 5)), key=abs)
        for dy, align in product(shifts, ends):
            x, y = frame.at(ends[align]["kl"], ends[align]["distortion"])
            dx = MARK + 4 if align == "left" else -MARK - 4
            left = x + dx if align == "left" else x + dx - length
            box = Box(left, y + dy - LINE / 2, left + length, y + dy + LINE / 2)
            if box.is_inside(frame.width, frame.height) and not any(map(box.overlaps, occupied)):
                occupied.append(box)
                placed.append({**ends[align], "align": align, "dx": dx, "dy": dy})
                break
    return placed
