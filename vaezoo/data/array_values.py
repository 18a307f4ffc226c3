"""Find out what an array is: the layout, the kind of data, holes and labels.

Nothing is guessed silently: what an array does not tell is asked for in one sentence.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaezoo.data.options import is_range, require
from vaezoo.errors import ConfigError, suggest

LAYOUTS = {"NCHW": 4, "NHWC": 4, "NHW": 3, "ND": None}  # the number of dimensions; ND: any number >= 2
KINDS = ("binary", "byte", "unit", "real", "count")
EXACT = 2**24  # float32 holds all whole numbers up to this one
CHUNK = 1 << 22  # values that are looked at together


# Layout.


def find_layout(shape: Sequence[int], dtype: np.dtype, layout: str | None, name: str) -> str:
    """Return what the dimensions of an array are: ``NCHW``, ``NHWC``, ``NHW`` or ``ND``.

    N examples are images of C channels, height H and width W, or vectors and other shapes of D values. Images with four
    channels are asked about: the fourth is often the opacity.

    Args:
        shape: shape of the array.
        dtype: type of the array.
        layout: the layout that the user gave, or None.
        name: name of the array, for messages.

    Raises:
        ConfigError: the layout is unknown, does not fit the shape, or cannot be told from the shape.
    """
    shape = tuple(shape)
    if len(shape) < 2:
        raise ConfigError(f"{name} has the shape {shape}: give (N, D) or images, one row for each example")
    if min(shape) == 0:
        raise ConfigError(f"{name} holds no values, its shape is {shape}: give at least one example")
    if layout is not None:
        if layout not in LAYOUTS:
            raise ConfigError(f"data.layout={layout} is unknown: {suggest(layout, LAYOUTS, 'data.layout=')}")
        if LAYOUTS[layout] not in (None, len(shape)):
            fitting = [other for other, dimensions in LAYOUTS.items() if dimensions in (None, len(shape))]
            raise ConfigError(
                f"data.layout={layout} has {LAYOUTS[layout]} dimensions, but {name} has the shape {shape}: "
                f"use data.layout={' or '.join(fitting)}"
            )
        return layout
    if len(shape) == 2:
        return "ND"
    if len(shape) == 3 and (dtype in (np.uint8, np.bool_)):
        return "NHW"
    if len(shape) == 3:
        raise ConfigError(
            f"{name} has the shape {shape} and the type {dtype}: use data.layout=NHW for gray images, "
            f"or data.layout=ND for other data"
        )
    if len(shape) > 4:
        raise ConfigError(f"{name} has the shape {shape}: use data.layout=ND if these are no images")
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first != last and 4 not in (shape[1], shape[3]):
        return "NCHW" if first else "NHWC"
    hint = ""
    if not first and not last and 4 in (shape[1], shape[3]):
        hint = "; if the fourth channel is an opacity, save the images without it"
    raise ConfigError(
        f"{name} has the shape {shape}, whose channels cannot be told: "
        f"use data.layout=NCHW, NHWC, or ND if these are no images{hint}"
    )


def to_channels_first(array: NDArray, layout: str) -> NDArray:
    """Return images as (N, C, H, W), and other arrays as they are. The result is a view."""
    if layout == "NHWC":
        return array.transpose(0, 3, 1, 2)
    return array[:, None] if layout == "NHW" else array


# Values.


class Values(NamedTuple):
    """Facts that hold for all values of an array, after ``value_range`` became [0, 1] if one was given.

    Args:
        low: least value; NaN if all values are missing.
        high: largest value.
        holes: number of missing values (NaN).
        rows_with_holes: number of examples with missing values.
        is_whole: whether all are whole numbers.
        is_bits: whether all are 0 or 1.
        is_levels: whether all are k / 255 for whole numbers k, to the precision of float32 (or of the type).
    """

    low: float
    high: float
    holes: int
    rows_with_holes: int
    is_whole: bool
    is_bits: bool
    is_levels: bool


class Conversion(NamedTuple):
    """A rule for turning values of a file into values of a data set.

    Args:
        kind: kind of data: ``binary``, ``byte``, ``unit``, ``real`` or ``count``.
        value_range: the values that become 0 and 1; None: values stay.
        reason: why this kind was chosen, for the report.
    """

    kind: str
    value_range: tuple[float, float] | None
    reason: str


def row_chunks(array: NDArray) -> Iterator[tuple[int, NDArray]]:
    """Yield the rows of an array in parts that fit into memory, each with the number of its first row."""
    rows = max(1, CHUNK // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def rescale(rows: NDArray, value_range: tuple[float, float] | None) -> NDArray:
    """Map ``value_range`` to [0, 1], in float64. Without a range, values stay."""
    if value_range is None:
        return rows
    low, high = value_range
    return (rows.astype(np.float64) - low) / (high - low)


def scan_values(array: NDArray, value_range: tuple[float, float] | None, name: str) -> Values:
    """Look at all values of an array.

    Args:
        array: numbers (N, ...).
        value_range: the values that become 0 and 1, or None.
        name: name of the array, for messages.

    Raises:
        ConfigError: a value is infinite, too large for float32, or not in ``value_range``.
    """
    low, high, holes, rows_with_holes = math.inf, -math.inf, 0, 0
    is_whole = is_bits = is_levels = True
    kind, tolerance = array.dtype.kind, 1e-7
    if kind == "f":
        tolerance = max(tolerance, float(np.finfo(array.dtype).eps) / 2)
    for start, part in row_chunks(array):
        rows = part.reshape(len(part), -1)
        if kind == "f":
            missing = np.isnan(rows)
            if (infinite := np.isinf(rows)).any():
                row = start + int(infinite.any(1).argmax())
                raise ConfigError(f"{name} is infinite in row {row}: repair or remove that example")
            holes += int(missing.sum())
            rows_with_holes += int(missing.any(1).sum())
            present = rows[~missing]
        else:
            present = rows.reshape(-1)
        if not present.size:
            continue
        y = rescale(present, value_range)
        least, largest = float(y.min()), float(y.max())
        if value_range is not None and (least < 0 or largest > 1):
            raise ConfigError(
                f"data.value_range={list(value_range)}, but {name} has values from {format_number(present.min())} to "
                f"{format_number(present.max())} in rows {start} to {start + len(rows) - 1}: give a range that has all"
            )
        if max(-least, largest) > float(np.finfo(np.float32).max):
            raise ConfigError(f"{name} has the value {max(-least, largest):g}, too large for float32: rescale the data")
        low, high = min(low, least), max(high, largest)
        if y.dtype.kind == "f":
            is_whole = is_whole and bool((y == np.round(y)).all())
        is_bits = is_bits and least >= 0 and largest <= 1 and bool(((y == 0) | (y == 1)).all())
        if is_levels := is_levels and least >= 0 and largest <= 1:
            exact = y.astype(np.float64)
            is_levels = bool((np.abs(exact - np.round(exact * 255) / 255) <= tolerance).all())
    if low > high:
        raise ConfigError(f"{name} has no values, all are NaN: give data")
    return Values(low, high, holes, rows_with_holes, is_whole, is_bits, is_levels)


def format_number(value: Any) -> str:
    """Return a short text of a number: whole numbers with all digits."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{float(value):g}"


def find_conversion(
    array: NDArray,
    layout: str,
    name: str,
    kind: str | None = None,
    value_range: Sequence[float] | None = None,
) -> tuple[Conversion, Values]:
    """Return how an array is converted, and what is true of its values.

    The kind follows from the type and the values if they leave one choice:

    * bool: ``binary``;
    * uint8 images with a value above 1: ``byte``;
    * floats that are all 0 or 1: ``binary``;
    * images of floats in [0, 1]: ``byte`` if all are k / 255 and none is missing, else ``unit``;
    * other floats, if they are no images: ``real``, as they are;
    * whole numbers >= 0 of vectors, some above 1: ``count``.

    Args:
        array: numbers (N, ...).
        layout: its layout (``find_layout``).
        name: name of the array, for messages.
        kind: the kind of data that the user gave, or None.
        value_range: the values that stand for 0 and 1, for example [0, 65535] or [-1, 1]; for images and bits.

    Raises:
        ConfigError: an option is wrong, does not fit the values, or is needed and missing.
    """
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"{name} has the type {array.dtype}: save whole numbers or floats")
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"data.kind={kind} is unknown: {suggest(kind, KINDS, 'data.kind=')}")
    bounds = None
    if value_range is not None:
        require(is_range(value_range), "value_range", value_range, "two numbers, the lower one first")
        if kind in ("real", "count"):
            raise ConfigError(f"data.value_range scales to [0, 1], data.kind={kind} keeps the values: leave one out")
        bounds = (value_range[0], value_range[1])
    type_ = array.dtype.kind
    if bounds is not None and type_ == "b":
        raise ConfigError(f"data.value_range scales numbers, but {name} holds true and false: leave it out")
    if bounds is None and type_ in "iu" and (kind == "byte" or (kind is None and array.dtype == np.uint8)):
        bounds = (0, 255)  # the usual range of whole numbers that are pixels
        if array.dtype != np.uint8 and not (array.min() >= 0 and array.max() <= 255):
            raise ConfigError(
                f"data.kind=byte, but {name} has values from {array.min()} to {array.max()}: give data.value_range"
            )
    values = scan_values(array, bounds, name)
    if kind is None:
        kind, reason = infer_kind(array.dtype, layout, values, bounds, value_range is not None, name)
    else:
        reason = f"data.kind={kind}"
        check_kind(kind, values, type_, name)
    if kind in ("real", "count") and type_ in "iu" and max(abs(values.low), abs(values.high)) > EXACT:
        raise ConfigError(
            f"{name} has the whole number {max(values.high, values.low, key=abs):.0f}, which float32 cannot hold "
            f"exactly: rescale the data, or remove columns of names and dates"
        )
    return Conversion(kind, bounds if kind in ("binary", "byte", "unit") else None, reason), values


def infer_kind(
    dtype: np.dtype,
    layout: str,
    values: Values,
    bounds: tuple[float, float] | None,
    is_range_given: bool,
    name: str,
) -> tuple[str, str]:
    """Return the only kind of data that the type and the values admit, and the reason.

    Args:
        dtype: type of the array.
        layout: its layout.
        values: what is true of its values.
        bounds: the range that became [0, 1], or None.
        is_range_given: whether the user gave this range.
        name: name of the array, for messages.

    Raises:
        ConfigError: several kinds are possible, or none.
    """
    are_images = layout != "ND"
    span = f"from {format_number(values.low)} to {format_number(values.high)}"
    if dtype.kind == "b":
        return "binary", "true and false"
    if dtype == np.uint8 and not is_range_given:
        largest = round(values.high * 255)
        if largest <= 1:
            raise ConfigError(
                f"{name} holds bytes of at most {largest}: use data.kind=binary for bits, "
                f"or data.kind=byte for pixels from 0 to 255"
            )
        if are_images:
            return "byte", f"whole numbers up to {largest}"
        raise ConfigError(
            f"{name} holds bytes up to {largest}: use data.kind=byte for pixels from 0 to 255, "
            f"or data.kind=count for counts"
        )
    if bounds is not None or (dtype.kind == "f" and values.low >= 0 and values.high <= 1):
        of = f"data.value_range={list(bounds)}: " if bounds is not None else ""
        if values.is_bits:
            return "binary", f"{of}only 0 and 1"
        if bounds is None and not are_images:
            return "real", "floats in [0, 1]; data.kind=unit if they are shares or gray values"
        if values.is_levels and not values.holes:
            return "byte", f"{of}all values are k / 255"
        return "unit", f"{of}values in [0, 1]"
    if dtype.kind == "f" and not are_images:
        return "real", f"floats {span}"
    if are_images:
        raise ConfigError(f"{name} holds images of {dtype} {span}: {suggest_range(values)}")
    if values.is_bits:
        raise ConfigError(f"{name} holds only 0 and 1: use data.kind=binary for bits, or data.kind=count for counts")
    if values.low >= 0:
        return "count", f"whole numbers {span}"
    raise ConfigError(f"{name} holds whole numbers {span}: use data.kind=real, or correct the negative counts")


def suggest_range(values: Values) -> str:
    """Return the advice for images whose values are not in [0, 1]."""
    if values.is_whole and values.is_bits:
        return "use data.kind=binary"
    ranges = [(0, 255), (0, 65535)] if values.is_whole else []
    for low, high in [*ranges, (-1, 1), (0, 255)]:
        if low <= values.low and values.high <= high:
            return f"use data.value_range=[{low},{high}] if they are gray values, or data.kind=real to keep them"
    return "give the range of black and white as data.value_range=[LOW,HIGH], or use data.kind=real to keep them"


def check_kind(kind: str, values: Values, type_: str, name: str) -> None:
    """Raise an error if values are not of the kind that the user gave.

    Args:
        kind: kind of data.
        values: what is true of the values.
        type_: ``b``, ``i``, ``u`` or ``f``, as in NumPy.
        name: name of the array, for messages.

    Raises:
        ConfigError: the values are of another kind.
    """
    span = f"from {format_number(values.low)} to {format_number(values.high)}"
    if kind == "binary" and not values.is_bits:
        raise ConfigError(f"data.kind=binary, but {name} has values {span}: give 0 and 1, or data.value_range")
    if kind == "unit" and not 0 <= values.low <= values.high <= 1:
        raise ConfigError(f"data.kind=unit, but {name} has values {span}: give data.value_range=[LOW,HIGH]")
    if kind == "byte" and values.holes:
        raise ConfigError(f"data.kind=byte, but {name} has {values.holes:,} missing values: use data.kind=unit")
    if kind == "byte" and not values.is_levels:
        raise ConfigError(
            f"data.kind=byte, but {name} has values {span} that are not k / 255: use data.kind=unit or data.value_range"
        )
    if kind == "count" and (not values.is_whole or values.low < 0 or type_ == "b"):
        raise ConfigError(f"data.kind=count, but {name} has values {span}, not all whole and >= 0: use data.kind=real")
    if kind == "count" and values.high > EXACT:
        raise ConfigError(f"data.kind=count, but {name} has the value {values.high:.0f}, above 2^24: rescale the data")


def convert_rows(rows: NDArray, conversion: Conversion) -> Tensor:
    """Return examples as the data set stores them.

    bytes as uint8, counts as int64 with -1 for missing values, all others as float32 with NaN for missing values.
    """
    kind, bounds = conversion.kind, conversion.value_range
    if kind == "byte":
        if rows.dtype != np.uint8 or bounds != (0, 255):
            rows = np.round(rescale(rows, bounds) * 255).astype(np.uint8)
        return torch.from_numpy(np.array(rows))
    if kind == "count":
        if rows.dtype.kind == "f":
            rows = np.where(np.isnan(rows), -1, rows)
        return torch.from_numpy(rows.astype(np.int64))
    return torch.from_numpy(np.ascontiguousarray(rescale(rows, bounds).astype(np.float32)))


def convert_array(array: NDArray, conversion: Conversion) -> Tensor:
    """Return a whole array as the data set stores it."""
    return torch.cat([convert_rows(rows, conversion) for _, rows in row_chunks(array)])


def convert_numbered(array: NDArray, conversion: Conversion, index: Tensor) -> Tensor:
    """Return the examples with the numbers ``index`` (B,) as the data set stores them."""
    return convert_rows(array[index.numpy()], conversion)


# Labels.


def convert_labels(labels: NDArray | None, num: int, name: str) -> tuple[Tensor, list[str] | None]:
    """Return labels as whole numbers, -1 for missing ones, and the names of the classes if they are texts.

    Args:
        labels: whole numbers (N,) or (N, F), texts (N,), or None.
        num: number of examples N.
        name: the key of the labels and the file, for messages.

    Raises:
        ConfigError: the labels are of another type, of another number, or negative.
    """
    if labels is None:
        return torch.full((num,), -1), None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim not in (1, 2) or len(labels) != num:
        raise ConfigError(f"{name} has the shape {labels.shape}, but there are {num:,} examples: give one for each")
    if labels.dtype.kind == "S":
        try:
            labels = np.char.decode(labels, "utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{name} holds bytes that are no UTF-8 ({error}): save texts or whole numbers") from error
    if labels.dtype.kind == "U":
        if labels.ndim == 2:
            raise ConfigError(f"{name} holds texts of the shape {labels.shape}: give one label for each example")
        names, codes = np.unique(labels, return_inverse=True)
        if len(names) and names[0] == "":  # a missing label
            names, codes = names[1:], codes - 1
        return torch.from_numpy(codes.astype(np.int64)), [str(text) for text in names]
    if labels.dtype.kind not in "biuf":
        raise ConfigError(f"{name} has the type {labels.dtype}: give whole numbers or texts")
    if labels.dtype.kind == "f":
        labels = np.where(np.isnan(labels), -1, labels)
    if not (labels == np.floor(labels)).all() or labels.min() < -1 or labels.max() > EXACT:
        raise ConfigError(
            f"{name} has values from {format_number(labels.min())} to {format_number(labels.max())}: give whole "
            f"numbers from 0, or texts; -1 is a missing label"
        )
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.min() >= 0 and (labels.sum(1) == 1).all():
        raise ConfigError(f"{name} is one-hot, {labels.shape}: save the number of the class, labels.argmax(1)")
    return torch.from_numpy(labels.astype(np.int64)), None
