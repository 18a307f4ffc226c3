"""The parts of the explorer's page that the live page and the saved one share: the map, the sliders and the frame."""

import html
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

from bokeh.models import ColumnDataSource, CustomJS, Div, HoverTool, Select, Slider
from bokeh.palettes import Category10, Category20, Viridis256
from bokeh.plotting import figure
from bokeh.themes import Theme
from torch import Tensor

from vaezoo.explore.cards import CARD_STYLE, first_labels, format_entry, label_names
from vaezoo.explore.compute import Explorer

NUM_SLIDERS = 12  # that are not folded away
FEW_LABELS = 20  # more of them have a scale of colours
LONG = 40  # characters: what is longer is not said of an example
NO_LABEL = "#9aa3ad"
SOFT = "#737b85"  # of axes: it can be read on white and on black
WRAP = ":host { flex-wrap: wrap; align-items: flex-end; gap: 8px 16px; }"  # of a row of widgets
# Bokeh draws each widget in a shadow root, which only variables of the page's style reach.
WIDGET_STYLE = """
:host {
  --color: var(--ink); --background-color: var(--paper); --default: var(--wash); --default-border: var(--line);
  --default-hover: var(--line); --default-hover-border: var(--soft); --default-active: var(--accent);
  --default-active-border: var(--accent); --file: var(--wash); --file-border: var(--line); --file-hover: var(--line);
  --file-active: var(--line); --border-color: var(--line); --placeholder-color: var(--soft); color: var(--ink);
  font-size: 14px; font-family: inherit;
}
.bk-input { color: var(--ink); background-color: var(--paper); border-color: var(--line); }
.bk-btn.bk-active { color: var(--on-accent); }
.noUi-target { background: var(--line); border: 0; box-shadow: none; }
.noUi-connect { background: var(--line) !important; }
.noUi-handle { background: var(--accent) !important; border: 0; box-shadow: none; }
"""
THEME = Theme(json={"attrs": {"UIElement": {"stylesheets": [WIDGET_STYLE]}}})
# A tooltip is white in the dark, too.
TOOLTIP_STYLE = """
div { --card: 64px; --soft: #5a636e; display: flex; gap: 10px; align-items: center; color: #1b1f24; }
"""
# The style stands within an element: Bokeh drops one that comes first.
TOOLTIP = f"<div><style>{CARD_STYLE}{TOOLTIP_STYLE}</style><div>@card{{safe}}</div><div>@key</div></div>"
# Writes what was clicked into ``click``: a point of the map, and the number of the code at it, or -1.
FIND_CLICKED = """
const {x, y} = source.data
const [kx, ky] = [plot.inner_width / (plot.x_range.end - plot.x_range.start),
                  plot.inner_height / (plot.y_range.end - plot.y_range.start)]
let [number, least] = [-1, reach]
for (let i = 0; i < x.length; i++) {
  const distance = Math.hypot(kx * (x[i] - cb_obj.x), ky * (y[i] - cb_obj.y))
  if (distance < least) [number, least] = [i, distance]
}
click.data = {x: [cb_obj.x], y: [cb_obj.y], number: [number], time: [Date.now()]}
"""
CHOOSE_PLANE = """
const i = choice.options.indexOf(choice.value)
source.data = {...source.data, x: source.data["x" + i], y: source.data["y" + i]}
plot.below[0].axis_label = labels[i][0]
plot.left[0].axis_label = labels[i][1]
"""


class Map(NamedTuple):
    """The map of the codes.

    Args:
        plot: the figure.
        source: the codes, with a card for each.
        marker: the place of the code that is shown.
        click: what was clicked: x, y and number (``FIND_CLICKED``).
        choice: the plane.
        legend: the colours and their labels, as HTML.
    """

    plot: Any
    source: ColumnDataSource
    marker: ColumnDataSource
    click: ColumnDataSource
    choice: Select
    legend: str


def draw_map(explorer: Explorer, cards: Sequence[str], every: int = 1, reach: float = 10) -> Map:
    """Return the map of the codes of an explorer.

    Args:
        explorer: the explorer, with at least one plane.
        cards: what is seen of each example beside the pointer.
        every: the map has every code whose number is a multiple of this one.
        reach: largest distance of a click from the point that it takes, in pixels.
    """
    columns: dict[str, Any] = {"card": list(cards), "key": example_names(explorer)}
    for i, plane in enumerate(explorer.planes):
        points = plane.project(explorer.codes).numpy().round(4)
        columns |= {f"x{i}": points[:, 0], f"y{i}": points[:, 1]}
    columns |= {"x": columns["x0"], "y": columns["y0"]}
    columns["label"], columns["color"], legend = color_labels(first_labels(explorer.y), explorer)
    source = ColumnDataSource({name: column[::every] for name, column in columns.items()})
    hover = HoverTool(tooltips=TOOLTIP, renderers=[], point_policy="follow_mouse", limit=1)
    plot = figure(
        tools=["pan", "wheel_zoom", "box_zoom", "reset"],
        active_drag=None,
        sizing_mode="stretch_width",
        height=430,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        x_axis_label=explorer.planes[0].labels[0],
        y_axis_label=explorer.planes[0].labels[1],
    )
    plot.toolbar.logo = None
    plot.grid.grid_line_color, plot.grid.grid_line_alpha = SOFT, 0.2
    for name in ("axis_label_text_color", "major_label_text_color", "axis_line_color", "major_tick_line_color"):
        setattr(plot.axis, name, SOFT)
    plot.axis.minor_tick_line_color = None
    plot.axis.axis_label_text_font_style = "normal"
    look: dict[str, Any] = {"color": "color", "size": 7, "alpha": 0.75, "line_color": None, "hover_alpha": 1}
    dots = plot.scatter("x", "y", source=source, **look)
    hover.renderers = [dots]
    plot.add_tools(hover)
    marker = ColumnDataSource({"x": [], "y": []})
    for color, width in (("white", 5), ("black", 2)):
        plot.scatter("x", "y", source=marker, size=17, fill_color=None, line_color=color, line_width=width)
    plot.x_range.renderers = plot.y_range.renderers = [dots]  # the marker does not move the map
    click = ColumnDataSource({"x": [], "y": [], "number": [], "time": []})
    arguments = {"source": source, "plot": plot, "click": click, "reach": reach}
    # The second of two quick clicks, also at another place, is a double tap for Bokeh, and not a tap.
    for event in ("tap", "doubletap"):
        plot.js_on_event(event, CustomJS(args=arguments, code=FIND_CLICKED))
    names = [plane.name for plane in explorer.planes]
    choice = Select(title="Map of", value=names[0], options=names, width=220)
    labels = [list(plane.labels) for plane in explorer.planes]
    arguments = {"choice": choice, "source": source, "plot": plot, "labels": labels}
    choice.js_on_change("value", CustomJS(args=arguments, code=CHOOSE_PLANE))
    return Map(plot, source, marker, click, choice, legend)


def example_names(explorer: Explorer) -> list[str]:
    """Return what is said of each example: its place in the data and its label."""
    num = len(explorer.codes)
    keys = [[f"{head} {format_entry(value)}" for value in column] for head, column in explorer.run.keys(num).items()]
    labels = first_labels(explorer.y)
    if labels is not None:
        keys.append([f"label {name}" for name in label_names(labels, explorer.data.class_names)])
    names = zip(*keys, strict=True)
    return [", ".join([first, *(text for text in others if len(text) < LONG)]) for first, *others in names]


def color_labels(labels: Tensor | None, explorer: Explorer) -> tuple[list[str], list[str], str]:
    """Return the label and the colour of each example, and the legend as HTML."""
    if labels is None:
        return [""] * len(explorer.codes), ["#0077bb"] * len(explorer.codes), ""
    names = label_names(labels, explorer.data.class_names)
    known = sorted(set(labels.tolist()) - {-1})
    if len(known) > FEW_LABELS:
        scale = {label: Viridis256[round(255 * i / (len(known) - 1))] for i, label in enumerate(known)}
        shown = [known[0], known[len(known) // 2], known[-1]]
    else:
        palette = Category10[10] if len(known) <= 10 else Category20[20]
        scale, shown = dict(zip(known, palette, strict=False)), known
    scale[-1] = NO_LABEL
    shown = [*shown, *[-1] * bool((labels < 0).any())]
    texts = dict(zip(labels.tolist(), names, strict=True))
    entries = [f'<span><i style="background:{scale[label]}"></i>{html.escape(texts[label])}</span>' for label in shown]
    return names, [scale[label] for label in labels.tolist()], "".join(entries)


def slider_titles(explorer: Explorer, most: int | None = None) -> list[str]:
    """Return the names of the latent dimensions with their use, the most used one first."""
    assert explorer.axes is not None
    form = "z{} · KL {:.2f} nats" if explorer.axes.usage_name.startswith("KL") else "z{} · variance {:.2f}"
    return [form.format(d, float(explorer.axes.usage[d])) for d in explorer.order[:most]]


def make_sliders(explorer: Explorer) -> list[Slider]:
    """Return a slider for each latent dimension, the most used one first, in standard deviations."""
    titles = slider_titles(explorer) if explorer.axes else []
    style: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (4, 12)}
    return [Slider(title=title, start=-3, end=3, step=0.05, value=0, **style) for title in titles]


def slider_note(explorer: Explorer) -> str:
    """Return what the numbers at the sliders mean, or why there are none."""
    if explorer.axes is None:
        return explorer.no_sliders
    return f"In standard deviations of the {explorer.axes.source}, from the mean. The most used dimension stands first."


def pair_of_cards(first: str, first_title: str, second: str, second_title: str) -> str:
    """Return two cards with titles, side by side."""
    title_style, style = "color:var(--soft);margin-bottom:6px", "--card:200px;display:grid;gap:16px;align-items:end"
    parts = [
        f'<figure style="margin:0;min-width:0"><figcaption style="{title_style}">{html.escape(title)}</figcaption>'
        f"{card}</figure>"
        for card, title in ((first, first_title), (second, second_title))
    ]
    return f'<div style="{style};grid-template-columns:repeat(2,minmax(0,1fr))">{"".join(parts)}</div>'


def text_div(text: str = "", **options: Any) -> Div:
    """Return a part of the page that shows HTML."""
    options |= {"disable_math": True, "sizing_mode": "stretch_width", "stylesheets": [WIDGET_STYLE, CARD_STYLE]}
    return Div(text=text, **options)


def page_template() -> str:
    """Return the frame of the page, a template of Jinja2 with its style."""
    folder = resources.files("vaezoo.explore")
    style = folder.joinpath("page.css").read_text(encoding="utf-8")
    return folder.joinpath("page.html").read_text(encoding="utf-8").replace("[[page.css]]", style)
