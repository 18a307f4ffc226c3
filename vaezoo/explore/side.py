"""The part of the live page that shows one run: what its buttons, sliders and clicks do."""

import time
from collections.abc import Callable
from typing import Any

import torch
from bokeh.document import Document
from bokeh.models import (
    Button,
    Column,
    RadioButtonGroup,
    Row,
    Select,
    Slider,
)
from torch import Tensor

from vaezoo.explore.cards import Cards, first_labels, label_names
from vaezoo.explore.compute import Explorer
from vaezoo.explore.parts import (
    NUM_SLIDERS,
    WRAP,
    draw_map,
    example_names,
    make_sliders,
    pair_of_cards,
    slider_note,
    text_div,
)
from vaezoo.types import Batch

SLOW = 0.05  # seconds: a picture that takes longer follows a slider only when it is released
REST = 200  # milliseconds: sliders that have not moved for so long rest
OWN_LABEL = "the example's own"
MAP_NOTE = "A click on a point takes its code; a click beside all points decodes there."
CODES_NOTE = "A click takes the nearest code; there is nothing in between."


class Side:
    """The part of the page that shows one run.

    Args:
        explorer: the run.
        cards: small cards of its examples.
        number: its number on the page.
        choose: shows an example, by its number, on all sides.
    """

    def __init__(self, explorer: Explorer, cards: list[str], number: int, choose: Callable[[int], None]):
        self.explorer, self.number, self.choose = explorer, number, choose
        self.cards = Cards(explorer.data)
        self.names = example_names(explorer)
        self.example, self.title = explorer.example(0), ""
        self.z: Tensor | None = None
        self.place = ""  # where z comes from
        self.waiting: Any = None  # the callback that marks the place on the map
        self.is_setting = False  # whether the program moves the sliders, and not the visitor
        self.view, self.way = text_div(), text_div()
        self.view_parts = self.make_view()
        self.sliders = make_sliders(explorer)
        event = "value" if self.seconds_to_show() < SLOW else "value_throttled"
        for i, slider in enumerate(self.sliders):
            slider.on_change(event, self.make_mover(i))
        self.map = draw_map(explorer, cards) if explorer.planes else None
        if self.map:
            self.map.click.on_change("data", lambda name, old, new: self.click(new))
            self.map.choice.on_change("value", lambda name, old, new: self.mark())

    # What it has.

    def make_view(self) -> Column:
        """Return the part with the example, p(x | z), and the buttons."""
        explorer = self.explorer
        mode = "mode" if explorer.data.data_kind in ("token", "categorical") else "mean"
        self.kind = RadioButtonGroup(labels=[f"{mode} of p(x | z)", "draw"], active=0)
        self.kind.on_change("active", lambda name, old, new: self.show())
        back, draw = Button(label="Back to the example"), Button(label="Draw z from the prior", button_type="default")
        back.on_click(lambda: self.take(self.example, self.title))
        draw.on_click(self.draw)
        self.temperature = Slider(title="Temperature", start=0, end=2, step=0.05, value=1, width=180)
        controls: list[Any] = [Row(self.kind, back, stylesheets=[WRAP]), Row(draw, stylesheets=[WRAP])]
        if explorer.draw_code(self.example) is not None and explorer.model.latent_kind != "sphere":
            controls[-1].children.append(self.temperature)
        self.label = self.make_label_choice()
        if self.label is not None:
            controls.append(self.label)
        return Column(self.view, *controls, sizing_mode="stretch_width", styles={"gap": "12px"})

    def make_label_choice(self) -> Select | None:
        """Return the choice of the class for a model that takes one."""
        explorer, labels = self.explorer, first_labels(self.explorer.y)
        takes_class = explorer.model.conditional or explorer.model.uses_labels
        if not takes_class or labels is None or explorer.y.dim() != 1:
            return None
        classes = labels[labels >= 0].unique()
        self.classes = dict(zip(label_names(classes, explorer.data.class_names), classes.tolist(), strict=True))
        choice = Select(title="Class", value=OWN_LABEL, options=[OWN_LABEL, *self.classes], width=220)
        choice.on_change("value", lambda name, old, new: self.show())
        return choice

    @property
    def has_way(self) -> bool:
        """Return whether there is a way from one example to another."""
        return self.explorer.can_mix and len(self.explorer.codes) > 1

    def contents(self) -> dict[str, Any]:
        """Return what the template of the page needs to know."""
        names = [f"slider{self.number}_{i}" for i in range(len(self.sliders))]
        return {
            "number": self.number,
            "title": self.explorer.title,
            "subtitle": self.explorer.describe(),
            "has_map": self.map is not None,
            "map_note": MAP_NOTE if self.explorer.can_mix else CODES_NOTE,
            "legend": self.map.legend if self.map else "",
            "view_title": "The example and p(x | z)",
            "slider_note": slider_note(self.explorer),
            "sliders": names[:NUM_SLIDERS],
            "folded": names[NUM_SLIDERS:],
            "has_way": self.has_way,
        }

    def add_to(self, doc: Document) -> None:
        """Add all parts to a document."""
        named = {f"view{self.number}": self.view_parts}
        named |= {f"slider{self.number}_{i}": slider for i, slider in enumerate(self.sliders)}
        if self.map:
            named |= {f"map{self.number}": self.map.plot, f"choice{self.number}": self.map.choice}
        if self.has_way:
            named[f"way{self.number}"] = self.way
        for name, part in named.items():
            part.name = name
            doc.add_root(part)

    # What it does.

    def given(self) -> Batch:
        """Return the example with the class that was chosen."""
        x, y = self.example
        if self.label is None or self.label.value == OWN_LABEL:
            return self.example
        return Batch(x, torch.full_like(y, self.classes[self.label.value]))

    def take(self, example: Batch, title: str) -> None:
        """Show an example and go to its code."""
        self.example, self.title = example, title
        self.go(self.explorer.encode(self.given()), "at the example's code")

    def go(self, z: Tensor | None, place: str) -> None:
        """Go to a code, move the sliders to it and show p(x | z)."""
        self.z, self.place = z, place
        if z is not None and self.sliders:
            self.is_setting = True
            for slider, step in zip(self.sliders, self.explorer.steps(z), strict=True):
                step = round(step, 2)
                slider.update(start=min(-3, step), end=max(3, step), value=step)
            self.is_setting = False
        self.show()

    def make_mover(self, i: int) -> Callable[[str, Any, float], None]:
        """Return what the slider of a dimension does."""

        def move(name: str, old: Any, step: float) -> None:
            if not self.is_setting and self.z is not None:
                self.z, self.place = self.explorer.move(self.z, i, step), "at the sliders"
                self.show_card()
                self.mark_later()

        return move

    def click(self, clicked: dict[str, Any]) -> None:
        """Go to a place of the map."""
        number, point = int(clicked["number"][0]), torch.tensor([[clicked["x"][0], clicked["y"][0]]])
        if number < 0 and not self.explorer.can_mix:
            number = self.explorer.nearest(self.plane, point)
        if number >= 0:
            self.choose(number)
        else:
            self.go(self.explorer.to_code(self.plane.inverse(point)), "at the place on the map")

    def draw(self) -> None:
        """Go to a draw from the prior; of a model with several latents, only its picture is shown."""
        z = self.explorer.draw_code(self.given(), self.temperature.value)
        self.go(z, "at a draw from the prior")

    @property
    def plane(self) -> Any:
        """The plane of the map."""
        assert self.map is not None
        return self.explorer.planes[self.map.choice.options.index(self.map.choice.value)]

    def mark(self) -> None:
        """Mark the place of the code on the map."""
        self.waiting = None
        if self.map:
            points = [] if self.z is None else self.plane.project(self.z).tolist()
            self.map.marker.data = {"x": [x for x, _ in points], "y": [y for _, y in points]}

    def mark_later(self) -> None:
        """Mark the place when the sliders have rested: drawing the map takes longer than decoding."""
        document = self.view.document
        if document is None:  # the page is not shown yet
            return
        if self.waiting is not None:
            document.remove_timeout_callback(self.waiting)
        self.waiting = document.add_timeout_callback(self.mark, REST)

    def show(self) -> None:
        """Show p(x | z) and its place on the map."""
        self.show_card()
        self.mark()

    def show_card(self) -> None:
        """Show p(x | z)."""
        explorer, given, draws = self.explorer, self.given(), self.kind.active == 1
        px = explorer.draw_example(given) if self.z is None else explorer.decode(self.z, given)
        (card,), (original,) = self.cards(explorer.show(px, draws)), self.cards(self.example.x)
        what = "draw" if draws else self.kind.labels[0].split()[0]
        self.view.text = pair_of_cards(original, self.title, card, f"{what} {self.place}")

    def show_way(self, first: Batch, last: Batch) -> None:
        """Show the way from one example to another."""
        if self.has_way:
            self.way.text = self.cards.row(self.explorer.show(self.explorer.interpolate(first, last)).cpu())

    def seconds_to_show(self) -> float:
        """Return how long it takes to decode a code and to make a card of it."""
        start = time.perf_counter()
        self.cards(self.explorer.show(self.explorer.decode(self.explorer.codes[:1], self.example)))
        return time.perf_counter() - start
