"""Parts that the report's charts share: the look of each variant, the titles of axes, what the page can set."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import altair as alt

from vaezoo.metrics.quantities import QUANTITIES, Quantity, use_noun
from vaezoo.report.chart_layout import WIDTH
from vaezoo.report.read import Run
from vaezoo.report.statistics import Comparison

HEIGHT = 360  # px of a plot
DASHES = ([1, 0], [7, 4], [2, 4], [9, 3, 2, 3])
SHAPES = (  # paths in a square from -1 to 1
    "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0 -2 0Z", "M-.9 -.9h1.8v1.8h-1.8Z", "M0 -1.15L1.15 .9H-1.15Z",
    "M0 -1.25L1.25 0L0 1.25L-1.25 0Z", "M0 1.15L1.15 -.9H-1.15Z",
    "M-.4 -1.15h.8v.75h.75v.8h-.75v.75h-.8v-.75h-.75v-.8h.75Z",
)  # fmt: skip
# Runs in ``out`` are deselected. If ``hot`` has runs, all others are dimmed. A mean has the number of its first run.
KEPT = "(indexof(out, datum.run) >= 0 ? 0.08 : 1)"
SEEN = "(indexof(out, datum.run) >= 0 ? 0.08 : length(hot) && indexof(hot, datum.run) < 0 ? 0.2 : 1)"
Rows = list[dict[str, Any]]


class Chart(NamedTuple):
    """A chart, its data, and what the page does with it.

    Args:
        name: name of its file.
        title: its heading.
        drawing: the specification. Its data are named.
        rows: the data by name.
        marks: name of the data whose rows the pointer and the arrow keys choose; each names its run.
        place: the fields of such a row that x and y show.
        tip: keys of the numbers that are shown for such a row.
    """

    name: str
    title: str
    drawing: Any
    rows: dict[str, Rows]
    marks: str
    place: tuple[str, str]
    tip: Sequence[str]


class Look:
    """The look of the runs of a comparison in each of its charts.

    Args:
        comparison: the comparison.
        index: place of each run, by its ``id``, in the list of all runs.
        points: most points of a curve.
        legend: whether the variants are in a legend of each chart.
    """

    def __init__(self, comparison: Comparison, index: dict[int, int], points: int, legend: bool):
        self.comparison, self.index, self.points = comparison, index, points
        self.legend = alt.Legend() if legend else None
        self.labels = [variant.label for variant in comparison.variants]
        self.shapes = shapes(len(self.labels))
        self.colour = self.encoding(alt.Stroke, legend=self.legend)  # the theme sets the colours
        self.dash = self.encoding(alt.StrokeDash, dashes(len(self.labels)), self.legend)

    def encoding(self, channel: Any, values: Sequence[Any] | None = None, legend: alt.Legend | None = None) -> Any:
        """An encoding of the variant. Those of a chart share one legend."""
        scale = alt.Scale(domain=self.labels, **({"range": values} if values else {}))
        return channel("variant:N", scale=scale, title=None, legend=legend)

    def runs(self, *keys: str) -> Iterator[tuple[Run, dict[str, Any]]]:
        """Each run of a variant that has these numbers, with the fields that name it."""
        for variant in self.comparison.variants:
            for run in variant.runs:
                if set(keys) <= run.numbers.keys():
                    yield run, {"run": self.index[id(run)], "variant": variant.label}

    def title(self, key: str) -> str:
        """Name of an axis: label and unit of its number."""
        quantity = self.comparison.quantities.get(key) or QUANTITIES.get(key, Quantity("", ""))
        unit = f" ({quantity.unit})" if quantity.unit else ""
        return use_noun(f"{quantity.title(key)}{unit}", self.comparison.runs[0].noun)


def shapes(num: int) -> list[str]:
    """A shape for each of ``num`` variants; with the colours there are 36 pairs."""
    return [SHAPES[(i + i // 6) % 6] for i in range(num)]


def dashes(num: int) -> list[list[int]]:
    """Dashes for each of ``num`` variants; with the colours there are 24 pairs."""
    return [DASHES[i // 6 % 4] for i in range(num)]


def layered(*layers: alt.Chart, width: int = WIDTH, height: int = HEIGHT) -> alt.LayerChart:
    """Layers with the parameters that the page sets."""
    chosen = [alt.param(name=name, value=[]) for name in ("out", "hot")]
    return alt.layer(*layers).add_params(*chosen).properties(width=width, height=height)


def exactly(domain: tuple[float, float]) -> alt.Scale:
    """A scale with this domain."""
    return alt.Scale(domain=list(domain), nice=False, zero=False)
