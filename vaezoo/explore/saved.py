"""The saved page: one file that opens from disk, with all pictures computed before."""

from html import escape
from pathlib import Path
from typing import Any

import torch
from bokeh.document import Document
from bokeh.embed import file_html
from bokeh.events import DocumentReady
from bokeh.models import Column, CustomJS, Row, Select, Slider
from bokeh.resources import INLINE

from vaezoo.explore.cards import Cards, first_labels, row_of_cards
from vaezoo.explore.compute import Explorer, progress
from vaezoo.explore.parts import (
    THEME,
    WRAP,
    draw_map,
    example_names,
    page_template,
    pair_of_cards,
    slider_note,
    slider_titles,
    text_div,
)
from vaezoo.runs.folder import write_atomic

LIMIT = 5_000_000  # bytes of the file
NUM_EXAMPLES, NUM_DIMS = 12, 10  # with traversals
STEPS = [round(0.6 * i, 1) for i in range(-5, 6)]
# Shows the example whose code was clicked; also when the map shows another plane.
SHOW_CLICKED = """
const n = click.data.number[0]
if (n === undefined) return
const {x, y, card, reconstruction, title} = source.data
marker.data = {x: [x[n]], y: [y[n]]}
view.text = frame.replace("[[title]]", () => title[n]).replace("[[card]]", () => card[n])
  .replace("[[reconstruction]]", () => reconstruction[n])
"""
SHOW_STRIP = """
const [i, j] = [example, dimension].map(choice => choice.options.indexOf(choice.value))
const k = Math.round((slider.value - slider.start) / slider.step)
const mark = "outline:3px solid var(--accent);outline-offset:1px;border-radius:3px;"
const width = text ? "flex-basis:100%" : ""
const cards = strips[i][j].map((card, step) => `<div style="${step == k ? mark : ""}${width}">${card}</div>`)
if (frame) strip.text = frame.replace("<div>[[cards]]</div>", () => cards.join(""))
large.text = `<div style="--card:200px">${strips[i][j][k]}</div>`
"""


def save_page(explorer: Explorer, file: Path) -> None:
    """Write the page into a file below ``LIMIT``: if it would be larger, fewer codes are on the map.

    Args:
        explorer: the run.
        file: the file. One of this name is replaced.
    """
    cards = Cards(explorer.data)
    examples, reconstructions = cards(explorer.x, small=True), cards(explorer.reconstruct(), small=True)
    strips = make_strips(explorer, cards)
    for every in (1, 2, 4, 8, 16, 64):
        # The traversals of every second example are left out where every fourth code is.
        some = dict(list(strips.items())[:: 1 + every // 4])
        page = make_page(explorer, examples, reconstructions, some, every).encode()
        if len(page) < LIMIT:
            break
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, page.decode())
    shown, total = len(examples[::every]), len(examples)
    left_out = "" if every == 1 else f", with {shown:,} of {total:,} codes, so that it is smaller"
    print(f"{file} ({len(page) / 1e6:.1f} MB{left_out})")


def make_page(
    explorer: Explorer, examples: list[str], reconstructions: list[str], strips: dict[int, list[list[str]]], every: int
) -> str:
    """Return the page.

    Args:
        explorer: the run.
        examples: a small card of each example.
        reconstructions: a small card of each reconstruction.
        strips: what ``make_strips`` returns.
        every: the map has every code with a multiple of this number.
    """
    doc, parts = Document(), dict[str, Any]()
    names = example_names(explorer)
    view = text_div(pair_of_cards(examples[0], names[0], reconstructions[0], "reconstruction"))
    side = {
        "number": 0,
        "has_map": bool(explorer.planes),
        "map_note": "A click shows the nearest example and its reconstruction.",
        "view_title": "The example and its reconstruction",
        "slider_note": slider_note(explorer),
        "has_strip": bool(strips),
    }
    parts["view0"] = view
    if explorer.planes:
        map_ = draw_map(explorer, examples, every, reach=1e9)
        side["legend"] = map_.legend
        map_.source.data["reconstruction"] = reconstructions[::every]
        map_.source.data["title"] = [escape(name) for name in names[::every]]
        map_.marker.data = {name: [map_.source.data[name][0]] for name in ("x", "y")}
        frame = pair_of_cards("[[card]]", "[[title]]", "[[reconstruction]]", "reconstruction")
        arguments = {"click": map_.click, "source": map_.source, "marker": map_.marker, "view": view, "frame": frame}
        show = CustomJS(args=arguments, code=SHOW_CLICKED)
        map_.click.js_on_change("data", show)
        map_.choice.js_on_change("value", show)
        parts |= {"map0": map_.plot, "choice0": map_.choice}
    if strips:
        parts["strip0"], show_strip = strip_part(explorer, strips)
        doc.js_on_event(DocumentReady, show_strip)
    for name, part in parts.items():
        part.name = name
        doc.add_root(part)
    variables = {"title": explorer.title, "subtitle": [explorer.describe()], "has_controls": False, "sides": [side]}
    look: dict[str, Any] = {"template": page_template(), "template_variables": variables, "theme": THEME}
    return file_html(doc, INLINE, explorer.title, **look)


def spread(explorer: Explorer, num: int) -> list[int]:
    """Return the numbers of some examples, of as many classes as possible."""
    labels = first_labels(explorer.y)
    order = torch.arange(len(explorer.codes)) if labels is None else labels.argsort(stable=True)
    return sorted({int(order[i]) for i in torch.linspace(0, len(order) - 1, num).round().long()})


def make_strips(explorer: Explorer, cards: Cards) -> dict[int, list[list[str]]]:
    """Return the traversals of some examples: for each dimension, a small card at each of ``STEPS``."""
    if explorer.axes is None:
        return {}
    found = {}
    dims = range(min(NUM_DIMS, len(explorer.order)))
    for number in progress(spread(explorer, NUM_EXAMPLES), "traverse"):
        example = explorer.example(number)
        z = explorer.encode(example)
        path = torch.cat([explorer.traverse(z, i, STEPS) for i in dims])
        shown = cards(explorer.show(explorer.decode(path, example)), small=True)
        found[number] = [shown[i * len(STEPS) : (i + 1) * len(STEPS)] for i in dims]
    return found


def strip_part(explorer: Explorer, strips: dict[int, list[list[str]]]) -> tuple[Column, CustomJS]:
    """Return the choice of an example and a dimension, the slider, and the strip of pictures; and what shows them."""
    names, titles = example_names(explorer), slider_titles(explorer, NUM_DIMS)
    options = [names[number] for number in strips]
    example = Select(title="Example", value=options[0], options=options, width=240)
    dimension = Select(title="Dimension", value=titles[0], options=titles, width=200)
    slider = Slider(title="Standard deviations from the center", start=-3, end=3, step=0.6, value=0, width=260)
    card = next(iter(strips.values()))[0][0]
    frame = "" if card.startswith("<table") else row_of_cards(["[[cards]]"])  # a table is too large for a strip
    strip, large = text_div(), text_div()
    arguments = {
        "example": example, "dimension": dimension, "slider": slider, "strip": strip, "large": large,
        "strips": list(strips.values()), "frame": frame, "text": card.startswith("<p"),
    }  # fmt: skip
    show = CustomJS(args=arguments, code=SHOW_STRIP)
    for part in (example, dimension, slider):
        part.js_on_change("value", show)
    row = Row(example, dimension, slider, stylesheets=[WRAP])
    return Column(row, large, strip, sizing_mode="stretch_width", styles={"gap": "12px"}), show
