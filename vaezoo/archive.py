"""Read a torch archive that a stranger may have written: tensors and plain values, and nothing is executed.

torch's own ``weights_only=True`` keeps code out. In addition, an archive must not need more memory than its file is
large. Therefore compressed parts, tensors with more elements than the file stores, and objects of any size that a few
bytes describe are refused before they are created.
"""

import io
import os
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, BinaryIO

import torch

PLAIN = (type(None), bool, int, float, str)
# The only names in the pickle of a checkpoint: they build a tensor from numbers in the file, a dict, or a dtype.
DTYPES = ("Bool", "Byte", "Char", "Short", "Int", "Long", "Half", "BFloat16", "Float", "Double", "ComplexFloat")
GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {dtype}Storage" for dtype in DTYPES),
}


def read_archive(file: BinaryIO) -> Any:
    """Return the content of an archive that ``torch.save`` wrote, with its tensors on the CPU.

    torch compares no checksums, and reads the archive's directory in its own way: with one bit of it flipped, a tensor
    has whatever was in memory. So torch gets a new archive, built from the parts whose checksums are right.

    Raises:
        ValueError: the archive is larger than its file, or holds other objects than tensors and plain values.
        Exception: zipfile and torch raise errors of several classes for a broken file.
    """
    verified = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(verified, "w") as copy:
        parts = archive.infolist()
        if len({part.filename for part in parts}) < len(parts):
            raise ValueError("it has two parts of the same name")
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise ValueError("it has compressed parts, which torch does not write")
        if sum(part.file_size for part in parts) > os.fstat(file.fileno()).st_size:
            raise ValueError("its parts are larger than the file")
        for part in parts:
            content = archive.read(part)
            if part.filename.endswith(".pkl"):
                check_pickle(content)
            copy.writestr(part.filename, content)
    verified.seek(0)
    return torch.load(verified, map_location="cpu", weights_only=True)


def check_pickle(content: bytes) -> None:
    """Raise a ValueError if a pickle names anything that is not in ``GLOBALS``."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL") and argument not in GLOBALS:
            raise ValueError(f"it holds a {argument or opcode.name}, but only tensors and plain values are allowed")


def find_unreadable(content: Any) -> str | None:
    """Describe the first value that cannot be read back, such as "a DictConfig in config"; None if all values can.

    Tensors must be dense and store all of their elements. Other values must be of a plain type, not of a subclass of
    it: a numpy float is a float, but cannot be read back.
    """
    for name, value in leaves(content):
        if type(value) in (torch.Tensor, torch.nn.Parameter):
            if value.layout != torch.strided or value.is_quantized or value.is_meta:
                return f"a tensor that is not dense in {name}"
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                return f"a tensor of {value.numel():,} numbers over fewer stored ones in {name}"
        elif type(value) not in PLAIN:
            return f"a {type(value).__name__} in {name}"
    return None


def leaves(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value and every key inside dicts, lists and tuples, with its path. No container is visited twice."""
    waiting, seen = [(name, content)], set()
    while waiting:
        name, value = waiting.pop()
        if type(value) in (dict, OrderedDict):
            items = list(value.items())
        elif type(value) in (list, tuple):
            items = list(enumerate(value))
        else:
            yield name, value
            continue
        if id(value) in seen:  # a file may refer to one list again and again
            continue
        seen.add(id(value))
        parts = [(f"{name}.{key}" if name else str(key), key, part) for key, part in items]
        yield from ((at, key) for at, key, _ in parts)
        waiting += [(at, part) for at, _, part in reversed(parts)]
