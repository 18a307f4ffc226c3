"""Examples as bytes on disk: written once, then read without decoding, also if they are larger than the memory."""

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaezoo.errors import ConfigError

VERSION = 1  # of the files' format: raise it with every change, so that older caches are not read
ROWS, ARRAYS, RECORD = "rows.bin", "arrays.npz", "record.json"


class Content(NamedTuple):
    """The content of a cache beside its rows of bytes.

    Args:
        shape: number of rows, and the shape of a row: (N, *shape).
        arrays: numpy arrays without objects.
        record: plain values: strings, numbers, None, lists and dicts.
    """

    shape: tuple[int, ...]
    arrays: Mapping[str, NDArray[Any]]
    record: Mapping[str, Any]


class ByteCache:
    """Read a cache: a folder with rows of bytes (uint8), arrays and a record.

    Nothing in it can be executed: the rows are plain bytes, the arrays are an .npz file without objects, and the record
    is JSON.

    Args:
        path: folder of the cache.
        key: key that the cache was written for.

    Raises:
        ValueError: the folder is not a complete cache for this key.
    """

    def __init__(self, path: Path, key: str):
        self.path = path
        try:
            record = json.loads((path / RECORD).read_text(encoding="utf-8"))
            if (record["version"], record["key"]) != (VERSION, key):
                raise ValueError("it was written for another key")
            self.shape = tuple(record["shape"])
            self.record: dict[str, Any] = record["record"]
            with np.load(path / ARRAYS, allow_pickle=False) as arrays:
                self.arrays = {name: arrays[name] for name in arrays.files}
            if (path / ROWS).stat().st_size != math.prod(self.shape):
                raise ValueError("its size is wrong")
            # As a plain array, which is indexed faster than a memmap.
            self.rows: NDArray[np.uint8] = np.asarray(np.memmap(path / ROWS, np.uint8, mode="r", shape=self.shape))
        except (OSError, ValueError, KeyError, TypeError, RecursionError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is not a complete cache: {error}") from error

    @property
    def nbytes(self) -> int:
        """Size of the rows in bytes."""
        return math.prod(self.shape)

    def read(self, index: Tensor) -> Tensor:
        """Return copies of rows: uint8 (B, *shape) for their numbers (B,)."""
        return torch.from_numpy(self.rows[index.numpy()])


def cache_folder(name: str) -> Path:
    """Return the folder of the user's caches of one kind: ``vaezoo/NAME`` in the user's folder of caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vaezoo" / name


def cache_key(*parts: Any) -> str:
    """Return a key, 32 hexadecimal digits, from plain values and from arrays."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part.tobytes() if isinstance(part, np.ndarray) else json.dumps(part).encode()
        state.update(f"{len(content)} ".encode())
        state.update(content)
    return state.hexdigest()


def load_or_build(folder: Path, key: str, build: Callable[[Path], Content]) -> ByteCache:
    """Return the cache with a key; build it if there is none.

    It is built in a folder of another name, which is renamed when all is written. If several processes want the same
    cache, one builds it and the others wait. A cache that is damaged is replaced.

    Args:
        folder: folder of the caches; created if it is missing.
        key: name of the cache: a function of all that its content depends on.
        build: writes the rows to the path that it gets, and returns the rest of the content.

    Raises:
        ConfigError: the folder cannot be written to, or the disk is full.
    """
    path = folder / key
    try:
        return ByteCache(path, key)
    except ValueError:
        pass  # it is built below
    with full_disk_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with waiting_lock(folder / f".{key}.lock"):
            try:
                return ByteCache(path, key)  # another process has built it
            except ValueError:
                pass
            fresh = folder / f".{key}.building"
            for leftover in (path, fresh):  # damaged, or from a process that was killed
                if leftover.is_dir():
                    shutil.rmtree(leftover)
                else:
                    leftover.unlink(missing_ok=True)
            fresh.mkdir()
            try:
                content = build(fresh / ROWS)
                with (fresh / ARRAYS).open("wb") as file:
                    np.savez(file, allow_pickle=False, **content.arrays)
                record = {"version": VERSION, "key": key, "shape": content.shape, "record": content.record}
                (fresh / RECORD).write_text(json.dumps(record, allow_nan=False), encoding="utf-8")
                for name in (ROWS, ARRAYS, RECORD):
                    sync(fresh / name)  # a power failure after the renaming must not leave incomplete files
                fresh.replace(path)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    cache = ByteCache(path, key)
    print(
        f"cache: {cache.nbytes / 1e6:,.1f} MB in {path}; all caches in {folder} have {folder_size(folder) / 1e6:,.1f} "
        f"MB, delete those that you no longer need"
    )
    return cache


def reserve(path: Path, nbytes: int) -> None:
    """Create a file of zeros, which take no space on the disk until they are overwritten.

    Raises:
        OSError: the disk has less space than the file will need.
    """
    if nbytes > shutil.disk_usage(path.parent).free:
        raise OSError(errno.ENOSPC, f"{nbytes / 1e6:,.0f} MB are needed")
    with path.open("wb") as file:
        file.truncate(nbytes)


def write_row(file: int, content: bytes, row: int) -> None:
    """Write a row to an open file descriptor. Several processes may write to one file.

    Raises:
        OSError: the disk is full.
    """
    offset, rest = row * len(content), memoryview(content)
    while rest:  # a write may be incomplete: the next one raises the reason
        written = os.pwrite(file, rest, offset)
        offset, rest = offset + written, rest[written:]


def sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def folder_size(folder: Path) -> int:
    """Return the size in bytes of the files in a folder and below."""
    size = 0
    for top, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(top, name)).st_size
            except OSError:  # another process has removed it
                continue
    return size


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Raise a ``ConfigError`` if writing to a folder of caches fails."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            cause = f"the disk is full, {shutil.disk_usage(folder).free / 1e6:,.0f} MB are free ({cause})"
        raise ConfigError(
            f"the cache in {folder} cannot be written, {cause}: make room, or set the environment variable "
            f"XDG_CACHE_HOME to another folder"
        ) from error


@contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Lock a file for this process while a block runs; wait if another process has locked it."""
    with path.open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            print("waiting for another process that prepares the same data")
            fcntl.lockf(file, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield
