"""The report's charts as Vega-Lite specifications, the same for the page and for figures in papers."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from vaezoo.report.chart_layout import WIDTH, Frame, extent, on_axis, place_names, round_number, round_numbers
from vaezoo.report.chart_parts import HEIGHT, KEPT, SEEN, Chart, Look, exactly, layered
from vaezoo.report.labels import leading_columns, short_key
from vaezoo.report.statistics import Comparison

VIRIDIS = ["#46307e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39"]  # without ends close to black and white
ARROWS = {1: " \N{UPWARDS ARROW}", -1: " \N{DOWNWARDS ARROW}", 0: ""}


def all_charts(comparison: Comparison, index: dict[int, int], points: int, legend: bool) -> list[Chart]:
    """Every chart of a comparison that has data; the arguments are those of ``Look``."""
    look = Look(comparison, index, points, legend)
    drawn = [rate_plane(look), curve(look, "elbo"), curve(look, "kl"), parallel(look), metrics(look)]
    return [chart for chart in drawn if chart]


def rate_plane(look: Look) -> Chart | None:
    """Draw distortion over rate: a mark for each run, joined with its model's mean; dashed lines of equal ELBO."""
    keys = ("kl", "distortion")
    rows = [named | {k: run.numbers.get(k) for k in (*keys, "active_units")} for run, named in look.runs(*keys)]
    if not rows:
        return None
    x, y = (extent([row[key] for row in rows], 0.14) for key in keys)
    if all(row["kl"] >= 0 for row in rows):
        x = max(0, x[0]), x[1]
    iso = [
        {"x": start, "y": total - start, "x2": end, "y2": total - end, "text": round_number(-total)}
        for total in round_numbers(x[0] + y[0], x[1] + y[1], 7)
        if (start := max(x[0], total - y[1])) < (end := min(x[1], total - y[0]))
    ]
    lines, names = alt.Chart(alt.NamedData("iso")), alt.Chart(alt.NamedData("names"))
    base = alt.Chart(alt.NamedData("points")).encode(
        x=alt.X("kl:Q", title=look.title("kl"), scale=exactly(x), axis=alt.Axis(grid=False)),
        y=alt.Y("distortion:Q", title=look.title("distortion"), scale=exactly(y)),
    )
    means = {f"mean_{key}": f"mean({key})" for key in keys}
    drawing = layered(
        lines.mark_rule(strokeDash=[3, 4], style="faint").encode(x="x:Q", y="y:Q", x2="x2:Q", y2="y2:Q"),
        lines.mark_text(align="right", baseline="bottom", dx=-4, dy=-3, style="note").encode(
            x="x2:Q", y="y2:Q", text="text:N"
        ),
        base.transform_joinaggregate(groupby=["variant"], **means)
        .mark_rule(style="faint", strokeOpacity=alt.ExprRef(SEEN))
        .encode(x2="mean_kl:Q", y2="mean_distortion:Q"),
        base.mark_point(size=110, strokeWidth=2, opacity=alt.ExprRef(SEEN), invalid="show").encode(
            look.colour, look.encoding(alt.Shape, look.shapes, look.legend),
            *fill([row["active_units"] for row in rows]),
        ),
        names.mark_text(
            align=alt.ExprRef("datum.align"), dx=alt.ExprRef("datum.dx"), dy=alt.ExprRef("datum.dy"),
            opacity=alt.ExprRef(f"width < {0.8 * WIDTH} ? 0 : {KEPT}"),
        ).encode(x="kl:Q", y="distortion:Q", text="variant:N"),
    )  # fmt: skip
    data = {"iso": iso, "points": rows, "names": place_names(rows, iso, Frame(x, y, WIDTH, HEIGHT))}
    tip = ("log_p", "elbo", "kl", "distortion", "active_units")
    return Chart("rate-distortion", "Rate and distortion", drawing, data, "points", keys, tip)


def fill(values: Sequence[float | None]) -> list[alt.Fill]:
    """Colour points by their active units, if the runs have them and they differ; a point without has no fill."""
    known = sorted({value for value in values if value is not None})
    if len(known) < 2:  # a colour without a legend says nothing
        return []
    span = [known[0], known[-1]]
    legend = alt.Legend(
        title="active units", titleOrient="left", orient="bottom", direction="horizontal", gradientLength=90,
        values=span, format="d",
    )  # fmt: skip
    without = {"test": "!isValid(datum.active_units)", "value": "transparent"}
    scale = alt.Scale(domain=span, range=VIRIDIS)
    return [alt.Fill("active_units:Q", condition=without, scale=scale, legend=legend)]


def curve(look: Look, key: str) -> Chart | None:
    """Draw a number over the training, thick for validation and thin for training."""
    rows = [
        {**named, "split": split, **point._asdict()}
        for run, named in look.runs()
        for split, curve in run.curves.items()
        for point in thinned(curve, look.points)
    ]
    values = [row[key] for row in rows if row["split"] == "val" and row[key] is not None]
    if not values:
        return None
    every = [row[key] for row in rows if row[key] is not None]
    ends = [curve[-1]._asdict()[key] for run, _ in look.runs() if (curve := run.curves.get("val"))]
    # The first epochs may lie far away: an ELBO far below, a KL far above.
    low, high = min(values), max(every)
    if key == "elbo":
        low = float(min(np.quantile(values, 0.1), *ends))
    else:
        low, high = min(0.0, low), float(max(np.quantile(every, 0.98), *ends))
    last = max(row["epoch"] for row in rows)
    by = alt.param(name="by", value="epoch", bind=alt.binding_radio(options=["epoch", "step"], name="by "))
    x = alt.X(
        "at:Q",
        title=" ",
        scale=alt.Scale(nice=False, zero=True),
        axis=alt.Axis(grid=False, tickMinStep=min(1, last)),
    )
    y = alt.Y(f"{key}:Q", title=look.title(key).removeprefix("test "), scale=exactly(extent([low, high], 0.05)))
    lines = (
        alt.Chart(alt.NamedData("curves"))
        .transform_filter(f"isValid(datum.{key})")
        .transform_calculate(at="datum[by]")
        .mark_line(
            strokeCap="round", strokeWidth=alt.ExprRef("datum.split == 'val' ? 2 : 1"),
            strokeOpacity=alt.ExprRef(f"{SEEN} * (datum.split == 'val' ? 1 : 0.5)"),
        )
        .encode(x, y, look.colour, look.dash, detail=["run:N", "split:N"])
    )  # fmt: skip
    words = "(by == 'step' ? 'optimizer step' : 'epoch') + ' (thick: validation, thin: training)'"
    below = alt.Chart(alt.InlineData([{}])).mark_text(
        text=alt.ExprRef(words), x=alt.ExprRef("width / 2"), y=alt.ExprRef("height + 36"), style="axis-title"
    )
    name = {"elbo": "ELBO", "kl": "KL"}[key]
    tip = ("epoch", "step", "elbo", "kl")
    drawing = layered(lines, below).add_params(by)
    return Chart(f"curves-{key}", f"{name} over training", drawing, {"curves": rows}, "curves", ("at", key), tip)


def parallel(look: Look) -> Chart | None:
    """Draw an axis for each setting that differs and one for the test ELBO, with a line for each run."""
    runs = list(look.runs("elbo"))
    if not look.comparison.keys or len(runs) < 2:
        return None
    columns = [(short_key(key), "", [run.settings.get(key) for run, _ in runs]) for key in look.comparison.keys]
    title, _, unit = look.title("elbo").partition(" (")
    columns.append((title, unit.removesuffix(")"), [run.numbers["elbo"] for run, _ in runs]))
    lines, ticks, axes = [], [], []
    for column, (name, unit, values) in enumerate(columns):
        last = column == len(columns) - 1
        places, marks = on_axis(values, round_marks=last)
        axes.append({"column": column, "name": name, "unit": unit, "low": 0, "high": 1})
        ticks += [{"column": column, "text": text, "place": place, "last": last} for text, place in marks]
        named = zip((part for _, part in runs), places, strict=True)
        lines += [part | {"column": column, "place": place} for part, place in named]
    x = alt.X("column:Q", axis=None, scale=exactly((-0.5, len(columns) - 0.5)))
    y = {"scale": exactly((-0.03, 1.15)), "axis": None}
    rule, low, place = alt.Chart(alt.NamedData("axes")), alt.Y("low:Q", **y), alt.Y("place:Q", **y)
    side = {"align": alt.ExprRef("datum.last ? 'left' : 'right'"), "dx": alt.ExprRef("datum.last ? 6 : -6")}
    drawing = layered(
        rule.mark_rule(style="axis-line").encode(x, low, y2="high:Q"),
        rule.mark_text(dy=-26).encode(x, alt.Y("high:Q", **y), text="name:N"),
        rule.mark_text(dy=-12, style="note").encode(x, alt.Y("high:Q", **y), text="unit:N"),
        alt.Chart(alt.NamedData("lines"))
        .mark_line(interpolate="monotone", strokeWidth=2, strokeOpacity=alt.ExprRef(SEEN))
        .encode(x, place, look.colour, look.dash, detail="run:N"),
        alt.Chart(alt.NamedData("ticks")).mark_text(style="note", **side).encode(x, place, text="text:N"),
        alt.Chart(alt.NamedData("brushes")).mark_bar(size=16, style="brush").encode(x, low, y2="high:Q"),
        height=max(256, 18 * max(len(set(map(str, values))) for _, _, values in columns[:-1])),
    )
    data = {"lines": lines, "ticks": ticks, "axes": axes, "brushes": []}
    return Chart("settings", "Varied settings", drawing, data, "lines", ("column", "place"), ("log_p", "elbo"))


def metrics(look: Look) -> Chart | None:
    """Draw each main number of every model in a panel: seeds, mean and 95 % confidence interval."""
    quantities, rows, titles = look.comparison.quantities, [], []
    names = {name for variant in look.comparison.variants for name in variant.numbers}
    for key in (key for key in leading_columns(quantities, names) if quantities[key].column == "main"):
        titles.append(look.title(key) + ARROWS[quantities[key].better])
        panel = {"panel": titles[-1], "number": len(titles), "key": key}
        rows += [panel | named | {"value": run.numbers[key]} for run, named in look.runs(key)]
        for variant in look.comparison.variants:
            if found := variant.numbers.get(key):
                half = found.half if math.isfinite(found.half) else 0
                span = {"mean": found.mean, "low": found.mean - half, "high": found.mean + half}
                rows.append(panel | {"variant": variant.label, "run": look.index[id(variant.runs[0])]} | span)
    if not rows:
        return None
    x = {"title": None, "scale": alt.Scale(zero=False), "axis": alt.Axis(tickCount=4)}
    y = alt.Y("variant:N", scale=alt.Scale(domain=look.labels), title=None, axis=alt.Axis(labelLimit=150))
    base = alt.Chart().encode(y, look.encoding(alt.Stroke, legend=None))
    means, seeds = base.transform_filter("isValid(datum.mean)"), base.transform_filter("isValid(datum.value)")
    drawing = layered(
        means.mark_rule(strokeWidth=2, strokeOpacity=alt.ExprRef(KEPT)).encode(alt.X("low:Q", **x), x2="high:Q"),
        means.mark_point(size=80, strokeWidth=2, style="hollow", strokeOpacity=alt.ExprRef(KEPT)).encode(
            alt.X("mean:Q", **x), look.encoding(alt.Shape, look.shapes, legend=None)
        ),
        seeds.mark_tick(thickness=2, size=14, strokeOpacity=alt.ExprRef(SEEN)).encode(alt.X("value:Q", **x)),
        width=200, height=22 * len(look.labels) + 8,
    )  # fmt: skip
    panels = alt.Facet(
        "panel:N", sort=alt.EncodingSortField("number", op="min"), title=None, header=alt.Header(labelLimit=210)
    )
    panels_drawing = drawing.facet(panels, columns=2, data=alt.NamedData("metrics")).resolve_scale(x="independent")
    return Chart("metrics", "Numbers of each model", panels_drawing, {"metrics": rows}, "", ("value", "variant"), ())


def thinned(curve: Sequence[Any], num: int) -> list[Any]:
    """At most ``num`` points of a curve, evenly spaced, with the first and the last."""
    kept = np.linspace(0, max(len(curve) - 1, 0), min(len(curve), max(num, 2))).round().astype(int)
    return [curve[i] for i in kept]
