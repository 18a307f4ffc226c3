"""Decode picture files once, in several processes, into a cache of bytes."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import PIL
from tqdm import tqdm

from vaezoo.data.byte_cache import ByteCache, Content, cache_key, load_or_build, reserve, write_row
from vaezoo.data.found_files import FoundFiles, bad_files_error, show_path
from vaezoo.data.picture_files import (
    GREY_MODES,
    Header,
    PictureSettings,
    decode,
    describe_error,
    read_header,
)
from vaezoo.data.workers import Crash, map_in_processes
from vaezoo.errors import ConfigError

VERSION = 1  # of decoding: raise it with every change that leads to other pixels
Result = TypeVar("Result")


class PictureOptions(NamedTuple):
    """The user's choices for the pictures: as ``PictureSettings``, but None leaves a choice to the files.

    Args:
        size: height and width. None: the size of all pictures, which must have one.
        channels: 1 or 3. None: 1 if all pictures and the background are grey by their mode, else 3.
        fit: ``crop`` or ``pad``.
        background: color (red, green, blue).
        value_range: values of black and white in pictures with more than 8 bits per pixel.
    """

    size: tuple[int, int] | None
    channels: int | None
    fit: str
    background: tuple[int, int, int]
    value_range: tuple[float, float] | None


class DecodedRow(NamedTuple):
    """A picture that was decoded and written to the cache.

    Args:
        header: mode and size in the file.
        is_animated: whether the file has further frames or pages.
        is_binary: whether all pixels are 0 or 255.
        digest: digest of the pixels.
    """

    header: Header
    is_animated: bool
    is_binary: bool
    digest: int


def load_pictures(files: FoundFiles, options: PictureOptions, folder: Path) -> ByteCache:
    """Return the cache of the decoded pictures; build it if there is none for these files and options.

    Row i of the cache is picture i of ``files``, also if it is bad: such a row is empty.

    The arrays of the cache have an entry for each good picture: ``rows`` (its row), ``digests`` (of its pixels) and
    ``sizes`` (height and width in the file). The record has ``size``, ``channels`` and ``is_binary`` (whether all
    pixels of all pictures are 0 or 255), ``modes`` (the number of pictures of each of Pillow's modes), ``animated``
    (the number of files with several frames or pages) and ``bad`` (number of each bad file and the cause).

    Args:
        files: the files.
        options: the user's choices.
        folder: folder of the caches.

    Raises:
        ConfigError: the pictures have several sizes and none was chosen; no picture can be read; or the cache cannot be
            written.
    """
    key = cache_key(VERSION, PIL.__version__, os.fsencode(files.root).hex(), options, files.stamps, path_bytes(files))
    return load_or_build(folder, key, partial(build, files, options))


def path_bytes(files: FoundFiles) -> Any:
    """Return the paths of all files as one array of bytes."""
    return np.frombuffer(b"\0".join(map(os.fsencode, files.paths)), np.uint8)


def build(files: FoundFiles, options: PictureOptions, rows: Path) -> Content:
    """Decode all pictures into a file of rows."""
    settings = choose_settings(files, options)
    shape = (len(files.paths), settings.channels, *settings.size)
    reserve(rows, prod(shape))
    results = run(DecodeRow(files, settings, rows), files, "decoding pictures")
    good = [(number, result) for number, result in enumerate(results) if isinstance(result, DecodedRow)]
    bad = {number: str(result) for number, result in enumerate(results) if not isinstance(result, DecodedRow)}
    if not good:
        raise bad_files_error(files, bad)
    decoded = [result for _, result in good]
    arrays = {
        "rows": np.array([number for number, _ in good], np.int64),
        "digests": np.array([result.digest for result in decoded], np.uint64),
        "sizes": np.array([result.header.size for result in decoded], np.int64),
    }
    record = {
        "size": settings.size,
        "channels": settings.channels,
        "is_binary": all(result.is_binary for result in decoded),
        "modes": dict(Counter(result.header.mode for result in decoded).most_common()),
        "animated": sum(result.is_animated for result in decoded),
        "bad": list(bad.items()),
    }
    return Content(shape, arrays, record)


def choose_settings(files: FoundFiles, options: PictureOptions) -> PictureSettings:
    """Complete the options by the headers of the files, if anything is left to them.

    Raises:
        ConfigError: the pictures have several sizes and none was chosen; or no header can be read.
    """
    size, channels, fit, background, value_range = options
    if size is None or channels is None:
        results = run(ReadHeader(files), files, "reading headers of pictures")
        headers = [result for result in results if isinstance(result, Header)]
        if not headers:
            raise bad_files_error(files, dict(enumerate(map(str, results))))
        if channels is None:
            is_grey = all(header.mode in GREY_MODES for header in headers) and len(set(background)) == 1
            channels = 1 if is_grey else 3
        if size is None:
            size, fit = common_size([header.size for header in headers], files), "exact"
    return PictureSettings(size, channels, fit, background, value_range)


def common_size(sizes: Sequence[tuple[int, int]], files: FoundFiles) -> tuple[int, int]:
    """Return the size of all pictures.

    Raises:
        ConfigError: there are several sizes.
    """
    counts = Counter(sizes).most_common()
    if len(counts) > 1:
        frequent = ", ".join(f"{height}x{width} ({number:,})" for (height, width), number in counts[:3])
        raise ConfigError(
            f"the {len(sizes):,} pictures in data.root={show_path(files.root)} have {len(counts):,} sizes, most often "
            f"(height x width) {frequent}: choose one for all with data.size=64 or data.size=[HEIGHT,WIDTH]"
        )
    return counts[0][0]


class ReadHeader:
    """Read the header of a picture by its number; return the cause as text if that fails."""

    def __init__(self, files: FoundFiles):
        self.files = files

    def __call__(self, number: int) -> Header | str:
        path = self.files.root / self.files.paths[number]
        try:
            return read_header(path)
        except Exception as error:  # Pillow raises errors of many kinds
            return describe_error(path, error)


class DecodeRow:
    """Decode a picture by its number into its row of a file; return the cause as text if decoding fails.

    Args:
        files: the picture files.
        settings: size and channels of the decoded pictures.
        rows: the file, which exists.
    """

    def __init__(self, files: FoundFiles, settings: PictureSettings, rows: Path):
        self.files, self.settings, self.rows = files, settings, rows
        self.output: int | None = None

    def __call__(self, number: int) -> DecodedRow | str:
        path = self.files.root / self.files.paths[number]
        try:
            pixels, header, is_animated = decode(path, self.settings)
        except Exception as error:  # Pillow raises errors of many kinds
            return describe_error(path, error)
        if self.output is None:  # opened by the process that writes
            self.output = os.open(self.rows, os.O_WRONLY)
        content = pixels.tobytes()
        write_row(self.output, content, number)
        is_binary = bool(((pixels == 0) | (pixels == 255)).all())
        digest = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
        return DecodedRow(header, is_animated, is_binary, digest)


def run(function: Callable[[int], Result | str], files: FoundFiles, title: str) -> list[Result | str | Crash]:
    """Apply a function to the numbers of all files, in a process on each core, and return the results in order."""
    num = len(files.paths)
    results: list[Any] = [None] * num
    with closing(map_in_processes(function, range(num), num_cores())) as done:  # a signal may end the loop
        for number, result in tqdm(done, title, num, leave=False, disable=None, delay=3):
            results[number] = result
    return results


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
