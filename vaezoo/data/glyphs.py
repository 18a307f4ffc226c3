"""Letters of the fonts that are part of matplotlib, with their names in Unicode."""

import unicodedata
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaezoo.data.images import ImageData
from vaezoo.data.own import OwnData
from vaezoo.data.splits import Split, digest_rows
from vaezoo.errors import ConfigError, suggest

STYLES = ("", "-Bold", "-Oblique", "-BoldOblique")
FONTS = (
    *(f"DejaVuSans{style}" for style in STYLES),
    *(f"DejaVuSansMono{style}" for style in STYLES),
    *(f"DejaVuSerif{style.replace('Oblique', 'Italic')}" for style in STYLES),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
SCRIPTS = ("LATIN", "GREEK", "CYRILLIC", "DIGIT")


def font_file(font: str) -> Path:
    """Return the path of one of matplotlib's fonts."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf")


def characters(font: str) -> list[str]:
    """Return the letters and digits of ``SCRIPTS`` that a font has, in the order of Unicode."""
    from matplotlib.ft2font import FT2Font

    codes = sorted(FT2Font(str(font_file(font))).get_charmap())
    return [chr(code) for code in codes if unicodedata.name(chr(code), "").split(" ")[0] in SCRIPTS]


def draw(font: str, texts: list[str], size: int) -> Tensor:
    """Draw letters in white on black, uint8 (N, 1, size, size): in the middle, all on one base line.

    Args:
        font: one of ``FONTS``.
        texts: the letters.
        size: height and width of an image in pixels. A font of 9/16 of it is the largest that no letter goes beyond.
    """
    from PIL import Image, ImageDraw, ImageFont

    # Pillow's own layout: the other one is a library that only some installations have.
    face = ImageFont.truetype(str(font_file(font)), size * 9 // 16, layout_engine=ImageFont.Layout.BASIC)
    images = np.zeros((len(texts), 1, size, size), np.uint8)
    for image, text in zip(images, texts, strict=True):
        picture = Image.new("L", (size, size))
        ImageDraw.Draw(picture).text((size // 2, size * 23 // 32), text, 255, face, anchor="ms")
        image[0] = np.asarray(picture)
    return torch.from_numpy(images)


class Glyphs(OwnData, ImageData):
    """Provide about 20,000 images of letters and digits: Latin, Greek and Cyrillic, in 16 fonts of matplotlib.

    A letter is in as many images as there are fonts that have it; equal images, such as the Latin and the Greek A of a
    font, are in one set. No download. The images change with the versions of matplotlib (its fonts), Pillow and Python
    (the names of the letters).

    Args:
        size: height and width of the images in pixels; >= 8.
        label: what the labels are: ``letter`` or ``font``. The names of both are in ``describe``.
        **kwargs: arguments of ``OwnData`` and ``ImageData``.

    Raises:
        ConfigError: an option has no possible value.
    """

    default_binarize = "dynamic"

    def __init__(self, size: int = 32, label: str = "letter", **kwargs: Any):
        super().__init__(**kwargs)
        if size < 8:
            raise ConfigError(f"data.size={size} should be >= 8")
        if label not in ("letter", "font"):
            raise ConfigError(f"data.label={label} is unknown: {suggest(label, ('letter', 'font'), 'data.label=')}")
        self.size, self.label = size, label

    @cached_property
    def texts(self) -> dict[str, list[str]]:
        """The letters of each font."""
        return {font: characters(font) for font in FONTS}

    @cached_property
    def letters(self) -> list[str]:
        """All letters in the order of Unicode."""
        return sorted(set().union(*self.texts.values()))

    def read_all(self) -> tuple[Split, np.ndarray]:
        x = torch.cat([draw(font, texts, self.size) for font, texts in self.texts.items()])
        if self.label == "font":
            y = [number for number, texts in enumerate(self.texts.values()) for _ in texts]
        else:
            numbers = {letter: number for number, letter in enumerate(self.letters)}
            y = [numbers[text] for texts in self.texts.values() for text in texts]
        drawn = (x > 0).flatten(1).any(1)  # a font may have an empty glyph
        x, labels = x[drawn], torch.tensor(y)[drawn]
        return Split(x, labels), digest_rows(x.numpy())

    def describe(self) -> dict[str, Any]:
        names = [unicodedata.name(letter) for letter in self.letters]
        class_names = names if self.label == "letter" else list(FONTS)
        return super().describe() | {"class_names": class_names, "letters": names, "fonts": list(FONTS)}

    def report(self) -> dict[str, Any]:
        import matplotlib
        import PIL

        versions = {
            "matplotlib": matplotlib.__version__,
            "Pillow": PIL.__version__,
            "Unicode": unicodedata.unidata_version,
        }
        return versions | {"fonts": len(FONTS), "letters": len(self.letters)}
