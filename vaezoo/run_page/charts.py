"""Charts of the page of a run, as SVG in the page."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 340, 210  # of a chart, in units of its view box
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 8, 30  # margins
FEW_POINTS = 30  # up to so many points of a line are marked
MAX_POINTS = 500  # of a line
LETTER, LINE = 7.5, 12  # width of a letter, and height of a line of text

Points = Sequence[tuple[float, float]]


def nice_ticks(low: float, high: float, num: int = 4) -> list[float]:
    """Return about ``num`` round numbers in an interval.

    >>> nice_ticks(-110.0, -95.0)
    [-110.0, -105.0, -100.0, -95.0]
    """
    rough = (high - low) / num
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.9 * rough)
    digits = max(0, -math.floor(math.log10(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, digits) for i in range(first, last + 1)]


def visible_range(lines: Mapping[str, Points]) -> tuple[float, float]:
    """Return the range of values that a chart shows: the first tenth of each line may lie outside of it.

    Losses fall steeply at first; the rest would be a flat line.
    """
    shown = [value for points in lines.values() for _, value in points[len(points) // 10 :]]
    low, high = min(shown), max(shown)
    margin = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    return low - margin, high + margin


def has_points_outside(lines: Mapping[str, Points]) -> bool:
    """Return whether points of lines lie above or below their chart."""
    shown = {name: thin_out(points) for name, points in lines.items() if points}
    low, high = visible_range(shown)
    return any(not low <= value <= high for points in shown.values() for _, value in points)


def line_chart(
    lines: Mapping[str, Points], title: str, unit: str, x_label: str = "epochs", digits: int | None = None
) -> str:
    """Return a chart of lines over the epochs, such as "train" and "val".

    Args:
        lines: points (epochs, value) of each line, ordered by epochs; at least one line has a point.
        title: what the values are.
        unit: their unit.
        x_label: the name of the horizontal axis.
        digits: digits after the point of the last values; None: five digits in all.
    """
    lines = {name: thin_out(points) for name, points in lines.items() if points}
    low, high = visible_range(lines)
    places = [x for points in lines.values() for x, _ in points]
    start, end = min(0.0, *places) if len(places) > 1 else 0.0, max(places) or 1.0
    inner = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def across(x: float) -> float:
        return LEFT + inner[0] * (x - start) / (end - start)

    def up(y: float) -> float:
        return min(max(TOP + inner[1] * (high - y) / (high - low), -HEIGHT), 2 * HEIGHT)

    parts = []
    for y in nice_ticks(low, high):
        parts.append(f'<path class="grid" d="M{LEFT} {up(y):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="soft" x="{LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in nice_ticks(start, end):
        parts.append(
            f'<text class="soft" x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{x:g}</text>'
        )
    parts.append(f'<text class="soft" x="{WIDTH - RIGHT}" y="{HEIGHT - 2}" text-anchor="end">{escape(x_label)}</text>')
    clip = f"clip-{''.join(char for char in title if char.isalnum())}"
    area = f'x="{LEFT}" y="{TOP - 4}" width="{inner[0] + 4}" height="{inner[1] + 8}"'
    parts.append(f'<clipPath id="{clip}"><rect {area}/></clipPath>')
    for name, points in lines.items():
        path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in points)
        dots = "".join(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.5"/>' for x, y in points)
        marks = dots if len(points) <= FEW_POINTS else ""
        parts.append(f'<g class="{escape(name)}" clip-path="url(#{clip})"><path class="line" d="M{path}"/>{marks}</g>')
    form = "#.5g" if digits is None else f"z,.{digits}f"
    last = ", ".join(f"{name} {points[-1][1]:{form}}" for name, points in lines.items())
    return (
        f"<figure><figcaption><b>{escape(title)}</b> ({escape(unit)}), last: {escape(last)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)} over the epochs">'
        f"{''.join(parts)}</svg></figure>"
    )


def thin_out(points: Points) -> Points:
    """Return at most ``MAX_POINTS`` points, evenly spaced, with the first and the last."""
    if len(points) <= MAX_POINTS:
        return points
    last = len(points) - 1
    return [points[i * last // (MAX_POINTS - 1)] for i in range(MAX_POINTS)]


def bar_chart(values: Mapping[str, float], title: str, unit: str) -> str:
    """Return a chart with a bar for each value, the largest first.

    Below each bar stands its name; if there is no room, the names are turned, and if there are too many, some are left
    out. A bar shows its name and value beside the pointer.

    Args:
        values: values >= 0 by name, such as the KL of each latent dimension; at least one.
        title: what they are.
        unit: their unit.
    """
    ordered = sorted(values.items(), key=lambda pair: -pair[1])
    high = max(ordered[0][1], 1e-9)
    inner = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    step = inner[0] / len(ordered)
    parts = []
    for y in nice_ticks(0.0, high):
        place = TOP + inner[1] * (1 - y / high)
        parts.append(f'<path class="grid" d="M{LEFT} {place:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="soft" x="{LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{y:g}</text>')
    turned = max(map(len, values)) * LETTER > step
    every = math.ceil(LINE / step) if turned else 1
    for i, (name, value) in enumerate(ordered):
        x, height = LEFT + i * step, inner[1] * max(0.0, value) / high
        parts.append(
            f'<rect class="bar" x="{x + 0.1 * step:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" width="{0.8 * step:.1f}" '
            f'height="{height:.1f}"><title>{escape(name)}: {value:.4g}</title></rect>'
        )
        if i % every == 0:
            middle, below = x + step / 2, HEIGHT - BOTTOM
            where = f'x="{middle:.1f}" y="{below + 15}" text-anchor="middle"'
            if turned:
                where = f'transform="translate({middle + 4:.1f} {below + 4}) rotate(-90)" text-anchor="end"'
            parts.append(f'<text class="soft" {where}>{escape(name)}</text>')
    return (
        f"<figure><figcaption><b>{escape(title)}</b> ({escape(unit)}), the largest first</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )
