"""Tests of picture files: which are found, and that each is decoded to the right pixels or refused with its cause."""

import io
import os
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from vaezoo.data.found_files import show_path
from vaezoo.data.picture_files import (
    PictureError,
    PictureSettings,
    decode,
    describe_error,
    find_pictures,
    read_header,
)
from vaezoo.errors import ConfigError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
SMOOTH = np.linspace([10, 200, 90], [240, 30, 60], 54).reshape(6, 9, 3).astype(np.uint8)  # JPEG changes it by 2 or less
GREY = RGB[..., 0]
ALPHA = RNG.integers(0, 256, (6, 9, 1), dtype=np.uint8)
BITS = GREY > 127
INDEX = RNG.integers(0, 5, (6, 9), dtype=np.uint8)
PALETTE = RNG.integers(0, 256, (5, 3), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (6, 9), dtype=np.uint16)
CMYK = RNG.integers(0, 256, (6, 9, 4), dtype=np.uint8)
FLOATS = RNG.uniform(-3, 5, (6, 9)).astype(np.float32)
LAB = RNG.integers([100, 118, 118], [200, 138, 138], (6, 9, 3)).astype(np.uint8)
FRAMES = [RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8) for _ in range(3)]
WHITE = (255, 255, 255)

ROTATIONS = {  # EXIF orientation: what the stored rows and columns become, https://exiftool.org/TagNames/EXIF.html
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
    8: lambda x: x.swapaxes(0, 1)[::-1],
}


def over(color, alpha, background=WHITE):
    """Pixels of partly transparent colors over a background."""
    alpha = alpha / 255
    return np.rint(color * alpha + np.array(background[: color.shape[-1]]) * (1 - alpha))


def luma(color):
    """ITU-R 601-2 luma with 16 bits of precision."""
    return (color.astype(int) @ [19595, 38470, 7471] + 32768) >> 16


def ycbcr_to_rgb(ycbcr):
    """Pixels by the equations of JFIF."""
    y, cb, cr = ycbcr[..., 0], ycbcr[..., 1] - 128.0, ycbcr[..., 2] - 128.0
    return np.clip(np.rint(np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)), 0, 255)


def lab_to_srgb(lab):
    """Pixels of CIELAB (D50) as bytes: the equations of the CIE, the matrix of Bradford's adaptation, sRGB's curve."""
    lightness, a, b = lab[..., 0] * (100 / 255), lab[..., 1] - 128.0, lab[..., 2] - 128.0
    f = (lightness + 16) / 116
    f = np.stack([f + a / 500, f, f - b / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2) * [0.9642, 1, 0.8249]
    matrix = np.array(
        [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.033454], [0.0719453, -0.2289914, 1.4052427]]
    )
    linear = np.clip(xyz @ matrix.T, 0, 1)
    return np.rint(255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def saved(image, suffix, **options):
    """The bytes of an image in a format."""
    stream = io.BytesIO()
    image.save(stream, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()), **options)
    return stream.getvalue()


def picture(pixels, suffix="png", mode=None, **options):
    """The bytes of a picture file with given pixels."""
    if mode is None:
        return saved(Image.fromarray(pixels), suffix, **options)
    bands = [Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(pixels, -1, 0)]
    return saved(Image.merge(mode, bands), suffix, **options)


def palette_picture(suffix="png", **options):
    image = Image.fromarray(INDEX)
    image.putpalette(PALETTE.tobytes())
    return saved(image, suffix, **options)


def exif(orientation):
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags


def tiff(pixels, bits=None, sample_format=1, photometric=1, order="<"):
    """The bytes of an uncompressed grey TIFF file, written here since Pillow does not write all kinds."""
    data = pixels if isinstance(pixels, bytes) else pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits = bits or 8 * pixels.itemsize
    tags = [(256, 9), (257, 6), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, 6)]
    tags += [(279, len(data)), (339, sample_format)]
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    start = 8 + len(data)
    header = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    return header + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, bits, color, rows):
    """The bytes of a PNG file."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def interlaced_png(pixels):
    """The bytes of a PNG file in Adam7 order, which Pillow does not write."""
    adam7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [b"\0" + row.tobytes() for y, x, dy, dx in adam7 for row in pixels[y::dy, x::dx] if row.size]
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    data = zlib.compress(b"".join(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


INTERLACED = interlaced_png(RGB)


def bmp_claims(width, height):
    return b"BM" + struct.pack("<IIIIiiHHIIIIII", 100, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(46)


WIDE_RGB = RNG.integers(0, 65536, (6, 9, 3), dtype=np.uint16)
WIDE_ROWS = b"".join(b"\0" + row.astype(">u2").tobytes() for row in WIDE_RGB)
TWELVE = (WIDE >> 4).astype(np.uint16)
TWELVE_ROWS = np.pad(TWELVE, ((0, 0), (0, 1))).reshape(6, 5, 2).astype(np.uint32)
TWELVE_ROWS = TWELVE_ROWS[..., 0] << 12 | TWELVE_ROWS[..., 1]
TWELVE_BYTES = np.stack([TWELVE_ROWS >> 16, TWELVE_ROWS >> 8 & 255, TWELVE_ROWS & 255], -1).astype(np.uint8)
TWELVE_BYTES = TWELVE_BYTES.reshape(6, 15)[:, :14].tobytes()  # rows end with whole bytes
UNSIGNED = RNG.integers(0, 2**32, (6, 9), dtype=np.uint32)
SIGNED = RNG.integers(-1000, 1000, (6, 9)).astype(np.int16)
KEYED_RGB, KEYED_GREY = RGB.copy(), GREY.copy()
KEYED_RGB[2, 3] = 255
KEYED_GREY[GREY[1, 1] == GREY] = 255
HALF_CLEAR = np.array([0, 100, 255, 255, 30])  # transparency of the five colors of the palette

# Name: bytes of the file, pixels (H, W) or (H, W, C), options of the decoder, tolerance in levels.
RIGHT = {
    "rgb.png": (picture(RGB), RGB, {}, 0),
    "rgb.bmp": (picture(RGB, "bmp"), RGB, {}, 0),
    "rgb.tif": (picture(RGB, "tif"), RGB, {}, 0),
    "rgb_lzw.tif": (picture(RGB, "tif", compression="tiff_lzw"), RGB, {}, 0),
    "rgb_deflate.tif": (picture(RGB, "tif", compression="tiff_deflate"), RGB, {}, 0),
    "rgb.webp": (picture(RGB, "webp", lossless=True), RGB, {}, 0),
    "rgb.gif": (picture(RGB, "gif"), RGB, {}, 0),  # 54 colors fit into its palette
    "rgb.jpg": (picture(SMOOTH, "jpg", quality=100, subsampling=0), SMOOTH, {}, 2),
    "progressive.jpg": (picture(SMOOTH, "jpg", quality=100, subsampling=0, progressive=True), SMOOTH, {}, 2),
    "png_named.jpg": (picture(RGB), RGB, {}, 0),
    "grey.jpg": (picture(SMOOTH[..., 0], "jpg", quality=100), SMOOTH[..., 0], {}, 2),
    "grey.png": (picture(GREY), GREY, {}, 0),
    "grey.gif": (picture(GREY, "gif"), GREY, {}, 0),
    "grey_as_rgb.png": (picture(GREY), np.stack([GREY] * 3, -1), {}, 0),
    "rgb_as_grey.png": (picture(RGB), luma(RGB), {}, 0),
    "rgb_as_grey.gif": (picture(RGB, "gif"), luma(RGB), {}, 0),
    "rgba.png": (picture(np.concatenate([RGB, ALPHA], 2)), over(RGB, ALPHA), {}, 0),
    "rgba.tif": (picture(np.concatenate([RGB, ALPHA], 2), "tif"), over(RGB, ALPHA), {}, 0),
    "rgba.webp": (
        picture(np.concatenate([RGB, ALPHA], 2), "webp", lossless=True, exact=True), over(RGB, ALPHA), {}, 0
    ),
    "rgba_on_green.png": (
        picture(np.concatenate([RGB, ALPHA], 2)), over(RGB, ALPHA, (10, 200, 30)), {"background": (10, 200, 30)}, 0
    ),
    "la.png": (picture(np.concatenate([GREY[..., None], ALPHA], 2)), over(GREY[..., None], ALPHA)[..., 0], {}, 0),
    "la.tif": (
        picture(np.concatenate([GREY[..., None], ALPHA], 2), "tif"), over(GREY[..., None], ALPHA)[..., 0], {}, 0
    ),
    "clear_color.png": (picture(RGB, transparency=tuple(map(int, RGB[2, 3]))), KEYED_RGB, {}, 0),
    "clear_grey.png": (picture(GREY, transparency=int(GREY[1, 1])), KEYED_GREY, {}, 0),
    "clear_bit.png": (picture(BITS, transparency=0), np.full((6, 9), 255), {}, 0),
    "palette.png": (palette_picture(), PALETTE[INDEX], {}, 0),
    "palette.gif": (palette_picture("gif"), PALETTE[INDEX], {}, 0),
    "palette.tif": (palette_picture("tif"), PALETTE[INDEX], {}, 0),
    "palette.bmp": (palette_picture("bmp"), PALETTE[INDEX], {}, 0),
    "palette_clear.gif": (
        palette_picture("gif", transparency=2), np.where(INDEX[..., None] == 2, 255, PALETTE[INDEX]), {}, 0
    ),
    "palette_half_clear.png": (
        palette_picture(transparency=bytes(HALF_CLEAR.tolist())),
        over(PALETTE[INDEX], HALF_CLEAR[INDEX][..., None]), {}, 0
    ),
    "bits.png": (picture(BITS), 255 * BITS, {}, 0),
    "bits.tif": (picture(BITS, "tif"), 255 * BITS, {}, 0),
    "bits_fax.tif": (picture(BITS, "tif", compression="group4"), 255 * BITS, {}, 0),
    "bits.bmp": (picture(BITS, "bmp"), 255 * BITS, {}, 0),
    "cmyk.tif": (
        picture(CMYK, "tif", "CMYK"), np.rint((255.0 - CMYK[..., :3]) * (255.0 - CMYK[..., 3:]) / 255), {}, 0
    ),
    "cmyk.jpg": (
        picture(np.full((6, 9, 4), [10, 80, 150, 40], np.uint8), "jpg", "CMYK", quality=100, subsampling=0),
        np.rint(np.full((6, 9, 3), (255.0 - np.array([10, 80, 150])) * (255 - 40) / 255)), {}, 2
    ),
    "ycbcr.tif": (picture(RGB, "tif", "YCbCr"), ycbcr_to_rgb(RGB), {}, 1),
    "lab.tif": (picture(LAB, "tif", "LAB"), lab_to_srgb(LAB), {}, 2),
    "16.png": (picture(WIDE), np.rint(WIDE / 257), {}, 0),
    "16.tif": (picture(WIDE, "tif"), np.rint(WIDE / 257), {}, 0),
    "16_lzw.tif": (picture(WIDE, "tif", compression="tiff_lzw"), np.rint(WIDE / 257), {}, 0),
    "16_big_endian.tif": (tiff(WIDE, order=">"), np.rint(WIDE / 257), {}, 0),
    "16_white_is_zero.tif": (tiff(WIDE, photometric=0), 255 - np.rint(WIDE / 257), {}, 0),
    "16_with_range.png": (picture(TWELVE), np.rint(TWELVE / 4095 * 255), {"value_range": (0, 4095)}, 0),
    "16_color.png": (png(9, 6, 16, 2, WIDE_ROWS), WIDE_RGB >> 8, {}, 0),
    "12.tif": (tiff(TWELVE_BYTES, bits=12), np.rint(TWELVE / 4095 * 255), {}, 0),
    "8_white_is_zero.tif": (tiff(GREY, photometric=0), 255 - GREY, {}, 0),
    "32_unsigned.tif": (
        tiff(UNSIGNED), np.rint(UNSIGNED / (2**32 - 1) * 255), {"value_range": (0, 2**32 - 1)}, 0
    ),
    "16_signed.tif": (
        tiff(SIGNED, sample_format=2), np.rint((SIGNED + 1000) / 2000 * 255), {"value_range": (-1000, 1000)}, 0
    ),
    "float.tif": (picture(FLOATS, "tif"), np.rint((FLOATS.astype(float) + 3) / 8 * 255), {"value_range": (-3, 5)}, 0),
    "animated.gif": (
        picture(FRAMES[0], "gif", save_all=True, append_images=list(map(Image.fromarray, FRAMES[1:]))), FRAMES[0], {}, 0
    ),
    "animated.webp": (
        picture(FRAMES[0], "webp", save_all=True, append_images=list(map(Image.fromarray, FRAMES[1:])), lossless=True),
        FRAMES[0], {}, 0
    ),
    "animated.png": (
        picture(FRAMES[0], "png", save_all=True, append_images=list(map(Image.fromarray, FRAMES[1:]))), FRAMES[0], {}, 0
    ),
    "pages.tif": (
        picture(FRAMES[0], "tif", save_all=True, append_images=list(map(Image.fromarray, FRAMES[1:]))), FRAMES[0], {}, 0
    ),
    "one_pixel.png": (picture(RGB[:1, :1]), RGB[:1, :1], {}, 0),
    "profile.png": (picture(RGB, icc_profile=b"a profile that is not applied"), RGB, {}, 0),
    "interlaced.png": (INTERLACED, RGB, {}, 0),
    "tail.png": (picture(RGB) + b"bytes behind the end", RGB, {}, 0),
}  # fmt: skip


def settings(pixels, **options):
    pixels = np.asarray(pixels)
    return PictureSettings(pixels.shape[:2], 1 if pixels.ndim == 2 else 3, **{"fit": "exact", **options})


def check(path, pixels, options, tolerance):
    """The decoded picture has the pixels and, by its header alone, the size."""
    decoded = decode(path, settings(pixels, **options))
    expected = np.asarray(pixels, float).reshape(*np.shape(pixels)[:2], -1).transpose(2, 0, 1)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.shape == expected.shape
    assert np.abs(decoded.pixels - expected).max() <= tolerance
    assert read_header(path) == decoded.header
    assert decoded.header.size == expected.shape[1:]
    return decoded


@pytest.mark.parametrize("name", RIGHT)
def test_pixels(tmp_path, name):
    """Each kind of file has the pixels of a computation with numpy."""
    content, pixels, options, tolerance = RIGHT[name]
    (tmp_path / name).write_bytes(content)
    decoded = check(tmp_path / name, pixels, options, tolerance)
    assert decoded.is_animated == name.startswith(("animated", "pages"))


@pytest.mark.parametrize("orientation", ROTATIONS)
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_rotation(tmp_path, suffix, orientation):
    path = tmp_path / f"a.{suffix}"
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    path.write_bytes(picture(SMOOTH, suffix, exif=exif(orientation), **options))
    check(path, ROTATIONS[orientation](SMOOTH), {}, 2 if suffix == "jpg" else 0)


@pytest.mark.parametrize("orientation", ROTATIONS)
@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("tif", {}), ("tif", {"compression": "tiff_lzw"})])
@pytest.mark.parametrize("pixels", [GREY, WIDE])
def test_exif_rotation_of_grey_pictures(tmp_path, pixels, suffix, options, orientation):
    """Pillow maps uncompressed grey TIFF files into memory, and 16 bits are scaled here."""
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(picture(pixels, suffix, exif=exif(orientation), **options))
    expected = np.rint(pixels / 257) if pixels is WIDE else pixels
    check(path, ROTATIONS[orientation](expected), {}, 0)


def test_exif_behind_the_pixels(tmp_path):
    """The header of such a PNG file does not tell the size, the decoder does."""
    plain, rotation = picture(RGB), exif(6).tobytes().removeprefix(b"Exif\0\0")
    path = tmp_path / "a.png"
    path.write_bytes(plain[:-12] + chunk(b"eXIf", rotation) + plain[-12:])
    decoded = decode(path, settings(ROTATIONS[6](RGB)))
    assert np.array_equal(decoded.pixels.transpose(1, 2, 0), ROTATIONS[6](RGB))
    with pytest.raises(PictureError, match=re.escape("it is 9x6, others are 6x9: scale all with data.size=[H,W]")):
        decode(path, settings(RGB))


def truncated(suffix, share=0.6, **options):
    content = picture(np.kron(RGB, np.ones((9, 9, 1), np.uint8)), suffix, **options)
    return content[: int(len(content) * share)]


FLIPPED = bytearray(picture(RGB))
FLIPPED[len(FLIPPED) // 2] ^= 1
BROKEN_HEADER = "its header is broken or incomplete"
NO_PICTURE = "it is no png, jpeg, webp, bmp, tiff or gif file: it begins with "
WITH_NAN = FLOATS.copy()
WITH_NAN[2, 3] = np.nan

# Name: bytes of the file, options of the decoder, cause.
REFUSED = {
    "empty.jpg": (b"", {}, "the file is empty"),
    "page.jpg": (b"<!DOCTYPE html><html>404</html>", {}, f'{NO_PICTURE}the text "<!DOCTYPE html><html"'),
    "text.png": (b"a,b\n1,2\n", {}, f'{NO_PICTURE}the text "a,b 1,2"'),
    "umlaut.png": ("Äöü sind kein Bild, ß".encode()[:20], {}, f'{NO_PICTURE}the text "Äöü sind kein Bil'),
    "cut_umlaut.png": ("so viele Zeichen: ä".encode()[:19], {}, f'{NO_PICTURE}the text "so viele'),
    "zeros.png": (bytes(30), {}, f"{NO_PICTURE}the bytes 00 00 00 00 00 00 00 00"),
    "postscript.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 6\n", {}, NO_PICTURE),
    "truncated.png": (truncated("png"), {}, "the file is truncated"),
    "truncated.jpg": (truncated("jpg"), {}, "image file is truncated"),
    "truncated_progressive.jpg": (truncated("jpg", progressive=True), {}, "image file is truncated"),
    "last_byte.jpg": (picture(RGB, "jpg")[:-1], {}, "image file is truncated"),
    "truncated.gif": (truncated("gif"), {}, "image file is truncated"),
    "truncated.bmp": (truncated("bmp"), {}, "image file is truncated"),
    "truncated.tif": (truncated("tif"), {}, "image file is truncated"),
    "truncated_lzw.tif": (truncated("tif", compression="tiff_lzw"), {}, BROKEN_HEADER),
    "truncated.webp": (truncated("webp"), {}, "could not create decoder object"),
    "header_only.png": (picture(RGB)[:20], {}, "Truncated File Read"),
    "header_only.jpg": (picture(RGB, "jpg")[:20], {}, BROKEN_HEADER),
    "flipped.png": (bytes(FLIPPED), {}, "the checksum of its part IDAT is wrong"),
    "huge.png": (png(60_000, 60_000, 8, 2, b""), {}, "Image size (3600000000 pixels) exceeds limit"),
    "huge.bmp": (bmp_claims(2**30, 2**30), {}, "exceeds limit"),
    "no_pixels.png": (png(0, 5, 8, 2, b""), {}, BROKEN_HEADER),
    "header_says_more.png": (
        png(9, 6, 8, 2, b"\0" * 28), {}, "it has 28 bytes of pixels, but its header says 168"
    ),
    "no_data.png": (picture(RGB).replace(b"IDAT", b"IDAX"), {}, BROKEN_HEADER),
    "32_signed.tif": (tiff(UNSIGNED, sample_format=2), {}, "its 32-bit values need a range, data.value_range=[LOW"),
    "16_signed.tif": (tiff(SIGNED, sample_format=2), {}, "its 16-bit values need a range"),
    "8_signed.tif": (tiff(GREY.view(np.int8), sample_format=2), {}, "it has signed 8-bit values"),
    "float.tif": (picture(FLOATS, "tif"), {}, "its 32-bit values need a range"),
    "float_outside.tif": (
        picture(FLOATS, "tif"), {"value_range": (0, 1)},
        re.compile(r"its values from -2\.\S+ to 4\.\S+ are outside of data.value_range=\[0,1\]")
    ),
    "float_nan.tif": (picture(WITH_NAN, "tif"), {"value_range": (-9, 9)}, "its values from nan to nan are outside"),
    "16_outside.png": (picture(WIDE), {"value_range": (0, 4095)}, "are outside of data.value_range=[0,4095]"),
    "other_size.png": (picture(RGB[:5]), {}, "it is 5x9, others are 6x9: scale all with data.size=[H,W]"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, name):
    """The cause is one line that says what is wrong."""
    content, options, cause = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Exception) as refusal:  # noqa: PT011  # Pillow raises errors of many kinds
        decode(path, settings(RGB, **options))
    text = describe_error(path, refusal.value)
    assert re.search(cause if isinstance(cause, re.Pattern) else re.escape(cause), text), text
    assert "\n" not in text


def test_missing_and_unreadable_files(tmp_path):
    for path, cause in ((tmp_path / "none.png", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(OSError) as refusal:  # noqa: PT011
            decode(path, settings(RGB))
        assert describe_error(path, refusal.value) == cause


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "webp"])
def test_a_changed_byte_is_no_crash(tmp_path, suffix):
    """A PNG file is refused, or its pixels are right. Other formats have no checksums."""
    content = picture(RGB, suffix)
    path, rng = tmp_path / f"a.{suffix}", np.random.default_rng(1)
    causes = []
    for position in rng.choice(len(content), min(len(content), 120), replace=False):
        changed = bytearray(content)
        changed[position] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        try:
            pixels = decode(path, settings(RGB)).pixels
        except Exception as error:
            causes.append(describe_error(path, error))
        else:
            assert suffix != "png" or np.array_equal(pixels, RGB.transpose(2, 0, 1))
    assert causes
    assert all(causes)


# Sizes.


def test_crop_keeps_pixels_of_the_center(tmp_path):
    """A picture that is only cut has exactly its own pixels, also if the margins are odd."""
    path = tmp_path / "a.png"
    path.write_bytes(picture(RGB))
    for width, left in ((6, 1), (5, 2)):
        pixels = decode(path, PictureSettings((6, width), 3, "crop")).pixels
        assert np.array_equal(pixels.transpose(1, 2, 0), RGB[:, left : left + width])


def test_pad_fills_with_the_background(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(picture(RGB))
    pixels = decode(path, PictureSettings((9, 9), 3, "pad", (1, 2, 3))).pixels.transpose(1, 2, 0)
    assert np.array_equal(pixels[1:7], RGB)
    assert (pixels[[0, 7, 8]] == [1, 2, 3]).all()
    grey = decode(path, PictureSettings((9, 9), 1, "pad", (200, 100, 50))).pixels[0]
    assert (grey[0] == luma(np.array([200, 100, 50]))).all()


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_scaling_averages(tmp_path, fit):
    """Blocks of 8x8 pixels become their color, within ringing of the filter; a checkerboard becomes its mean."""
    path, blocks = tmp_path / "a.png", np.kron(np.full((6, 9, 3), 200, np.uint8), np.ones((8, 8, 1), np.uint8))
    blocks[::2, ::2] = blocks[1::2, 1::2] = 0
    path.write_bytes(picture(blocks))
    pixels = decode(path, PictureSettings((6, 9), 3, fit)).pixels
    assert np.abs(pixels.astype(int) - 100).max() <= 3


@pytest.mark.parametrize(("height", "width"), [(1, 5000), (5000, 1), (1, 1), (3, 7)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_any_size_is_scaled(tmp_path, height, width, fit):
    path = tmp_path / "a.png"
    path.write_bytes(picture(np.full((height, width, 3), [50, 100, 150], np.uint8)))
    pixels = decode(path, PictureSettings((16, 24), 3, fit, (0, 0, 0))).pixels.transpose(1, 2, 0)
    own = (pixels == [50, 100, 150]).all(2)
    assert own.all() if fit == "crop" else own.any() and (own | (pixels == 0).all(2)).all()


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpegs_are_shrunk_by_their_decoder(tmp_path, monkeypatch, orientation):
    """Two photographs: the pixels are within the stated tolerance of Lanczos' filter alone, and the decoder helped."""
    from PIL.JpegImagePlugin import JpegImageFile
    from sklearn.datasets import load_sample_images

    shrunk, draft = [], JpegImageFile.draft
    monkeypatch.setattr(JpegImageFile, "draft", lambda self, mode, size: shrunk.append(size) or draft(self, mode, size))
    path = tmp_path / "a.jpg"
    for photo in load_sample_images().images:
        large = Image.fromarray(photo).resize((1280, 848), Image.Resampling.BICUBIC)
        large.save(path, quality=90, exif=exif(orientation))
        with Image.open(path) as image:
            full = ROTATIONS[orientation](np.asarray(image))
        height, width = full.shape[:2]
        left, top = max(0, (width - height) // 2), max(0, (height - width) // 2)
        box = (left, top, left + min(height, width), top + min(height, width))
        for size in (32, 64):
            target = Image.fromarray(full).resize((size, size), Image.Resampling.LANCZOS, box)
            decoded = decode(path, PictureSettings((size, size), 3, "crop"))
            error = np.abs(decoded.pixels.transpose(1, 2, 0).astype(int) - np.asarray(target))
            assert error.max() <= 4
            assert error.mean() <= 0.3
            assert decoded.header.size == (height, width)
    assert set(shrunk) == {(1280 // 4, 848 // 4), (1280 // 2, 848 // 2)}


# Find.


def make(root, *names):
    for name in names:
        path = os.path.join(os.fsencode(root), name if isinstance(name, bytes) else name.encode())
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(picture(RGB))


def test_find_sorts_labels_and_counts(tmp_path):
    make(
        tmp_path, "cat/b.PNG", "cat/deep/er/a.jpeg", "dog/a.tiff", "Zebra/z.webp", "loose.gif", "cat/c.TIF",
        "cat/d.bmp", "cat/.hidden.png", ".folder/a.png", "__MACOSX/cat/._b.png", "cat/notes.txt", "README", "dog/a.txt",
        "empty/x.md"
    )  # fmt: skip
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    (tmp_path / "cat" / "folder.png").mkdir()
    files = find_pictures(tmp_path)
    assert files.paths == [
        "Zebra/z.webp", "cat/b.PNG", "cat/c.TIF", "cat/d.bmp", "cat/deep/er/a.jpeg", "dog/a.tiff", "loose.gif"
    ]  # fmt: skip
    assert files.class_names == ["Zebra", "cat", "dog"]
    assert files.labels.tolist() == [0, 1, 1, 1, 1, 2, -1]
    assert files.ignored == {".md": 1, ".png": 1, ".txt": 2, "no suffix": 1}
    assert (files.num_hidden, files.num_links) == (3, 0)
    assert files.stamps[0].tolist() == [len(picture(RGB)), (tmp_path / "Zebra/z.webp").stat().st_mtime_ns]


def test_one_folder_is_no_class(tmp_path):
    make(tmp_path, "train/a.png", "train/b.png", "c.png")
    files = find_pictures(tmp_path)
    assert files.class_names == []
    assert files.labels.tolist() == [-1, -1, -1]


def test_odd_names(tmp_path):
    """Names that are no UTF-8, with line breaks or spaces, are found, read and shown in one line."""
    make(tmp_path, b"\xff\xfe.png", "a\nb.png", " c d .png", "\u00e9t\u00e9.png")
    files = find_pictures(tmp_path)
    assert files.paths == [" c d .png", "a\nb.png", "\u00e9t\u00e9.png", "\udcff\udcfe.png"]
    for path in files.paths:
        assert np.array_equal(decode(files.root / path, settings(RGB)).pixels.transpose(1, 2, 0), RGB)
        assert show_path(path).isprintable()
    assert show_path("a b/\u00e9.png") == "a b/\u00e9.png"


def test_links(tmp_path):
    """Links to files below the root are pictures; links to folders, out of the root, or in a circle are counted."""
    make(tmp_path, "root/a.png", "outside/b.png")
    root = tmp_path / "root"
    (root / "inside.png").symlink_to(root / "a.png")
    (root / "out.png").symlink_to(tmp_path / "outside" / "b.png")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "circle").symlink_to(root)
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "nowhere.png").symlink_to(root / "none.png")
    (tmp_path / "link_to_root").symlink_to(root)
    for start in (root, tmp_path / "link_to_root"):
        files = find_pictures(start)
        assert files.paths == ["a.png", "inside.png"]
        assert files.num_links == 5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none", "none does not exist: give the folder of the pictures, data.root=FOLDER"),
        ("file.png", "file.png is not a folder: give the folder of the pictures"),
        ("empty", "has no picture files (.bmp, .gif, .jpeg, .jpg, .png, .tif, .tiff, .webp); found: nothing"),
        ("other", "found: 2 .txt, 1 no suffix, 1 hidden, 1 links out of it"),
    ],
)
def test_no_pictures(tmp_path, name, words):
    make(tmp_path, "file.png", "other/a.txt", "other/b.txt", "other/c", "other/.d.png")
    (tmp_path / "other" / "e.png").symlink_to(tmp_path / "file.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=re.escape(words)):
        find_pictures(tmp_path / name)


def test_unreadable_folder(tmp_path, monkeypatch):
    """Administrators can read any folder, so the refusal of the system is played here."""
    make(tmp_path, "a.png", "closed/b.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ConfigError, match=r"the folder .*closed cannot be read \(Permission denied\): make"):
        find_pictures(tmp_path)


def test_a_file_that_cannot_be_read_has_another_stamp(tmp_path, monkeypatch):
    """So a cache that was made without it is not used when its permissions are repaired."""
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    before = find_pictures(tmp_path).stamps
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert not np.array_equal(before, find_pictures(tmp_path).stamps)
