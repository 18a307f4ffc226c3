"""Grids of images with labels of rows and columns."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from vaezoo.errors import escape_unprintable
from vaezoo.pictures.look import GAP, LOOK, TEXT_SIZE, Look, Picture, add_heading

NUM_COLUMNS = 8  # images in a row
# Pixels, at scale 1: smaller images are enlarged until their longer and shorter sides have at least these sizes.
MIN_IMAGE_SIZE, MIN_SHORTER_SIDE = 56, 40
MAX_SIZE = 1280  # pixels: longer side of a grid, without gaps and labels, at scale 1
# Pixels: images with a longer side above the first and up to the second number, such as texts, are never scaled down.
KEPT_SIZES = (128, 256)
LABEL_HEIGHT = 18  # pixels: of the labels of columns


def to_rgb(images: Tensor) -> Picture:
    """Convert images (N, C, H, W) with values in [0, 1] to RGB bytes (N, H, W, 3).

    One channel is gray, two are red and green, three RGB, four RGB with alpha over white; of more channels the first
    three are shown. Values outside [0, 1], which the mean of a Gaussian may have, are clamped.

    >>> to_rgb(torch.tensor([0.0, 0.5]).reshape(1, 1, 1, 2)).tolist()
    [[[[0, 0, 0], [128, 128, 128]]]]
    """
    images = images.detach().cpu().float().clamp(0, 1)
    channels = images.shape[1]
    if channels == 1:
        images = images.expand(-1, 3, -1, -1)
    elif channels == 2:
        images = F.pad(images, (0, 0, 0, 0, 0, 1))
    elif channels == 4:
        images = images[:, :3] * images[:, 3:] + 1 - images[:, 3:]
    return (images[:, :3] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def is_kept(images: Picture) -> bool:
    """Return whether images (N, H, W, 3) are never scaled down."""
    return KEPT_SIZES[0] < max(images.shape[1:3]) <= KEPT_SIZES[1]


def enlargement(height: int, width: int) -> int:
    """Return the factor by which images are enlarged at scale 1 if there is room: at least 1."""
    shorter, longer = sorted((height, width))
    factor = max(-(-MIN_IMAGE_SIZE // longer), min(-(-MIN_SHORTER_SIDE // shorter), KEPT_SIZES[1] // longer))
    return max(1, factor)


def repeat_pixels(images: Picture, factor: int) -> Picture:
    """Enlarge images (N, H, W, 3) by a whole factor: each pixel becomes a square."""
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def resize_for_grid(images: Picture, rows: int, columns: int, scale: int = 1) -> Picture:
    """Resize images for a grid.

    Small images are enlarged by a whole factor, so each pixel becomes a square. If the grid would be larger than
    ``MAX_SIZE``, images are averaged over squares of pixels; at a larger scale, over smaller squares.

    Args:
        images: images (N, H, W, 3).
        rows: rows of the grid.
        columns: columns of the grid.
        scale: factor of all sizes.

    Returns:
        Images (N, H', W', 3).
    """
    _, height, width, _ = images.shape
    longer = max(rows * height, columns * width)
    if longer <= MAX_SIZE:
        return repeat_pixels(images, scale * min(enlargement(height, width), MAX_SIZE // longer))
    side = -(-longer // MAX_SIZE)
    if side <= scale:
        return repeat_pixels(images, scale // side)
    planes = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    return to_rgb(F.avg_pool2d(planes, -(-side // scale), ceil_mode=True))


def fit_to_grid(
    images: Picture, num: int, stacked: int = 1, scale: int = 1, columns: int = 0, max_width: int = MAX_SIZE
) -> tuple[Picture, int]:
    """Resize images for a grid with ``num`` cells, and return them with the number of its columns.

    Images whose longer side is in ``KEPT_SIZES`` keep their size. Their grid has as many columns as fit into
    ``max_width``, and any height.

    Args:
        images: images (N, H, W, 3).
        num: number of cells.
        stacked: number of images in a cell, one above the other.
        scale: factor of all sizes.
        columns: number of columns; 0: up to ``NUM_COLUMNS``.
        max_width: largest width of a grid of images that keep their size, in pixels, at scale 1.
    """
    given, columns = columns > 0, columns or min(NUM_COLUMNS, num)
    if is_kept(images):
        return repeat_pixels(images, scale), columns if given else min(columns, max_width // images.shape[2])
    return resize_for_grid(images, stacked * -(-num // columns), columns, scale), columns


def make_grid(
    images: Picture, columns: int, gap: int = GAP, look: Look = LOOK, marked: Sequence[tuple[int, int]] = ()
) -> Picture:
    """Place images (N, H, W, 3) row by row in a grid, with a gap around each.

    Args:
        images: the images.
        columns: number of columns.
        gap: pixels between images, at scale 1.
        look: the look.
        marked: (row, column) of the images that get a frame, which lies in the gap.
    """
    num, height, width, _ = images.shape
    gap *= look.scale
    rows = -(-num // columns)
    cells = np.empty((rows * columns, height + gap, width + gap, 3), np.uint8)
    cells[:] = look.colors.background
    cells[:num, :height, :width] = images
    cells = cells.reshape(rows, columns, *cells.shape[1:]).swapaxes(1, 2)
    inner = cells.reshape(rows * (height + gap), columns * (width + gap), 3)
    picture = np.empty((inner.shape[0] + gap, inner.shape[1] + gap, 3), np.uint8)
    picture[:] = look.colors.background
    picture[gap:, gap:] = inner
    canvas = Image.fromarray(picture)
    thickness = gap * 3 // 4
    for row, column in marked:
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        box = (left - thickness, top - thickness, left + width + thickness - 1, top + height + thickness - 1)
        ImageDraw.Draw(canvas).rectangle(box, outline=look.colors.mark, width=thickness)
    return np.asarray(canvas)


def add_labels(
    picture: Picture,
    title: str,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    corner: str = "",
    subtitle: str = "",
    look: Look = LOOK,
) -> Picture:
    """Add labels of rows and columns around a picture, and a heading above it.

    Args:
        picture: picture (height, width, 3).
        title: what is shown; empty: no heading.
        rows: evenly spaced labels at the left, right-aligned.
        columns: evenly spaced labels above the picture, centered. If they would overlap, only some are written.
        corner: text above the row labels that says what they are.
        subtitle: second line of the heading (``add_heading``).
        look: the look.
    """
    height, width, _ = picture.shape
    scale, colors, font = look.scale, look.colors, look.font(TEXT_SIZE)
    rows, columns = [escape_unprintable(label) for label in rows], [escape_unprintable(label) for label in columns]
    left = max((int(font.getlength(label)) + 12 * scale for label in (corner, *rows) if label), default=0)
    top = LABEL_HEIGHT * scale * bool(columns)
    canvas = Image.new("RGB", (left + width, top + height), colors.background)
    canvas.paste(Image.fromarray(picture), (left, top))
    draw = ImageDraw.Draw(canvas)
    draw.text((left - 6 * scale, top - 8 * scale), corner, colors.muted, font, anchor="rm")
    longest = max((font.getlength(label) for label in columns), default=0) + 6 * scale
    every = max(1, -(-int(longest * len(columns)) // width))
    for i, label in list(enumerate(columns))[::every]:
        x = min(left + (i + 0.5) * width / len(columns), left + width - font.getlength(label) / 2)
        draw.text((x, top - 8 * scale), label, colors.muted, font, anchor="mm")
    for i, label in enumerate(rows):
        draw.text((left - 6 * scale, top + (i + 0.5) * height / len(rows)), label, colors.ink, font, anchor="rm")
    labelled = np.asarray(canvas)
    return add_heading(labelled, title, subtitle, look) if title else labelled
