"""Examples as HTML: a picture, a sentence, a sound or the row of a table."""

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vaezoo.data import AudioData, DataModule, TextData
from vaezoo.pictures import to_rgb

THUMBNAIL = 64  # pixels: longer side of a small picture
FEW_COLUMNS = 16  # of a row of a table, beside a point of the map
# Of the elements around cards. ``--card`` is the height of a picture; pixels of a coarse one are seen as squares.
CARD_STYLE = """
p { margin: 0; max-width: 40ch; overflow-wrap: anywhere; }
audio { display: block; width: 100%; min-width: 200px; height: 36px; margin-top: 6px; }
img { max-width: 100%; border-radius: 3px; }
.coarse { image-rendering: pixelated; }
table { border-spacing: 0; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 400; color: var(--soft); overflow-wrap: anywhere; }
td { text-align: right; padding-left: 12px; }
"""


class Cards:
    """Make an HTML fragment of each example. All text in it is escaped.

    Args:
        data: the data module, which says how an example is shown to people.
    """

    def __init__(self, data: DataModule):
        self.data = data
        self.has_sound = isinstance(data, AudioData) and data.features == "wave"

    def __call__(self, x: Tensor, small: bool = False) -> list[str]:
        """Return the fragments of examples (N, *shape), as the model sees them.

        Args:
            x: the examples.
            small: whether each is to be seen beside others, or beside a point of the map.
        """
        x = x.detach().cpu()
        if isinstance(self.data, TextData):
            return [f"<p>{html.escape(self.data.decode_tokens(row)) or '(empty)'}</p>" for row in x]
        if (images := self.data.to_images(x)) is not None:
            cards = [image_tag(image, small) for image in to_rgb(images)]
            if self.has_sound and not small:
                cards = [card + self.player(wave) for card, wave in zip(cards, x, strict=True)]
            return cards
        entries = self.entries(x)
        return [
            table({name: [values[i]] for name, values in entries.items()}, FEW_COLUMNS if small else None)
            for i in range(len(x))
        ]

    def player(self, x: Tensor) -> str:
        """Return the player of a wave (1, T), clipped to [-1, 1]."""
        import soundfile

        assert isinstance(self.data, AudioData)
        file = io.BytesIO()
        samples = self.data.in_file_units(x[None])[0, 0].numpy().clip(-1, 1)
        soundfile.write(file, samples, self.data.rate, subtype="PCM_16", format="WAV")
        return f'<audio controls src="{data_uri("audio/wav", file.getvalue())}"></audio>'

    def row(self, x: Tensor) -> str:
        """Return examples in a row; those of a table as one table with a column for each."""
        cards = [] if self.is_table(x) else self(x)
        return row_of_cards(cards) if cards else table(self.entries(x))

    def is_table(self, x: Tensor) -> bool:
        """Return whether examples are seen as names and values."""
        return not isinstance(self.data, TextData) and self.data.to_images(x[:1]) is None

    def entries(self, x: Tensor) -> dict[str, list[str]]:
        """Return the names and values of examples, a value for each of them."""
        columns = self.data.to_columns(x) or {"x": x.flatten(1).numpy()}
        found: dict[str, list[str]] = {}
        for name, column in columns.items():
            parts = {name: column} if column.ndim == 1 else {f"{name}{i}": part for i, part in enumerate(column.T)}
            found |= {head: [format_entry(entry) for entry in part] for head, part in parts.items()}
        return found


def table(entries: dict[str, list[str]], most: int | None = None) -> str:
    """Return names and values as a table with a line for each name, of at most some lines."""
    lines = [
        f"<tr><th>{html.escape(name)}" + "".join(f"<td>{html.escape(text)}" for text in texts)
        for name, texts in list(entries.items())[:most]
    ]
    if left_out := len(entries) - len(lines):
        lines.append(f"<tr><th>and {left_out} more")
    return f"<table>{''.join(lines)}</table>"


def row_of_cards(cards: Sequence[str]) -> str:
    """Return cards in a row, which wraps if it is wider than the page; sentences stand one below the other."""
    width = ' style="flex-basis:100%"' if all(card.startswith("<p") for card in cards) else ""
    items = "".join(f"<div{width}>{card}</div>" for card in cards)
    return f'<div style="--card:84px;display:flex;flex-wrap:wrap;gap:8px">{items}</div>'


def format_entry(value: Any) -> str:
    """Return an entry of a table as text; a missing one is empty."""
    if value is None or value != value:
        return ""
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def image_tag(pixels: NDArray[np.uint8], small: bool) -> str:
    """Return an image (H, W, 3) as HTML, without loss; a small one is shrunk and compressed if it is large."""
    height, width = pixels.shape[:2]
    is_grey = bool((pixels == pixels[..., :1]).all())
    image, file, kind = Image.fromarray(pixels[..., 0] if is_grey else pixels), io.BytesIO(), "png"
    if small and max(height, width) > THUMBNAIL // 2:
        image.thumbnail((3 * THUMBNAIL, THUMBNAIL) if width > height else (THUMBNAIL, THUMBNAIL))
        kind = "webp"
    image.save(file, kind.upper(), **{"quality": 75} if kind == "webp" else {})
    look = f"width:calc(var(--card)*{width / max(height, width / 3):.3g})"
    size = "coarse" if max(height, width) < 128 else "fine"
    return f'<img alt="" class="{size}" style="{look}" src="{data_uri(f"image/{kind}", file.getvalue())}">'


def data_uri(kind: str, content: bytes) -> str:
    """Return the content of a file as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def first_labels(y: Tensor) -> Tensor | None:
    """Return the class of each example, (N,), -1 if it has none; of several factors the first; None without classes."""
    if y.dim() > 2 or not y.numel():
        return None
    labels = y.cpu().reshape(len(y), -1)[:, 0].long()
    return None if bool((labels < 0).all()) else labels


def label_names(labels: Tensor, names: list[str] | None) -> list[str]:
    """Return the name of the class of each example; "no label" for -1."""
    known = dict(enumerate(names or []))
    return ["no label" if i < 0 else known.get(i, str(i)) for i in labels.tolist()]
