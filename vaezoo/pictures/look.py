"""The look of all pictures: size, colours, fonts and the heading."""

from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vaezoo.errors import escape_unprintable

Picture = NDArray[np.uint8]  # (height, width, 3)
Color = tuple[int, int, int]
Theme = Literal["light", "dark"]

# Pixels at scale 1.
TITLE_HEIGHT = 26  # of a title of one line without a subtitle, with the rule below it
TITLE_SIZE, TEXT_SIZE = 15, 12  # of the fonts
TITLE_LINE, TEXT_LINE = 20, 17  # from one line to the next
MIN_WIDTH = 480  # of a picture with a heading that is longer
GAP = 4  # between images
MAX_SCALE = 8


class Colors(NamedTuple):
    """The colours of a theme, but not those of the data.

    Args:
        background: of the whole picture.
        ink: of titles and labels of rows.
        muted: of subtitles, captions and values of axes.
        rule: of the line below the heading.
        mark: of the frame around a marked image.
    """

    background: Color
    ink: Color
    muted: Color
    rule: Color
    mark: Color


COLORS: dict[str, Colors] = {
    "light": Colors((255, 255, 255), (17, 17, 17), (90, 90, 90), (207, 207, 208), (217, 72, 15)),
    "dark": Colors((24, 26, 30), (236, 236, 236), (172, 172, 176), (74, 76, 82), (255, 146, 43)),
}


class Look(NamedTuple):
    """The look of a picture. The theme changes no pixel of the data.

    Args:
        scale: factor of all sizes, fonts included, such as 2 for talks and papers.
        theme: "light" or "dark".
    """

    scale: int = 1
    theme: Theme = "light"

    @property
    def colors(self) -> Colors:
        """The colours of the theme."""
        return COLORS[self.theme]

    def font(self, size: int) -> ImageFont.FreeTypeFont:
        """Return the font of all texts.

        Args:
            size: its size at scale 1, in pixels.
        """
        return load_font(size * self.scale)


LOOK = Look()


def check_look(scale: int, theme: str) -> Look:
    """Return a look.

    Raises:
        ValueError: the scale or the theme is wrong.
    """
    if type(scale) is not int or not 1 <= scale <= MAX_SCALE:
        raise ValueError(f"scale must be a whole number from 1 to {MAX_SCALE}, got {scale}")
    if theme not in COLORS:
        raise ValueError(f"theme must be {' or '.join(COLORS)}, got {theme}")
    return Look(scale, theme)  # type: ignore[arg-type]  # it is one of them


def as_fractions(color: Color) -> tuple[float, float, float]:
    """Return a colour as matplotlib takes it: its parts in [0, 1]."""
    red, green, blue = color
    return red / 255, green / 255, blue / 255


@cache
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font DejaVu Sans, which comes with matplotlib and is that of its figures."""
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)


def wrap_text(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Return a text in lines of at most ``width`` pixels. A longer word is divided; p(x | z) counts as a word."""
    lines, bar = [""], "\0|\0"
    for part in escape_unprintable(" ".join(text.split())).replace(" | ", bar).split(" "):
        word = part.replace(bar, " | ")
        longer = f"{lines[-1]} {word}".lstrip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines.append("")
        for char in word:
            if font.getlength(lines[-1] + char) > width and lines[-1]:
                lines.append("")
            lines[-1] += char
    return [line for line in lines if line]


def add_heading(picture: Picture, title: str, subtitle: str = "", look: Look = LOOK) -> Picture:
    """Add a title, a subtitle in smaller letters and a rule above a picture. Lines that are too long are wrapped.

    Args:
        picture: picture (height, width, 3).
        title: what is shown.
        subtitle: of what: model, data, seed and length of the training.
        look: the look.
    """
    scale, colors = look.scale, look.colors
    large, small = look.font(TITLE_SIZE), look.font(TEXT_SIZE)
    width = max(picture.shape[1], MIN_WIDTH * scale)
    margin = 2 * GAP * scale
    titles, subtitles = (wrap_text(text, font, width - margin) for text, font in ((title, large), (subtitle, small)))
    lengths = [font.getlength(line) for lines, font in ((titles, large), (subtitles, small)) for line in lines]
    width = max(picture.shape[1], int(max(lengths, default=0)) + margin)
    top = scale * (TITLE_HEIGHT + TITLE_LINE * (len(titles) - 1) + TEXT_LINE * len(subtitles))
    canvas = Image.new("RGB", (width, top + picture.shape[0]), colors.background)
    draw = ImageDraw.Draw(canvas)
    y = 12 * scale
    for line in titles:
        draw.text((GAP * scale, y), line, colors.ink, large, anchor="lm")
        y += TITLE_LINE * scale
    for line in subtitles:
        draw.text((GAP * scale, y - scale), line, colors.muted, small, anchor="lm")
        y += TEXT_LINE * scale
    draw.rectangle((0, top - scale, width, top - 1), colors.rule)
    canvas.paste(Image.fromarray(picture), (0, top))
    return np.asarray(canvas)


def heading_height(picture: Picture) -> int:
    """Return the height of the heading of a picture, in pixels: from the top to the rule, which is included.

    It is found by the colour of the rule, so it is known of a file, too. Pictures of earlier versions have no rule, but
    a title of ``TITLE_HEIGHT``.
    """
    for colors in COLORS.values():
        rows = np.flatnonzero((picture == np.array(colors.rule, np.uint8)).all(axis=(1, 2)))
        if len(rows):
            return int(rows[0]) + max(1, int((np.diff(rows, prepend=rows[0] - 1).cumprod() == 1).sum()))
    return TITLE_HEIGHT


def stack(parts: list[Picture], look: Look = LOOK) -> Picture:
    """Place pictures one below the other, left-aligned."""
    width = max(part.shape[1] for part in parts)
    canvas = Image.new("RGB", (width, sum(part.shape[0] for part in parts)), look.colors.background)
    y = 0
    for part in parts:
        canvas.paste(Image.fromarray(part), (0, y))
        y += part.shape[0]
    return np.asarray(canvas)


def add_caption(picture: Picture, text: str, look: Look = LOOK) -> Picture:
    """Add a line in small letters above a part of a picture; it is wrapped if it is too long."""
    scale, font = look.scale, look.font(TEXT_SIZE)
    width = max(picture.shape[1], MIN_WIDTH * scale)
    lines = wrap_text(text, font, width - 2 * GAP * scale)
    canvas = Image.new("RGB", (width, scale * (TEXT_LINE * len(lines) + 2)), look.colors.background)
    draw = ImageDraw.Draw(canvas)
    for i, line in enumerate(lines):
        draw.text((GAP * scale, scale * (TEXT_LINE * i + 10)), line, look.colors.muted, font, anchor="lm")
    return stack([np.asarray(canvas), picture], look)
