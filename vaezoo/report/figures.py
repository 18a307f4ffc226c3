"""Draw the report's charts: as PNG and SVG files for papers, and as specifications for the page."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaezoo.report.read import Run
from vaezoo.report.statistics import Comparison, compare
from vaezoo.runs.folder import write_atomic

if TYPE_CHECKING:
    from vaezoo.report.chart_parts import Chart

COLOURS = ("#0077bb", "#e5691f", "#00897b", "#aa3377", "#3a9fd6", "#7a7a7a")  # distinguishable for colour-blind readers
PAPER = {"ink": "#1b1f24", "soft": "#5a636e", "line": "#dde1e6", "accent": "#0067a6"}
FONTS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif'
CURVE_POINTS = 150  # of one curve, at most
DPI = 200
PANEL = 300  # px of the page for a panel


def write_figures(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write the page's charts as PNG and SVG.

    Args:
        runs: the result of ``read_runs``.
        folder: the folder for the files; created if missing.

    Returns:
        The files, such as ``rate-distortion-KIND.png`` for a kind of ELBO. A chart without data has no file.
    """
    import vl_convert

    folder.mkdir(parents=True, exist_ok=True)
    index = {id(run): i for i, run in enumerate(runs)}
    files = []
    for comparison in compare(runs):
        kind = re.sub(r"\W+", "-", comparison.elbo_kind).strip("-").lower()
        for chart in draw(comparison, index, CURVE_POINTS, legend=True):
            drawing = compiled(chart, paper=True)
            for entry in drawing["data"]:
                if entry["name"] in chart.rows:
                    entry["values"] = chart.rows[entry["name"]]
            png = vl_convert.vega_to_png(drawing, ppi=DPI)
            files += [folder / f"{chart.name}-{kind}.{ending}" for ending in ("png", "svg")]
            write_atomic(files[-1], vl_convert.vega_to_svg(drawing))
            files[-2].write_bytes(png)
    return files


def draw(comparison: Comparison, index: dict[int, int], points: int, legend: bool) -> list["Chart"]:
    """Return the charts of a comparison; the arguments are those of ``Look``."""
    from vaezoo.report.charts import all_charts  # altair takes half a second to import; a training needs none

    return all_charts(comparison, index, points, legend)


def compiled(chart: "Chart", paper: bool) -> dict[str, Any]:
    """Compile a chart to Vega, without data.

    Args:
        chart: the chart.
        paper: whether it is for a file: light, with legends and with a size of its own. On the page the style sheet
            sets the colours, the legend is above the charts and the width is that of the page.
    """
    import altair
    import vl_convert

    drawing = chart.drawing.to_dict()
    panels = "facet" in drawing
    drawing["config"] = theme(paper)
    drawing["background"] = "white" if paper else None
    if not paper:
        drawing |= {} if panels else {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
    version = altair.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]
    found = vl_convert.vegalite_to_vega(drawing, vl_version=version)
    # One clip for all lines: with the one of Vega-Lite for each line, a PNG file takes seconds.
    size = {"width": {"signal": "width"}, "height": {"signal": "height"}}
    found["marks"] = [
        {"type": "group", "clip": True, "encode": {"update": size}, "marks": [mark]}
        if mark["name"].endswith("pathgroup")
        else mark
        for mark in found["marks"]
    ]
    del found["$schema"]  # an address, of which the page has none
    if panels and not paper:  # as many columns as the page has room for
        count = f"max(1, floor(containerSize()[0] / {PANEL}))"
        resized = [{"events": "window:resize", "update": count}]
        found["signals"] = [*found.get("signals", []), {"name": "columns", "init": count, "on": resized}]
        found["layout"]["columns"] = {"signal": "columns"}
        (rows,) = (data for data in found["data"] if data["name"] == "facet_domain_row")
        rows["transform"][0]["stop"] = {"signal": "ceil(length(data('facet_domain')) / columns)"}
    return found


def theme(paper: bool) -> dict[str, Any]:
    """Fonts and colours of all charts."""
    names = PAPER if paper else {name: f"var(--{name})" for name in PAPER}
    ink, soft, line = names["ink"], names["soft"], names["line"]
    small: dict[str, Any] = {"labelFontSize": 11, "labelColor": soft}
    normal: dict[str, Any] = {"titleFontSize": 12, "titleColor": ink, "titleFontWeight": "normal"}
    return {
        "font": "sans-serif" if paper else FONTS,
        "range": {"category": COLOURS if paper else [f"var(--c{i})" for i in range(len(COLOURS))]},
        "view": {"stroke": None},
        "axis": small | normal | {"gridColor": line, "domain": False, "ticks": False, "labelPadding": 6},
        "axisX": {"domain": True, "domainColor": ink},
        "legend": small | normal | {
            "orient": "top", "columns": 3, "labelLimit": 400, "labelColor": ink, "symbolFillColor": "transparent",
        },
        "header": small | {"labelColor": ink, "labelFontSize": 12},
        "text": {"color": ink, "fontSize": 12},
        "style": {
            "note": {"color": soft, "fontSize": 11},
            "faint": {"color": soft, "strokeOpacity": 0.5},
            "axis-line": {"color": ink},
            "axis-title": {"color": ink, "fontSize": 12},
            "hollow": {"fill": "transparent"},
            "brush": {"color": names["accent"], "stroke": names["accent"], "fillOpacity": 0.25},
        },
    }  # fmt: skip


@cache
def vega_script() -> str:
    """Return the JavaScript of Vega-Embed and Vega, which draws compiled charts in the page."""
    import vl_convert

    return vl_convert.javascript_bundle("globalThis.vegaEmbed = vegaEmbed;")
