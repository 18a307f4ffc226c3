"""Pictures and sounds of the runs inside the page, as data URIs."""

import base64
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vaezoo.metrics.quantities import use_noun
from vaezoo.pictures import heading_height
from vaezoo.report.read import Run, drawn_at

PICTURE_BYTES = 40_000  # of one picture, at most
LARGE, LARGE_KINDS = 3, ("samples", "reconstructions")  # so many times the bytes for what is shown large
SOUND_BYTES = 150_000  # of one sound, at most
WIDEST, NARROWEST = 800, 140  # px that a picture is shrunk to
# Captions of the pictures with a heading, which is cut off because it is too small to read in a thumbnail.
CAPTIONS = {
    "reconstructions": "validation images, each above its reconstruction",
    "samples": "means of p(x | z) for z ~ p(z), and below them draws at the same z",
    "traversals": "one row for each latent dimension, the most used first: one image's code is moved along it in steps "
    "of standard deviations",
    "manifold": "the latent plane at equally spaced quantiles of the prior, z0 to the right, z1 upwards",
}


def add_media(page: dict[str, Any], runs: Sequence[Run], room: int) -> None:
    """Add the runs' pictures and sounds to the page. What does not fit is left out, and counted as ``left_out``.

    Args:
        page: what ``contents`` gives.
        runs: its runs.
        room: bytes that are left.
    """
    for entries, run in zip(page["runs"], runs, strict=True):
        for path in run.sounds:
            audio = "data:audio/wav;base64," + base64.b64encode(path.read_bytes()).decode()
            if len(audio) <= SOUND_BYTES and len(audio) < room / 4:
                entries["sounds"].append(audio)
                room -= len(audio)
    shown = {variant["runs"][0] for c in page["comparisons"] for variant in c["variants"] if variant["runs"]}
    pictures = [(i, kind, path) for i, run in enumerate(runs) for kind, path in run.pictures.items()]
    weights = [LARGE if i in shown and kind in LARGE_KINDS else 1 for i, kind, _ in pictures]
    for number, (i, kind, path) in enumerate(pictures):
        share = room * weights[number] // sum(weights[number:])
        if source := thumbnail(path, min(PICTURE_BYTES, share), kind in CAPTIONS):
            caption = use_noun(CAPTIONS.get(kind, ""), runs[i].noun)
            if runs[i].noun == "sentence":  # tokens have no mean
                caption = caption.replace("means of p(x | z)", "the most probable words")
            entry = {"kind": kind, "epoch": drawn_at(path), "source": source, "caption": caption}
            page["runs"][i]["pictures"].append(entry)
            room -= len(source) + 50
        else:
            page["left_out"] += 1


def thumbnail(file: Path, max_bytes: int, has_heading: bool = False) -> str | None:
    """A picture as a data URI; None if it cannot be read, or nothing could be seen at this size.

    It keeps its size and every pixel if that fits. Otherwise it is compressed and shrunk as far as needed.

    Args:
        file: the picture.
        max_bytes: most bytes of the data URI.
        has_heading: whether a heading is cut off at the top.
    """
    try:
        image = Image.open(file).convert("RGB")
        if has_heading:
            top = min(heading_height(np.asarray(image)), image.height - 1)
            image = image.crop((0, top, image.width, image.height))
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG file
        print(f"{file}: the picture cannot be read ({error}) and is left out", file=sys.stderr)
        return None
    if file.stat().st_size < max_bytes and len(source := encoded(image, lossless=True)) <= max_bytes:
        return source
    width = min(image.width, WIDEST)
    while width >= NARROWEST:
        size = (width, max(1, round(image.height * width / image.width)))
        source = encoded(image.resize(size, Image.Resampling.LANCZOS), quality=70)
        if len(source) <= max_bytes:
            return source
        smaller = 0.95 * width * math.sqrt(max_bytes / len(source))  # bytes are proportional to the area
        width = min(int(smaller), width - 1)
    return None


def encoded(image: Image.Image, **how: Any) -> str:
    """An image as a data URI of WebP."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **how)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
