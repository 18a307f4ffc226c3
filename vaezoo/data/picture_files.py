"""Picture files of a folder, decoded with Pillow."""

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from vaezoo.data.found_files import FoundFiles, find_files

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # other formats would be more ways to be attacked
SIGNATURES = (b"BM", b"GIF8", b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*")  # first bytes of files in the FORMATS
GREY_MODES = frozenset({"1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I", "F"})
WIDE_MODES = frozenset({"I;16", "I;16B", "I;16L", "I", "F"})  # more than 8 bits a pixel
FITS = ("crop", "pad", "exact")
# A JPEG decoder shrinks, and a box filter shrinks other pictures, until the picture is still this many times too large;
# Lanczos' filter does the rest. The pixels of two photographs, scaled to 32x32 up to 128x128, differ from those of
# Lanczos' filter alone by at most 4 of 255 levels, and by less than 0.3 on average (tests/test_picture_files.py).
GAP = 4.0


class PictureError(ValueError):
    """A picture file that cannot be used. The message is the cause, without the file's name."""


def find_pictures(root: str | Path) -> FoundFiles:
    """Find all picture files below a folder (``find_files``)."""
    return find_files(root, SUFFIXES, "picture")


class PictureSettings(NamedTuple):
    """Settings of decoded pictures: size, channels, and how files are brought to them.

    Args:
        size: height and width in pixels.
        channels: 1 (grey) or 3 (red, green, blue).
        fit: ``crop``: scale a picture until it covers the size, and cut out the center; ``pad``: scale it until it fits
            into the size, and fill the rest with ``background``; ``exact``: refuse a picture of another size.
        background: color (red, green, blue) behind transparent pixels and at the sides of ``pad``, 0 to 255.
        value_range: values of black and of white in pictures with more than 8 bits per pixel. None: 0 and 65535 for 16
            bits, 0 and 4095 for 12 bits, and other pictures are refused.
    """

    size: tuple[int, int]
    channels: int
    fit: str = "crop"
    background: tuple[int, int, int] = (255, 255, 255)
    value_range: tuple[float, float] | None = None


class Header(NamedTuple):
    """The header of a picture file.

    Args:
        mode: Pillow's mode, for example ``RGB``.
        size: height and width in pixels, after the rotation of its EXIF data.
    """

    mode: str
    size: tuple[int, int]


class Picture(NamedTuple):
    """A decoded picture.

    Args:
        pixels: uint8, (C, H, W).
        header: mode and size in the file.
        is_animated: whether the file has further frames or pages. The first one is decoded.
    """

    pixels: NDArray[np.uint8]
    header: Header
    is_animated: bool


def read_header(path: str | Path) -> Header:
    """Read the mode and the size of a picture file, without decoding it."""
    with open_picture(path) as image:
        is_swapped = image.format == "TIFF" or not is_turned(image)  # Pillow has turned the size of a TIFF image
        return Header(image.mode, image.size[::-1] if is_swapped else image.size)


def decode(path: str | Path, settings: PictureSettings) -> Picture:
    """Decode the first frame of a picture file.

    EXIF rotations are applied. ICC profiles are not: the numbers in the file are taken as sRGB. Pictures in color with
    16 bits per channel keep the upper 8 bits. Grey is ITU-R 601-2 luma, as in Pillow. The content decides the format,
    not the suffix. Only PNG files have checksums: in other formats a changed byte may lead to other pixels.

    Raises:
        PictureError: the picture cannot be converted.
        Exception: Pillow raises errors of many kinds for broken files: ``describe_error`` gives the cause.
    """
    with open_picture(path) as image:
        if image.format == "PNG":
            check_png(path)
        mode, tags = image.mode, dict(getattr(image, "tag_v2", {}))  # decoding changes them
        full_size = draft(image, settings)
        picture = to_eight_bits(image, settings.value_range, tags)
        ImageOps.exif_transpose(picture, in_place=True)
        header = Header(mode, full_size or picture.size[::-1])
        picture = to_channels(picture, settings)
        picture = fit_to_size(picture, settings)
        pixels = np.asarray(picture).reshape(*settings.size, settings.channels)
        is_animated = getattr(image, "is_animated", False)
    return Picture(np.ascontiguousarray(pixels.transpose(2, 0, 1)), header, is_animated)


def check_png(path: str | Path) -> None:
    """Refuse a PNG file with a wrong checksum, or with fewer pixels than its header says: Pillow would read zeros.

    Raises:
        PictureError: the file is broken.
    """
    size, needed, inflate = 0, 0, zlib.decompressobj()
    with open(path, "rb") as file:
        file.seek(8)
        name = b""
        while name != b"IEND":
            head = file.read(8)
            length, name = struct.unpack(">I4s", head.ljust(8))
            content, checksum = file.read(length), file.read(4)
            if len(head) < 8 or len(content) < length or (len(checksum) < 4 and name != b"IEND"):
                raise PictureError("the file is truncated")
            if name != b"IEND" and zlib.crc32(head[4:] + content) != int.from_bytes(checksum, "big"):
                raise PictureError(f"the checksum of its part {name.decode('ascii', 'replace')} is wrong")
            if name == b"IHDR":
                needed = png_data_size(content)
            elif name == b"IDAT" and size < needed:
                size += len(inflate.decompress(content, needed - size))
    if size < needed:
        raise PictureError(f"it has {size:,} bytes of pixels, but its header says {needed:,}")


def png_data_size(header: bytes) -> int:
    """Return the number of bytes of the pixels that the header of a PNG file describes.

    Reference: Portable Network Graphics specification, https://www.w3.org/TR/png-3/, sections 8 and 11.2.1.
    """
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    # First column and row and distance of columns and rows in each of the seven passes of Adam7.
    adam7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in adam7]
    passes = sizes if interlaced else [(width, height)]
    return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in passes if columns > 0 and rows > 0)


@contextmanager
def open_picture(path: str | Path) -> Iterator[Image.Image]:
    """Open a picture file without decoding it."""
    if os.path.getsize(path) == 0:
        raise PictureError("the file is empty")
    # Given a path instead of a file, Pillow 13 maps TIFF files into memory, and misreads those with a rotation.
    with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
        yield image


def describe_error(path: str | Path, error: Exception) -> str:
    """Return the cause of an error of ``read_header`` or ``decode``, in one line."""
    if isinstance(error, UnidentifiedImageError):
        try:
            with open(path, "rb") as file:
                return describe_start(file.read(20))
        except OSError as unreadable:
            return describe_error(path, unreadable)
    if isinstance(error, MemoryError):
        return "decoding it needs more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__


def describe_start(start: bytes) -> str:
    """Return why a file with these first bytes is not recognized as a picture.

    >>> describe_start(b"<html>404</html>")
    'it is no png, jpeg, webp, bmp, tiff or gif file: it begins with the text "<html>404</html>"'
    """
    if start.startswith(SIGNATURES) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP"):
        return "its header is broken or incomplete"
    text = start.decode("utf-8", "ignore")
    # A character of up to 4 bytes may be cut off at the end.
    is_text = len(text.encode()) > len(start) - 4 and all(char.isprintable() or char.isspace() for char in text)
    found = f'the text "{" ".join(text.split())}"' if is_text else f"the bytes {start[:8].hex(' ')}"
    return f"it is no png, jpeg, webp, bmp, tiff or gif file: it begins with {found}"


def is_turned(image: Image.Image) -> bool:
    """Return whether EXIF data exchange height and width of an image that is not decoded yet."""
    # The method of a PNG image would decode it, because EXIF data may follow the pixels. ``decode`` finds these.
    return Image.Image.getexif(image).get(ExifTags.Base.Orientation) in (5, 6, 7, 8)


def draft(image: Image.Image, settings: PictureSettings) -> tuple[int, int] | None:
    """Let the decoder of a large JPEG file shrink the picture by 2, 4 or 8 if it is still ``GAP`` times too large.

    Sizes that are no multiples are left alone: the last column would stand for fewer pixels than the others.

    Returns:
        Height and width of the picture before it is shrunk, after its EXIF rotation; None if it is not shrunk.
    """
    if settings.fit == "exact" or image.format not in ("JPEG", "MPO"):
        return None
    width, height = image.size
    full_size = (width, height) if is_turned(image) else (height, width)
    ratios = [full / wanted for full, wanted in zip(full_size, settings.size, strict=True)]
    ratio = min(ratios) if settings.fit == "crop" else max(ratios)
    for scale in (8, 4, 2):
        if ratio >= GAP * scale and width % scale == height % scale == 0:
            return full_size if image.draft(None, (width // scale, height // scale)) else None
    return None


def to_eight_bits(image: Image.Image, value_range: tuple[float, float] | None, tags: Mapping[int, Any]) -> Image.Image:
    """Scale values of more than 8 bits to 0 ... 255, and refuse values that Pillow would misread.

    Args:
        image: image of any mode.
        value_range: as in ``PictureSettings``.
        tags: tags of a TIFF file; empty for others.

    Raises:
        PictureError: the range is unknown, or values are outside.
    """
    bits, sample_format, photometric = tags.get(258, (8,)), tags.get(339, (1,)), tags.get(262, 1)
    if bits[0] == 8 and 2 in sample_format:
        raise PictureError("it has signed 8-bit values, which cannot be read")
    if image.mode not in WIDE_MODES:
        return image
    if "transparency" in image.info:
        raise PictureError("16-bit grey with a transparent value cannot be read")
    image.load()
    values = np.asarray(image)
    if image.mode == "I" and bits[0] == 32 and sample_format[0] == 1:
        values = values.view(np.uint32)  # Pillow keeps unsigned values as the same bits, signed
    if value_range is None and image.mode in ("I", "F"):
        raise PictureError(f"its {bits[0]}-bit values need a range, data.value_range=[LOW,HIGH]")
    low, high = value_range or (0, 4095 if bits[0] == 12 else 65535)
    smallest, largest = float(values.min()), float(values.max())
    if not (low <= smallest and largest <= high):  # also if one is NaN
        raise PictureError(
            f"its values from {smallest:g} to {largest:g} are outside of data.value_range=[{low:g},{high:g}]"
        )
    scaled = np.rint((values.astype(np.float64) - low) * (255 / (high - low))).astype(np.uint8)
    if photometric == 0:  # white is zero: Pillow inverts 8-bit values only
        scaled = 255 - scaled
    result = Image.fromarray(scaled)
    result.getexif().update(image.getexif())
    return result


def to_channels(image: Image.Image, settings: PictureSettings) -> Image.Image:
    """Convert an image of any 8-bit mode to grey (L) or RGB, with the background behind transparent pixels."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", image.size, settings.background)
        image.paste(rgba, mask=rgba.getchannel("A"))
    elif image.mode == "LAB":
        image = lab_to_rgb().apply(image)
    if image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    mode = "RGB" if settings.channels == 3 else "L"
    return image if image.mode == mode else image.convert(mode)


@cache
def lab_to_rgb() -> ImageCms.ImageCmsTransform:
    """Return the transform from CIELAB to sRGB, which Pillow's ``convert`` does not have."""
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


def fit_to_size(image: Image.Image, settings: PictureSettings) -> Image.Image:
    """Scale an image to the size, with antialiasing; pixels of an image that has the size stay as they are.

    Lanczos' filter, after a box filter for images of more than ``GAP`` times the size.

    Raises:
        PictureError: ``fit`` is ``exact`` and the image has another size.
    """
    height, width = settings.size
    if image.size == (width, height):
        return image
    if settings.fit == "exact":
        raise PictureError(
            f"it is {image.height}x{image.width}, others are {height}x{width}: scale all with data.size=[H,W]"
        )
    across, down = image.width * height, image.height * width  # the larger one is the longer side
    if settings.fit == "crop":
        box_width, box_height = min(image.width, down / height), min(image.height, across / width)
        # Whole pixels, so that an image that is only cut keeps the values of its pixels.
        left, top = (image.width - box_width) // 2, (image.height - box_height) // 2
        box = (left, top, left + box_width, top + box_height)
        return image.resize((width, height), Image.Resampling.LANCZOS, box, GAP)
    inner = max(1, min(width, round(across / image.height))), max(1, min(height, round(down / image.width)))
    canvas = Image.new("RGB", (width, height), settings.background).convert(image.mode)
    scaled = image.resize(inner, Image.Resampling.LANCZOS, reducing_gap=GAP)
    canvas.paste(scaled, ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return canvas
