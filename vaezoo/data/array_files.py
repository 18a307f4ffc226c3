"""Read arrays from files. Files are data: pickles and arrays of Python objects are refused."""

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaezoo.archive import find_unreadable, read_archive
from vaezoo.data.memory import available_memory, check_memory
from vaezoo.errors import ConfigError, suggest

DATA_KEYS = ("x", "X", "images", "data", "arr_0")
LABEL_KEYS = ("y", "labels", "targets")
LONGEST_HEADER = 2**16  # bytes of an array in the format of .npy that are read to find its shape


class ArrayFile(NamedTuple):
    """The content of a file.

    Args:
        name: path of the file, and the key of the array in it, for messages.
        x: the array (N, ...); a memory map if it is large.
        labels: the labels, or None.
        labels_name: the key of the labels.
    """

    name: str
    x: NDArray
    labels: NDArray | None = None
    labels_name: str | None = None


def read_array_file(
    path: str | Path, key: str | None = None, labels_key: str | None = None, in_memory: bool | None = None
) -> ArrayFile:
    """Read an array and its labels from a file.

    Args:
        path: a file of NumPy (.npy, .npz), torch (.pt, .pth: a tensor or a dict of tensors) or HDF5 (.h5, .hdf5).
        key: name of the array in the file. None: the only one that is none of the labels, or the only one of
            ``DATA_KEYS``.
        labels_key: name of the labels. None: the only one of ``LABEL_KEYS``, if there is one.
        in_memory: whether the array is held in memory. Otherwise it stays on the disk, which only .npy files can, and
            its rows are read when they are needed. None: it is, unless a .npy file takes more than a quarter of the
            available memory.

    Raises:
        ConfigError: the file does not exist, cannot be read, does not fit into memory or needs a key.
    """
    path = Path(path)
    readers = {
        ".npz": read_npz, ".pt": read_pt, ".pth": read_pt, ".h5": read_hdf5, ".hdf5": read_hdf5,
    }  # fmt: skip
    suffix = path.suffix.lower()
    if suffix != ".npy" and suffix not in readers:
        others = {".csv": "data=table", ".parquet": "data=table", ".txt": "data=text", ".wav": "data=audio"}
        advice = f"use {others[suffix]} for it" if suffix in others else "save it with numpy.savez(FILE, x=..., y=...)"
        raise ConfigError(f"data.path={path} is none of .npy, {', '.join(readers)}: {advice}")
    if not path.is_file():
        raise ConfigError(f"data.path={path} is no file: give the path of an array")
    if in_memory is False and suffix != ".npy":
        raise ConfigError(f"data.in_memory=false needs a .npy file, but data.path={path} is none: leave it out")
    try:
        if suffix != ".npy":
            return readers[suffix](path, key, labels_key)
        if key is not None or labels_key is not None:
            option = "data.key" if key is not None else "data.labels_key"
            raise ConfigError(f"{path} holds one array without a name: leave {option} out, or save an .npz file")
        size = path.stat().st_size
        with open(path, "rb") as stream:
            shape, dtype, start = read_header(stream)
        check_type(dtype, str(path))
        check_size(size - start, shape, dtype)
        if in_memory is None:
            in_memory = size <= available_memory() / 4
        if in_memory:
            check_memory(str(path), size, "use data.in_memory=false")
        return ArrayFile(str(path), np.load(path, mmap_mode=None if in_memory else "r", allow_pickle=False))
    except ConfigError:
        raise
    except MemoryError as error:
        raise ConfigError(f"{path} does not fit into memory") from error
    except Exception as error:  # the libraries raise errors of many classes for broken files
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ConfigError(f"{path} cannot be read ({reason}): the file is damaged or of another format") from error


def read_header(stream: BinaryIO) -> tuple[tuple[int, ...], np.dtype, int]:
    """Return the shape and the type of the array that a stream in the format of .npy begins with, and where it starts.

    NumPy reads a header of any length before it refuses it, and a small .npz file may hold one of 4 GB. Therefore NumPy
    is given the beginning of the stream only.
    """
    start = io.BytesIO(stream.read(LONGEST_HEADER))
    version = np.lib.format.read_magic(start)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(start)
    return shape, dtype, start.tell()


def check_size(size: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise an error if there are not as many bytes as the header says."""
    if size != (expected := math.prod(shape) * dtype.itemsize):
        raise ValueError(f"{size:,} bytes of values for the shape {shape}, which needs {expected:,}")


def check_type(dtype: Any, name: str) -> None:
    """Raise an error for arrays of Python objects, which are stored as pickles, and of types that are no numbers."""
    if dtype.hasobject:
        raise ConfigError(
            f"{name} holds Python objects, which could execute code: save numbers, or texts with astype(str)"
        )
    if dtype.kind not in "biufSU":
        raise ConfigError(f"{name} has the type {dtype}: save whole numbers or floats")


def choose_keys(
    path: Path, shapes: Mapping[str, tuple[int, ...]], key: str | None, labels_key: str | None
) -> tuple[str, str | None]:
    """Return the key of the data and the key of the labels.

    Args:
        path: the file, for messages.
        shapes: the arrays in the file.
        key: ``data.key``.
        labels_key: ``data.labels_key``.

    Raises:
        ConfigError: an array does not exist, or there are several candidates.
    """
    listed = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:20]) or "nothing"
    for option, name in (("data.key", key), ("data.labels_key", labels_key)):
        if name is not None and name not in shapes:
            raise ConfigError(f"{option}={name} is not in {path}: {suggest(name, shapes)}")
    if labels_key is None:
        found = [name for name in LABEL_KEYS if name in shapes and name != key]
        if len(found) > 1:
            raise ConfigError(f"{path} has several labels, {', '.join(found)}: choose one with data.labels_key")
        labels_key = found[0] if found else None
    if key is None:
        others = [name for name in shapes if name != labels_key]
        found = others if len(others) == 1 else [name for name in DATA_KEYS if name in others]
        if len(found) != 1:
            raise ConfigError(f"{path} holds {listed}: choose the data with data.key=NAME")
        key = found[0]
    if key == labels_key:
        raise ConfigError(f"data.key and data.labels_key are both {key}: choose two arrays of {path}")
    return key, labels_key


def read_npz(path: Path, key: str | None, labels_key: str | None) -> ArrayFile:
    """Read an .npz file. The size of its arrays is read first, since a small file may hold a large compressed array."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename[:-4]: info for info in archive.infolist() if info.filename.endswith(".npy")}
        headers = {}
        for name, entry in entries.items():
            with archive.open(entry) as stream:
                *headers[name], start = read_header(stream)  # type: ignore[arg-type]  # IO[bytes]
                if not headers[name][1].hasobject:
                    check_size(entry.file_size - start, *headers[name])
        key, labels_key = choose_keys(path, {name: shape for name, (shape, _) in headers.items()}, key, labels_key)

        def read(name: str | None) -> Any:
            if name is None:
                return None
            shape, dtype = headers[name]
            check_type(dtype, f"{name} of {path}")
            advice = "save it with numpy.save as a .npy file, which can stay on the disk"
            check_memory(f"{name} of {path}", math.prod(shape) * dtype.itemsize, advice)
            with archive.open(entries[name]) as stream:
                array = np.lib.format.read_array(stream, allow_pickle=False)
            return array

        return ArrayFile(f"{key} of {path}", read(key), read(labels_key), labels_key)


def read_pt(path: Path, key: str | None, labels_key: str | None) -> ArrayFile:
    """Read a file of ``torch.save``: a tensor, or a dict of tensors and lists of labels."""
    # The verified copy of the file is in memory together with the tensors.
    check_memory(str(path), 2 * path.stat().st_size, "save it with numpy.save, since .npy files can stay on the disk")
    with open(path, "rb") as stream:
        content = read_archive(stream)
    if problem := find_unreadable(content):
        raise ValueError(f"it holds {problem}")
    if isinstance(content, Tensor):
        content = {"x": content}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}: save a tensor or a dict of tensors")
    arrays = {
        str(name): to_numpy(value) if isinstance(value, Tensor) else np.asarray(value)
        for name, value in content.items()
        if isinstance(value, Tensor) or is_list_of_labels(value)
    }
    key, labels_key = choose_keys(path, {name: value.shape for name, value in arrays.items()}, key, labels_key)
    return ArrayFile(f"{key} of {path}", arrays[key], None if labels_key is None else arrays[labels_key], labels_key)


def to_numpy(x: Tensor) -> NDArray:
    """Return a tensor as an array; bfloat16 becomes float32, since NumPy has no such type."""
    return (x.float() if x.dtype == torch.bfloat16 else x).detach().numpy()


def is_list_of_labels(value: Any) -> bool:
    """Return whether a value is a list of texts or a list of whole numbers."""
    return isinstance(value, list) and bool(value) and {type(item) for item in value} in ({str}, {int})


def read_hdf5(path: Path, key: str | None, labels_key: str | None) -> ArrayFile:
    """Read an HDF5 file. Data sets that lie in other files are refused, since the path is chosen by the file."""
    try:
        import h5py
    except ImportError as error:
        raise ConfigError(f"{path} needs h5py: install it with pip install 'vaezoo[hdf5]'") from error
    with h5py.File(path, "r") as file:
        sets: dict[str, Any] = {}
        file.visititems(lambda name, item: sets.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        key, labels_key = choose_keys(path, {name: item.shape for name, item in sets.items()}, key, labels_key)

        def read(name: str | None) -> Any:
            if name is None:
                return None
            item = sets[name]
            if item.external or item.is_virtual:
                raise ConfigError(f"{name} of {path} lies in other files: save its values in one file")
            check_memory(f"{name} of {path}", item.nbytes, "save it with numpy.save as a .npy file")
            if h5py.check_string_dtype(item.dtype):
                return item.asstr()[:].astype(str)
            check_type(item.dtype, f"{name} of {path}")
            return item[()]

        return ArrayFile(f"{key} of {path}", read(key), read(labels_key), labels_key)
