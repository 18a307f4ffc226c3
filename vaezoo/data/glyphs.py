"""Letters of the fonts that are part of matplotlib, with their names in Unicode."""

import unicodedata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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

    glyphs = FT2Font(str(font_file(font))).get_charmap()  # 0 is the glyph of missing characters
    return [
        chr(code)
        for code in sorted(glyphs)
        if glyphs[code] and unicodedata.name(chr(code), "").split(" ")[0] in SCRIPTS
    ]


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
