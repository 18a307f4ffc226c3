"""Arrays of your own: images, vectors and other shapes, from .npy, .npz, .pt and .h5 files."""

from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaezoo.data.array_files import ArrayFile, read_array_file
from vaezoo.data.array_values import (
    Conversion,
    convert_array,
    convert_labels,
    convert_numbered,
    convert_rows,
    find_conversion,
    find_layout,
    row_chunks,
    to_channels_first,
)
from vaezoo.data.base import DataModule
from vaezoo.data.images import ImageData
from vaezoo.data.own import OwnData
from vaezoo.data.splits import LazyExamples, Split, count_labels, digest_rows
from vaezoo.errors import ConfigError


class ArrayData(OwnData, ImageData):
    """Provide the rows of an array in a file, and their labels if there are any.

    The shape, the type and the values tell the layout and the kind of data, or the option that decides is asked for
    (``find_layout``, ``find_conversion``).

    Attributes:
        content: an array in memory, which takes the place of the file.

    Args:
        path: a file of NumPy (.npy, .npz), torch (.pt, .pth) or HDF5 (.h5, .hdf5).
        key: name of the array in the file. None: the only one, or the only one of x, X, images, data and arr_0.
        labels_key: name of the labels in the file. None: the only one of y, labels and targets, if there is one.
        layout: ``NCHW``, ``NHWC`` or ``NHW`` for images, ``ND`` for vectors and other shapes. None: found by the shape.
        kind: ``binary``, ``byte``, ``unit``, ``real`` or ``count``. None: found by the type and the values.
        value_range: the values that become 0 and 1, such as [0, 65535] or [-1, 1]. None: values stay; whole numbers
            that are pixels are from 0 to 255.
        in_memory: whether the array is held in memory; only a .npy file can stay on the disk. None: it is, unless a
            .npy file takes more than a quarter of the available memory.
        binarize: mode of binarization of pixels from 0 to 255 (``ImageData``). ``auto`` without a likelihood: ``none``,
            or ``dynamic`` if all pixels are 0 or 255, so that nothing is drawn.
        **kwargs: arguments of ``OwnData`` and ``DataModule``.
    """

    noun = "example"
    content: ArrayFile | None = None

    def __init__(
        self,
        path: str = "",
        key: str | None = None,
        labels_key: str | None = None,
        layout: str | None = None,
        kind: str | None = None,
        value_range: Sequence[float] | None = None,
        in_memory: bool | None = None,
        binarize: str = "auto",
        **kwargs: Any,
    ):
        super().__init__(binarize=binarize, **kwargs)
        self.path, self.key, self.labels_key, self.in_memory = path, key, labels_key, in_memory
        self.layout, self.kind, self.value_range = layout, kind, value_range
        self.conversion: Conversion | None = None
        self.found: dict[str, Any] = {}

    # Reading.

    def fits(self, description: Mapping[str, Any]) -> bool:
        return "columns" not in description and "vocabulary" not in description

    def use_description(self, description: Mapping[str, Any]) -> None:
        self.kind = self.kind or description.get("stored_kind")
        if "stored_kind" in description:  # the training had an array, too
            self.layout = self.layout or description.get("layout")
        self.value_range = self.value_range or description.get("value_range")

    def read_file(self) -> ArrayFile:
        """Read the array."""
        if self.content is not None:
            return self.content
        if not self.path:
            raise ConfigError("data.path is missing: name the file of the array, data.path=FILE.npz")
        return read_array_file(self.path, self.key, self.labels_key, self.in_memory)

    def read_all(self) -> tuple[Split, np.ndarray]:
        file = self.read_file()
        self.layout = find_layout(file.x.shape, file.x.dtype, self.layout, file.name)
        rows = to_channels_first(file.x, self.layout)
        self.conversion, self.values = find_conversion(rows, self.layout, file.name, self.kind, self.value_range)
        self.noun = "example" if self.layout == "ND" else "image"
        self.has_missing = self.values.holes > 0
        self.binary = self.conversion.kind == "byte" and self.values.is_bits
        self.default_binarize = "dynamic" if self.binary else "none"
        labels_name = f"{file.labels_name} of {self.path or file.name}"
        y, self.class_names = convert_labels(file.labels, len(rows), labels_name)
        digests = [digest_rows(convert_rows(part, self.conversion).numpy()) for _, part in row_chunks(rows)]
        on_disk = isinstance(file.x, np.memmap)
        if on_disk:
            make = partial(convert_numbered, rows, self.conversion)
            x: Tensor | LazyExamples = LazyExamples(make, torch.arange(len(rows)))
            place = self.path or file.name
            print(f"the {self.noun}s ({file.x.nbytes / 1e6:,.0f} MB) are read from {place} when they are needed")
        else:
            x = convert_array(rows, self.conversion)
        self.found = {
            "array": file.name,
            "shape in the file": list(file.x.shape),
            "type": str(file.x.dtype),
            "labels": labels_name if file.labels is not None else "none",
            "classes": count_labels(y, self.class_names),
            "held in memory": not on_disk,
        }
        return Split(x, y), np.concatenate(digests)

    def check_examples(self, split: Split, name: str) -> None:
        """Check nothing: ``read_all`` has looked at all values."""

    def check_options(self) -> None:
        self.inspect()  # the values decide what is binarized
        self.resolve_binarize(None)

    # Kinds.

    @property
    def rule(self) -> Conversion:
        """The rule that turns values of the file into values of x. The file is read if it was not."""
        if self.conversion is None:
            self.inspect()
        assert self.conversion is not None
        return self.conversion

    @property
    def is_bytes(self) -> bool:
        """Return whether the values are pixels from 0 to 255, the only ones that can be binarized."""
        return self.rule.kind == "byte"

    @property
    def data_kind(self) -> str:  # type: ignore[override]  # it depends on the file
        """Kind of data (``vaezoo.families``). The file is read if it was not."""
        if not self.is_bytes:
            return self.rule.kind
        mode = self.default_binarize if self.binarize == "auto" else self.binarize
        return "byte" if mode == "none" else "binary"

    def resolve_binarize(self, supported_data: Set[str] | None) -> str:
        if self.binarize == "auto" and not self.is_bytes:
            self.binarize = "none"
        return super().resolve_binarize(supported_data)

    def read_example(self, path: Path) -> Tensor:
        return super().read_example(path) if self.is_bytes else DataModule.read_example(self, path)

    def prepare_split(self, split: Split, name: str) -> Split:
        return super().prepare_split(split, name) if self.is_bytes else split

    def to_model(self, x: Tensor, draw: Callable[[], torch.Generator], train: bool = False) -> Tensor:
        return super().to_model(x, draw, train) if self.is_bytes else x

    @property
    def mean(self) -> Tensor:
        """Mean over the observed entries of the training examples, as the model sees them, (*shape)."""
        return super().mean if self.is_bytes else DataModule.mean.fget(self)  # type: ignore[attr-defined]

    @property
    def shows_draws(self) -> bool:  # type: ignore[override]
        """True for counts, whose mean is no count."""
        return self.rule.kind == "count"

    def likelihood_config(self) -> dict[str, Any]:
        are_pictures = self.shape is not None and len(self.shape) == 3 and self.shape[0] in (1, 3)
        if self.data_kind == "byte" and not are_pictures:
            return {"_target_": "vaezoo.families.DiscretizedLogistic"}
        return super().likelihood_config()

    # For people.

    def describe(self) -> dict[str, Any]:
        value_range = self.rule.value_range and list(self.rule.value_range)
        options = {"layout": self.layout, "value_range": value_range, "class_names": self.class_names}
        options["stored_kind"] = self.rule.kind  # before pixels were binarized
        return super().describe() | options

    def report(self) -> dict[str, Any]:
        rule, values = self.rule, self.values
        start, width = self.scale
        return self.found | {
            "layout": self.layout,
            "kind": f"{rule.kind} ({rule.reason})",
            "values": [start + width * values.low, start + width * values.high],
            "missing values": values.holes,
            "examples with missing values": values.rows_with_holes,
        }

    @property
    def scale(self) -> tuple[float, float]:
        """Start and width of the range of the file's values that became [0, 1]; (0, 1) if values stayed."""
        low, high = self.rule.value_range or (0.0, 1.0)
        return low, high - low

    def to_images(self, x: Tensor) -> Tensor | None:
        """Return images as pictures: black is the least value of the file and white the largest if they are no pixels.

        Missing values are gray.
        """
        if self.layout == "ND" or x.shape[1] not in (1, 3):
            return None
        if self.rule.kind in ("real", "count"):
            low, high, *_ = self.values
            x = (x - low) / max(high - low, 1e-12)
        return x.nan_to_num(nan=0.5).clamp(0, 1)

    def in_file_units(self, x: Tensor) -> np.ndarray:
        """Return examples in the units of the file."""
        start, width = self.scale
        return (x.cpu().double() * width + start if x.is_floating_point() else x.cpu()).numpy()

    def to_columns(self, x: Tensor) -> dict[str, np.ndarray]:
        """Return vectors as columns x0, x1, ..., in the units of the file; nothing for other shapes."""
        return {"x": self.in_file_units(x)} if x.dim() == 2 else {}

    def save_examples(self, x: Tensor, path: Path) -> list[Path]:
        """Write examples in the layout and the units of the file: vectors as .csv, others as .npy."""
        array = self.in_file_units(x)
        if self.layout == "NHWC":
            array = array.transpose(0, 2, 3, 1)
        if self.layout == "NHW":
            array = array[:, 0]
        if array.ndim == 2:
            file = path.with_name(f"{path.name}.csv")
            heads = ",".join(f"x{i}" for i in range(array.shape[1]))  # as in tables of reconstructions
            kind = "%d" if array.dtype.kind == "i" else "%.9g"
            np.savetxt(file, array, delimiter=",", fmt=kind, header=heads, comments="")
        else:
            file = path.with_name(f"{path.name}.npy")
            np.save(file, array)
        return [file]
