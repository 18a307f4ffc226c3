"""Read sounds from .wav, .flac and .ogg files."""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaezoo.errors import ConfigError

SUFFIXES = (".wav", ".flac", ".ogg")
BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
ALL_BITS = 2**32 - 1
LAST_PAGE = 4  # flag of a page of an .ogg file
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
LONGEST = 2**33  # samples; headers of streams without a known length claim more


class SoundFiles(NamedTuple):
    """The sounds in a folder.

    Args:
        paths: the files in alphabetical order.
        num_hidden: number of hidden files, and files in hidden folders and in ``__MACOSX``; they are ignored.
        num_others: number of files with other suffixes; they are ignored, too.
    """

    paths: list[Path]
    num_hidden: int
    num_others: int


class Sound(NamedTuple):
    """A sound with one channel.

    Args:
        samples: float32 (T,); whole numbers in the file are scaled to [-1, 1) exactly.
        rate: samples per second.
        channels: number of channels in the file; ``samples`` is their mean.
        num_clipped: number of samples at the largest or the least value of the file's format, in all channels.
    """

    samples: NDArray[np.float32]
    rate: int
    channels: int
    num_clipped: int


def find_sounds(root: str | Path) -> SoundFiles:
    """Return the sounds in a folder and its sub-folders.

    Raises:
        ConfigError: the folder does not exist, or has no sounds.
    """
    root = Path(root)
    if not root.is_dir():
        raise ConfigError(f"data.root={root} is no folder: give the folder of the sounds")
    paths, num_hidden, num_others = [], 0, 0
    for folder, _, names in os.walk(root):
        parts = Path(folder).relative_to(root).parts
        for name in names:
            if any(part.startswith(".") or part == "__MACOSX" for part in (*parts, name)):
                num_hidden += 1
            elif name.lower().endswith(SUFFIXES):
                paths.append(Path(folder, name))
            else:
                num_others += 1
    if not paths:
        raise ConfigError(
            f"data.root={root} has no sounds among {num_hidden + num_others} files: give a folder of "
            f"{', '.join(SUFFIXES)} files"
        )
    return SoundFiles(sorted(paths), num_hidden, num_others)


def read_sound(path: str | Path) -> Sound:
    """Read a sound and mix its channels.

    libsndfile reads a truncated file as a shorter sound without an error. Therefore the lengths in the headers are
    compared with the file.

    Raises:
        ValueError: the file is damaged, truncated or empty, or has values that are not finite.
        Exception: soundfile raises errors of several classes for broken files.
    """
    import soundfile

    check_complete(Path(path))
    with soundfile.SoundFile(path) as file:
        if file.frames > LONGEST:
            raise ValueError("its header does not say how long it is")
        samples = file.read(dtype="float64", always_2d=True)  # (T, channels), float64: the mean is rounded once
        if len(samples) != file.frames:
            raise ValueError(f"it ends after {len(samples):,} of {file.frames:,} samples")
        rate, bits = file.samplerate, BITS.get(file.subtype, 16)
    if not len(samples):
        raise ValueError("it has no samples")
    if not np.isfinite(samples).all():
        raise ValueError("it has samples that are NaN or infinite")
    num_clipped = int(((samples >= 1 - 2 ** (1 - bits)) | (samples <= -1)).sum())
    return Sound(samples.mean(1).astype(np.float32), rate, samples.shape[1], num_clipped)


def memory_of_sounds(paths: Sequence[Path]) -> int:
    """Return the number of bytes that all samples and their frames take, and in addition the largest file as float64.

    The numbers of samples are those of the headers, since a file with a long silence is small. A file that cannot be
    read counts as empty.
    """
    import soundfile

    total, largest = 0, 0
    for path in paths:
        with suppress(Exception):  # ``read_sound`` tells the cause
            info = soundfile.info(path)
            if info.frames <= LONGEST:
                total += 8 * info.frames
                largest = max(largest, 8 * info.frames * info.channels)
    return total + largest


def check_complete(path: Path) -> None:
    """Raise a ValueError if a .wav file is shorter than its headers say, or an .ogg file is not what was written."""
    with open(path, "rb") as stream:
        start = stream.read(4)
    if start == b"OggS":
        check_ogg(path.read_bytes())
    if start == b"RIFF":
        size = path.stat().st_size
        for name, at, length in riff_chunks(path):
            # Some programs do not know the length when they begin to write.
            if name == b"data" and length not in (0, ALL_BITS) and at + length > size:
                raise ValueError(f"it has {max(0, size - at):,} of {length:,} bytes of sound")


def riff_chunks(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, position and length of the chunks of a .wav file."""
    at, size = 12, path.stat().st_size
    with open(path, "rb") as stream:
        while at + 8 <= size:
            stream.seek(at)
            name, length = struct.unpack("<4sI", stream.read(8))
            yield name, at + 8, length
            at += 8 + length + length % 2


def check_ogg(content: bytes) -> None:
    """Raise a ValueError if a page has another checksum than it says, or the last page is missing.

    Pages: RFC 3533, The Ogg Encapsulation Format, https://www.rfc-editor.org/rfc/rfc3533
    """
    at, flags = 0, 0
    while at < len(content):
        num = content[at + 26] if at + 26 < len(content) else 0
        end = at + 27 + num + sum(content[at + 27 : at + 27 + num])
        page = content[at:end]
        if page[:4] != b"OggS" or len(page) < end - at:
            raise ValueError(f"its page at byte {at:,} is not complete")
        if ogg_checksum(page[:22] + bytes(4) + page[26:]) != int.from_bytes(page[22:26], "little"):
            raise ValueError(f"its page at byte {at:,} has another checksum")
        at, flags = end, page[5]
    if not flags & LAST_PAGE:
        raise ValueError("it is truncated, its last page is missing")


def ogg_checksum(page: bytes) -> int:
    """Return the checksum of a page of an .ogg file.

    It is the CRC of zlib with the order of bits reversed in each byte and in the result, and without inversions.
    """
    crc = zlib.crc32(page.translate(REVERSED_BITS), ALL_BITS) ^ ALL_BITS
    return int(f"{crc:032b}"[::-1], 2)


def resample(samples: NDArray[np.float32], rate: int, new_rate: int) -> NDArray[np.float32]:
    """Return a sound with another number of samples per second, by a polyphase low-pass filter (scipy).

    Args:
        samples: (T,).
        rate: samples per second.
        new_rate: samples per second of the result, which has ceil(T new_rate / rate) samples.
    """
    if rate == new_rate:
        return samples
    from scipy.signal import resample_poly

    ratio = Fraction(new_rate, rate)
    return resample_poly(samples.astype(np.float64), ratio.numerator, ratio.denominator).astype(np.float32)


def choose_rate(rates: dict[int, int], rate: int | None, root: str | Path) -> int:
    """Return the rate of all sounds.

    Args:
        rates: the number of files with each rate.
        rate: ``data.rate``; None: that of the files.
        root: the folder, for messages.

    Raises:
        ConfigError: the files have several rates and none was chosen.
    """
    if rate is not None:
        return rate
    if len(rates) > 1:
        found = ", ".join(f"{value} Hz ({number})" for value, number in sorted(rates.items()))
        raise ConfigError(
            f"the sounds in data.root={root} have several rates, {found}: choose one with data.rate={min(rates)}, and "
            f"the others are resampled"
        )
    return next(iter(rates))


def cut_frames(samples: NDArray[np.float32], frame: int) -> NDArray[np.float32]:
    """Cut a sound into frames of equal length, (N, frame). The rest at the end is left out."""
    num = len(samples) // frame
    return samples[: num * frame].reshape(num, frame)
