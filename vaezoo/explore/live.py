"""The live page: one run, or two side by side, and what the visitor chooses for both."""

import base64
import binascii
import html
from collections.abc import Callable
from typing import Any

from bokeh.document import Document
from bokeh.models import Button, Column, FileInput, Row, Spinner, TextInput
from torch import Tensor

from vaezoo.data import TextData
from vaezoo.errors import ConfigError
from vaezoo.explore.cards import Cards
from vaezoo.explore.compute import Explorer
from vaezoo.explore.parts import THEME, WRAP, page_template, text_div
from vaezoo.explore.side import Side
from vaezoo.types import Batch


class LivePage:
    """The page of one visitor.

    Args:
        explorers: one run, or two of the same data.
        cards: small cards of the examples.
    """

    def __init__(self, explorers: list[Explorer], cards: list[str]):
        self.document = Document()
        self.sides = [Side(explorer, cards, i, self.choose) for i, explorer in enumerate(explorers)]
        self.names, data = self.sides[0].names, explorers[0].data
        last_number = len(self.names) - 1
        title = f"{data.noun.capitalize()} 0 to {last_number}"
        self.number = Spinner(title=title, low=0, high=last_number, step=1, value=0, width=120)
        self.number.on_change("value", lambda name, old, new: self.take(int(new)) if new is not None else None)
        first, last = Button(label="Use as start"), Button(label="Use as end")
        self.ends = [0, len(self.names) // 2]
        self.end_examples = [[explorer.example(i) for explorer in explorers] for i in self.ends]
        first.on_click(lambda: self.set_end(0))
        last.on_click(lambda: self.set_end(1))
        self.message = text_div(visible=False, html_attributes={"role": "status"})
        has_way = any(side.has_way for side in self.sides)
        parts: list[Any] = [self.number, *([first, last] if has_way else [])]
        if isinstance(data, TextData):
            self.line = TextInput(title="Your own sentence, Enter to encode it", width=300)
            self.line.on_change("value", lambda name, old, new: self.take_line(new))
            parts.append(self.line)
        elif data.file_suffixes:
            title = f"Your own {data.noun}: choose or drop a file"
            self.file = FileInput(title=title, accept=sorted(data.file_suffixes), width=300)
            self.file.on_change("value", lambda name, old, new: self.document.add_next_tick_callback(self.take_file))
            parts.append(self.file)
        row = Row(*parts, stylesheets=[WRAP])
        self.controls = Column(row, self.message, sizing_mode="stretch_width", name="controls")

    def add_to(self, doc: Document, title: str, subtitle: list[str]) -> None:
        """Add the page to a document of Bokeh's server and show the first example."""
        self.document = doc
        doc.title, doc.template, doc.theme = title, page_template(), THEME
        doc.template_variables.update(
            title=title, subtitle=subtitle, has_controls=True, sides=[side.contents() for side in self.sides]
        )
        doc.add_root(self.controls)
        for side in self.sides:
            side.add_to(doc)
        self.take(0)
        self.show_way()

    def choose(self, number: int) -> None:
        """Show an example by its number."""
        if self.number.value == number:
            self.take(number)
        else:
            self.number.value = number

    def take(self, number: int) -> None:
        """Show an example on all sides."""
        self.tell("")
        for side in self.sides:
            side.take(side.explorer.example(number), self.names[number])

    def take_own(self, title: str, read: Callable[[Explorer, Tensor], Batch]) -> None:
        """Show an example of the visitor, or why it cannot be read.

        Args:
            title: its title.
            read: makes the example for a run; it is also given a label, which a conditional model needs.
        """
        try:
            examples = [read(side.explorer, side.given().y) for side in self.sides]
        except ConfigError as error:
            self.tell(str(error))
            return
        self.tell("")
        for side, example in zip(self.sides, examples, strict=True):
            side.take(example, title)

    def tell(self, message: str) -> None:
        """Show a message, or none."""
        self.message.update(text=html.escape(message), visible=bool(message))

    def take_line(self, text: str) -> None:
        """Show a sentence of the visitor."""
        if text.strip():
            self.take_own("your sentence", lambda explorer, y: explorer.read_line(text, y))

    def take_file(self) -> None:
        """Show the example in a file of the visitor."""
        name = str(self.file.filename)
        try:
            content = base64.b64decode(str(self.file.value), validate=True)
        except binascii.Error:
            self.tell("the file did not arrive whole: choose it again")
            return
        self.take_own(name, lambda explorer, y: explorer.read_file(name, content, y))

    def set_end(self, i: int) -> None:
        """Make the example that is shown the start or the end of the way."""
        self.end_examples[i] = [side.example for side in self.sides]
        self.show_way()

    def show_way(self) -> None:
        """Show the way from the first to the last example on all sides."""
        for side, first, last in zip(self.sides, *self.end_examples, strict=True):
            side.show_way(first, last)


def add_live_page(explorers: list[Explorer]) -> Callable[[Document], None]:
    """Return what adds the page of these runs to the document of a visitor.

    Args:
        explorers: one run, or two of the same data.
    """
    first = explorers[0]
    cards = Cards(first.data)(first.x, small=True)
    title = " and ".join(explorer.title for explorer in explorers)
    subtitle = [first.describe()] if len(explorers) == 1 else []
    return lambda doc: LivePage(explorers, cards).add_to(doc, title, subtitle)
