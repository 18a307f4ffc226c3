"""Tests of array files: each is read rightly or refused in one sentence that names the file."""

import io
import pickle
import re
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
import torch
from conftest import DATA

from vaezoo.data import array_values, memory
from vaezoo.data.array_files import read_array_file
from vaezoo.data.array_values import (
    Conversion,
    convert_array,
    convert_labels,
    convert_numbered,
    convert_rows,
    find_conversion,
    find_layout,
    to_channels_first,
)
from vaezoo.errors import ConfigError

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (12, 5, 4, 3), dtype=np.uint8)  # N, H, W, C
LABELS = np.arange(12) % 3


def load(path, key=None, labels_key=None, layout=None, kind=None, value_range=None):
    """Read a file as the data module does: (kind, stored tensor, labels, names of the classes)."""
    file = read_array_file(path, key, labels_key)
    layout = find_layout(file.x.shape, file.x.dtype, layout, file.name)
    rows = to_channels_first(file.x, layout)
    conversion, _ = find_conversion(rows, layout, file.name, kind, value_range)
    return conversion.kind, convert_array(rows, conversion), *convert_labels(file.labels, len(rows), file.name)


def saved(folder, array, **arrays):
    if arrays:
        np.savez(folder / "a.npz", x=array, **arrays)
        return folder / "a.npz"
    np.save(folder / "a.npy", array)
    return folder / "a.npy"


def refusal(*arguments, **options):
    """The message of the refusal: one sentence that names the file or the option."""
    with pytest.raises(ConfigError) as error:
        load(*arguments, **options)
    message = str(error.value)
    assert "\n" not in message
    assert re.search(r"\b\w\.\w+|data\.\w+=", message)
    assert message.count(": ") >= 1
    return message


# What is read.


def write_pt(path):
    torch.save({"x": torch.from_numpy(BYTES), "y": torch.from_numpy(LABELS), "note": "by hand"}, path)


def write_h5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("train/images", data=BYTES, compression="gzip")
        file["labels"] = LABELS


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.npz", lambda path: np.savez(path, x=BYTES, y=LABELS)),
        ("b.npz", lambda path: np.savez_compressed(path, faces=np.asfortranarray(BYTES), labels=LABELS)),
        ("c.npz", lambda path: np.savez(path, BYTES, targets=LABELS)),
        ("d.npz", lambda path: np.savez(path, images=BYTES, names=np.arange(5), y=LABELS.astype(float))),
        ("e.pt", write_pt),
        ("f.h5", write_h5),
    ],
)
def test_every_format_gives_the_same_images_and_labels(name, write, tmp_path):
    """The channels come first; the pixels and the labels are those that were written."""
    write(tmp_path / name)
    kind, x, y, names = load(tmp_path / name)
    assert kind == "byte"
    assert x.dtype == torch.uint8
    assert x.shape == (12, 3, 5, 4)
    for n, h, w, c in [(0, 0, 0, 0), (3, 4, 3, 2), (11, 2, 1, 1)]:
        assert x[n, c, h, w] == BYTES[n, h, w, c]
    assert y.tolist() == [0, 1, 2] * 4
    assert y.dtype == torch.int64
    assert names is None


def test_an_array_without_labels(tmp_path):
    """The label of each example is -1: missing."""
    *_, y, names = load(saved(tmp_path, BYTES))
    assert y.tolist() == [-1] * 12
    assert names is None


def test_a_key_decides(tmp_path):
    """Labels can be the data; they are no labels then."""
    np.savez(tmp_path / "a.npz", x=BYTES, y=np.stack([LABELS, LABELS], 1))
    kind, x, y, _ = load(tmp_path / "a.npz", key="y")
    assert (kind, x.shape, y[0]) == ("count", (12, 2), -1)
    assert load(tmp_path / "a.npz", labels_key="y")[2].shape == (12, 2)


# Layout.


@pytest.mark.parametrize(
    ("shape", "dtype", "layout"),
    [
        ((9, 4), "f4", "ND"),
        ((9, 6, 6), "u1", "NHW"),
        ((9, 6, 6), "?", "NHW"),
        ((9, 1, 6, 7), "u1", "NCHW"),
        ((9, 3, 6, 7), "f4", "NCHW"),
        ((9, 6, 7, 1), "f4", "NHWC"),
        ((9, 6, 3, 3), "u1", "NHWC"),
        ((9, 1, 3, 6), "u1", "NCHW"),
    ],
)
def test_layouts_that_leave_one_choice(shape, dtype, layout):
    assert find_layout(shape, np.dtype(dtype), None, "a.npy") == layout


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((9,), "f4", "has the shape (9,)"),
        ((0, 4), "f4", "holds no values"),
        ((9, 6, 6), "f4", "use data.layout=NHW for gray images, or data.layout=ND"),
        ((100, 3, 3, 3), "u1", "channels cannot be told: use data.layout=NCHW, NHWC"),
        ((100, 1, 28, 1), "u1", "channels cannot be told"),
        ((100, 8, 8, 2), "u1", "channels cannot be told"),
        ((100, 8, 8, 4), "u1", "if the fourth channel is an opacity"),
        ((100, 4, 8, 3), "u1", "channels cannot be told"),
        ((100, 4, 8, 8, 8), "u1", "use data.layout=ND"),
    ],
)
def test_layouts_that_are_asked_for(shape, dtype, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        find_layout(shape, np.dtype(dtype), None, "a.npy")


def test_a_layout_that_is_given():
    """It decides where the shape leaves two choices, and is refused if it does not fit."""
    x = np.arange(81).reshape(3, 3, 3, 3)
    assert to_channels_first(x, find_layout(x.shape, x.dtype, "NHWC", "a.npy"))[0, 2, 1, 0] == x[0, 1, 0, 2]
    assert to_channels_first(x, find_layout(x.shape, x.dtype, "NCHW", "a.npy"))[0, 2, 1, 0] == x[0, 2, 1, 0]
    with pytest.raises(ConfigError, match=r"data.layout=NHW has 3 dimensions.*use data.layout=NCHW or NHWC or ND"):
        find_layout(x.shape, x.dtype, "NHW", "a.npy")
    with pytest.raises(ConfigError, match=r"did you mean data.layout=NHWC"):
        find_layout(x.shape, x.dtype, "NWHC", "a.npy")


# Kinds. Gray images (N, 2, 8, 1) and vectors (N, 16).

SQUARE = np.zeros((8, 2, 8, 1), np.uint8)
SQUARE[:, :1, 2:6] = 1
GRAY = np.linspace(0, 1, 128).reshape(8, 2, 8, 1)
RAMP = np.arange(128).reshape(8, 2, 8, 1) * 2


def flat(x):
    return x.reshape(len(x), -1)


def with_hole(x):
    x = np.array(x, dtype=float)
    x[2, 1] = np.nan
    return x


READ = {
    "bool": (SQUARE == 1, {}, "binary", SQUARE),
    "bytes": (RAMP.astype("u1"), {}, "byte", RAMP),
    "bytes that are bits, asked": (SQUARE, {"kind": "binary"}, "binary", SQUARE),
    "bytes that are dark pixels, asked": (SQUARE, {"kind": "byte"}, "byte", SQUARE),
    "floats that are bits": (SQUARE.astype("f4"), {}, "binary", SQUARE),
    "floats k / 255": (np.float32(RAMP) / np.float32(255), {}, "byte", RAMP),
    "floats k / 255 by multiplication": (np.float32(RAMP) * np.float32(1 / 255), {}, "byte", RAMP),
    "half floats k / 255": ((RAMP / 255).astype("f2"), {}, "byte", RAMP),
    "floats in [0, 1]": (GRAY, {}, "unit", GRAY),
    "floats in [0, 1] with a hole": (with_hole(RAMP / 255), {}, "unit", with_hole(RAMP / 255)),
    "[-1, 1] with a range": (2 * GRAY - 1, {"value_range": [-1, 1]}, "unit", GRAY),
    "[-1, 1] from bytes": (np.float32(RAMP) / 127.5 - 1, {"value_range": [-1, 1]}, "byte", RAMP),
    "[-1, 1] kept": (2 * GRAY - 1, {"kind": "real"}, "real", 2 * GRAY - 1),
    "16 bits with a range": (RAMP.astype("i4") * 251, {"value_range": [0, 65535]}, "unit", RAMP * 251 / 65535),
    "int64 pixels with a range": (RAMP, {"value_range": [0, 255]}, "byte", RAMP),
    "int64 pixels, asked": (RAMP, {"kind": "byte"}, "byte", RAMP),
    "big-endian floats": (GRAY.astype(">f4"), {}, "unit", GRAY),
    "vectors of floats": (flat(GRAY) * 9 - 2, {}, "real", flat(GRAY) * 9 - 2),
    "vectors in [0, 1]": (flat(GRAY), {}, "real", flat(GRAY)),
    "vectors in [0, 1], asked": (flat(GRAY), {"kind": "unit"}, "unit", flat(GRAY)),
    "vectors with a hole": (with_hole(flat(GRAY)) * 9, {}, "real", with_hole(flat(GRAY)) * 9),
    "vectors of bits with a hole": (with_hole(flat(SQUARE)), {}, "binary", with_hole(flat(SQUARE))),
    "vectors of counts": (flat(RAMP).astype("i4"), {}, "count", flat(RAMP)),
    "counts as floats with a hole": (with_hole(flat(RAMP)), {"kind": "count"}, "count", with_hole(flat(RAMP))),
    "vectors of bytes, asked": (flat(RAMP).astype("u1"), {"kind": "byte"}, "byte", flat(RAMP)),
}


@pytest.mark.parametrize("case", READ)
def test_kinds_that_are_read(case, tmp_path):
    """The stored values are those that the test computed by itself, in the type of the kind."""
    array, options, kind, expected = READ[case]
    found, x, *_ = load(saved(tmp_path, array), **options)
    assert found == kind
    assert x.dtype == {"byte": torch.uint8, "count": torch.int64}.get(kind, torch.float32)
    expected = np.array(expected, dtype=np.float64)
    if kind == "count":
        expected = np.where(np.isnan(expected), -1, expected)
    if expected.ndim == 4:
        expected = expected.transpose(0, 3, 1, 2)
    assert x.shape == expected.shape
    assert np.allclose(x.numpy(), expected, rtol=0, atol=1e-6, equal_nan=True)
    if kind in ("byte", "count", "binary"):
        assert np.array_equal(x.numpy(), expected, equal_nan=True)


def filled(x, row, value):
    x = np.array(x, dtype=float)
    x[row].flat[3] = value
    return x


REFUSED = {
    "bytes of 0 and 1": (SQUARE, {}, "holds bytes of at most 1: use data.kind=binary for bits"),
    "black bytes": (0 * SQUARE, {}, "holds bytes of at most 0"),
    "images in [-1, 1]": (2 * GRAY - 1, {}, "from -1 to 1: use data.value_range=[-1,1]"),
    "float images in 0..255": (RAMP.astype("f4"), {}, "from 0 to 254: use data.value_range=[0,255]"),
    "int32 images in 0..65535": (RAMP.astype("i4") * 250, {}, "use data.value_range=[0,65535]"),
    "int images of 0 and 1": (SQUARE.astype("i8"), {}, "use data.kind=binary"),
    "images of another range": (GRAY * 1e4 - 7, {}, "data.value_range=[LOW,HIGH]"),
    "infinite": (filled(GRAY, 5, np.inf), {}, "is infinite in row 5"),
    "-infinite vector": (filled(flat(GRAY), 7, -np.inf), {}, "is infinite in row 7"),
    "only holes": (np.full((8, 4), np.nan), {}, "all are NaN"),
    "bits with a 2": (filled(SQUARE, 1, 2), {"kind": "binary"}, "data.kind=binary, but"),
    "unit above 1": (filled(GRAY, 1, 1.01), {"kind": "unit"}, "data.kind=unit, but"),
    "bytes with a hole": (with_hole(RAMP / 255), {"kind": "byte"}, "missing values"),
    "bytes between levels": (GRAY, {"kind": "byte"}, "are not k / 255"),
    "outside the range": (filled(GRAY, 6, -0.1), {"value_range": [0, 1]}, "from -0.1 to 1"),
    "a range for counts": (flat(RAMP), {"kind": "count", "value_range": [0, 255]}, "leave one out"),
    "a range of no width": (RAMP, {"value_range": [3, 3]}, "the lower one first"),
    "negative counts": (flat(RAMP) - 1, {}, "from -1 to 253: use data.kind=real"),
    "half counts": (flat(GRAY), {"kind": "count"}, "not all whole and >= 0"),
    "int vectors of 0 and 1": (flat(SQUARE).astype("i8"), {}, "data.kind=binary for bits, or data.kind=count"),
    "vectors of bytes": (flat(RAMP).astype("u1"), {}, "data.kind=byte for pixels from 0 to 255, or data.kind=count"),
    "counts beyond 2^24": (flat(RAMP).astype("i8") + 2**24, {}, "which float32 cannot hold"),
    "integers beyond 2^24 as real": (flat(RAMP).astype("i8") - 2**24 - 1, {"kind": "real"}, "-16777217"),
    "too large for float32": (np.full((8, 4), 1e39), {}, "too large for float32"),
    "an unknown kind": (GRAY, {"kind": "bytes"}, "did you mean data.kind=byte"),
    "complex": (GRAY + 0j, {}, "type complex128"),
    "texts": (np.full((8, 4), "a"), {}, "type <U1"),
    "dates": (np.full((8, 4), np.datetime64("2020")), {}, "type datetime64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_kinds_that_are_refused(case, tmp_path):
    """One sentence says what is wrong and which option decides."""
    array, options, words = REFUSED[case]
    assert words in refusal(saved(tmp_path, array), **options)


def test_values_are_seen_in_every_part_of_a_large_array(tmp_path, monkeypatch):
    """The array is looked at in parts: one value in the last one decides, and parts join to the whole."""
    monkeypatch.setattr(array_values, "CHUNK", 32)
    kind, x, *_ = load(saved(tmp_path, RAMP.astype("u1")))
    assert (kind, x.flatten().tolist()) == ("byte", RAMP.flatten().tolist())
    assert load(saved(tmp_path, filled(SQUARE, 7, 0.5)))[0] == "unit"
    assert load(saved(tmp_path, filled(SQUARE, 0, 0.5)))[0] == "unit"
    assert "is infinite in row 7" in refusal(saved(tmp_path, filled(SQUARE, 7, np.inf)))
    holes = filled(filled(GRAY, 0, np.nan), 7, np.nan)
    conversion, values = find_conversion(holes, "NHWC", "a.npy")
    assert (conversion.kind, values.holes, values.rows_with_holes) == ("unit", 2, 2)
    assert values.low == pytest.approx(0)
    assert values.high == pytest.approx(1)


# Files that are refused.


def truncate(path, size=-40):
    path.write_bytes(path.read_bytes()[:size])


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


class Payload:
    def __reduce__(self):
        return (pytest.fail, ("a file was executed",))


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.pt"])
def test_pickles_are_refused_and_not_executed(name, tmp_path):
    path, objects = tmp_path / name, np.array([[Payload()], [2]], dtype=object)
    if name == "a.npy":
        np.save(path, objects)
    elif name == "a.npz":
        np.savez(path, x=objects)
    else:
        torch.save({"x": Payload()}, path)
    message = refusal(path)
    assert "Python objects" in message or "only tensors and plain values are allowed" in message
    path.write_bytes(pickle.dumps(objects))
    refusal(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.npy", lambda path: np.save(path, BYTES)),
        ("a.npz", lambda path: np.savez(path, x=BYTES)),
        ("b.npz", lambda path: np.savez_compressed(path, x=BYTES)),
        ("a.pt", lambda path: torch.save(torch.from_numpy(BYTES), path)),
        ("a.h5", lambda path: write_h5(path)),
    ],
)
def test_damaged_files_are_refused(name, write, tmp_path):
    """Truncated, empty, or text; and a flipped bit in the formats that have checksums."""
    path = tmp_path / name
    write(path)
    load(path)
    if not name.endswith((".npy", ".h5")):
        flip(path, path.stat().st_size // 2)
        assert "cannot be read" in refusal(path)
        write(path)
    truncate(path)
    assert "cannot be read" in refusal(path)
    for content in (b"", b"1,2,3\n"):
        path.write_bytes(content)
        assert "cannot be read" in refusal(path)


def test_bytes_after_the_array_are_refused(tmp_path):
    path = saved(tmp_path, BYTES)
    path.write_bytes(path.read_bytes() + b"0")
    assert "721 bytes of values for the shape (12, 5, 4, 3), which needs 720" in refusal(path)


def test_files_that_do_not_fit_into_memory(tmp_path, monkeypatch):
    """The size is read from the headers; the sentence has both numbers, and a large .npy file stays on the disk."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 10**3)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue())
    assert "needs 1,000,000,000,000" in refusal(tmp_path / "a.npz")  # the entry is shorter than its header says
    monkeypatch.setattr(memory, "available_memory", lambda: 700)
    path = saved(tmp_path, BYTES, y=LABELS)
    assert re.search(r"x of \S+a.npz needs 0.0 GB of memory and 0.0 GB are available", refusal(path))
    monkeypatch.setattr("vaezoo.data.array_files.available_memory", lambda: 700)
    assert isinstance(read_array_file(saved(tmp_path, BYTES)).x, np.memmap)
    with pytest.raises(ConfigError, match=r"use data.in_memory=false"):
        read_array_file(saved(tmp_path, BYTES), in_memory=True)
    monkeypatch.undo()
    assert not isinstance(read_array_file(saved(tmp_path, BYTES)).x, np.memmap)
    assert memory.available_memory() > 10**8


def test_rows_on_the_disk_are_those_in_memory(tmp_path):
    """A batch of a memory map, in any order and with repeats, equals the same rows of the array."""
    array = read_array_file(saved(tmp_path, RAMP.astype("f4") / 300), in_memory=False).x
    rows = to_channels_first(array, "NHWC")
    conversion, _ = find_conversion(rows, "NHWC", "a.npy")
    index = torch.tensor([7, 0, 3, 3])
    batch = convert_numbered(rows, conversion, index)
    assert torch.equal(batch, convert_array(rows, conversion)[index])
    assert batch[0, 0, 1, 5] == np.float32(RAMP[7, 1, 5, 0]) / np.float32(300)


def test_conversion_does_not_share_memory_with_the_file():
    """Writing to a batch must not write to a file or to the array of a caller."""
    array = RAMP.astype("u1")
    x = convert_rows(array, Conversion("byte", (0, 255), ""))
    x.zero_()
    assert array.any()


@pytest.mark.parametrize(
    ("arrays", "options", "words"),
    [
        ({"a": BYTES, "b": BYTES}, {}, "holds a (12, 5, 4, 3), b (12, 5, 4, 3): choose the data with data.key=NAME"),
        ({"x": BYTES, "data": BYTES}, {}, "choose the data with data.key"),
        ({"x": BYTES, "y": LABELS, "labels": LABELS}, {}, "several labels, y, labels"),
        ({"x": BYTES}, {"key": "xs"}, "data.key=xs is not in"),
        ({"x": BYTES}, {"labels_key": "z"}, "data.labels_key=z is not in"),
        ({"x": BYTES}, {"key": "x", "labels_key": "x"}, "are both x"),
        ({"x": BYTES, "y": LABELS[:9]}, {}, "has the shape (9,), but there are 12 examples"),
        ({"x": BYTES, "y": LABELS / 2}, {}, "from 0 to 1: give whole numbers"),
        ({"x": BYTES, "y": LABELS - 2}, {}, "from -2 to 0"),
        ({"x": BYTES, "y": np.eye(12)}, {}, "is one-hot"),
        ({"x": BYTES, "y": LABELS + 0j}, {}, "type complex128"),
    ],
)
def test_keys_and_labels_that_are_refused(arrays, options, words, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    assert words in refusal(tmp_path / "a.npz", **options)


@pytest.mark.parametrize("texts", [["b", "a", "", "b"], [b"b", b"a", b"", b"b"]])
def test_texts_as_labels(texts):
    """Classes are numbered in alphabetical order; an empty text is a missing label."""
    codes, names = convert_labels(np.array(texts), 4, "y")
    assert codes.tolist() == [1, 0, -1, 1]
    assert names == ["a", "b"]


def test_labels_as_factors_floats_and_bools():
    assert convert_labels(np.array([[1, 0], [2, 5]]), 2, "y")[0].tolist() == [[1, 0], [2, 5]]
    assert convert_labels(np.array([[1], [2]]), 2, "y")[0].tolist() == [1, 2]
    assert convert_labels(np.array([1.0, np.nan]), 2, "y")[0].tolist() == [1, -1]
    assert convert_labels(np.array([True, False]), 2, "y")[0].tolist() == [1, 0]


def test_paths_that_are_no_arrays(tmp_path):
    assert "is no file" in refusal(tmp_path / "a.npy")
    (tmp_path / "a.csv").touch()
    assert "use data=table for it" in refusal(tmp_path / "a.csv")
    (tmp_path / "a.mat").touch()
    assert "save it with numpy.savez" in refusal(tmp_path / "a.mat")
    assert "leave data.key out" in refusal(saved(tmp_path, BYTES), key="x")


def test_hdf5_texts_and_values_in_other_files(tmp_path):
    """Labels may be texts of any length; a data set that names another file is refused."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = BYTES, ["cat", "dog", "gnu"] * 4
    assert load(tmp_path / "a.h5")[3] == ["cat", "dog", "gnu"]
    (tmp_path / "secret").write_bytes(b"s" * 100)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (10, 10), "u1", external=[(str(tmp_path / "secret"), 0, 100)])
    assert "lies in other files" in refusal(tmp_path / "a.h5")


def test_a_tensor_over_fewer_numbers_is_refused(tmp_path):
    """A file of a few bytes may describe a tensor of any size."""
    torch.save({"x": torch.zeros(1).expand(10**9, 4)}, tmp_path / "a.pt")
    assert "over fewer stored ones" in refusal(tmp_path / "a.pt")
    torch.save({"x": torch.ones(3, 4, dtype=torch.bfloat16, requires_grad=True)}, tmp_path / "a.pt")
    assert load(tmp_path / "a.pt")[0] == "binary"
    torch.save([torch.ones(3)], tmp_path / "a.pt")
    assert "holds a list: save a tensor" in refusal(tmp_path / "a.pt")


# Real data.


@pytest.mark.skipif(not (DATA / "small" / "pbmc_counts.npz").exists(), reason=f"no small/pbmc_counts.npz in {DATA}")
def test_counts_of_cells():
    """700 cells of 765 genes and their types: counts, read by the names of the arrays."""
    path = DATA / "small" / "pbmc_counts.npz"
    kind, x, y, names = load(path, key="counts", labels_key="cell_type")
    raw = np.load(path, allow_pickle=False)
    assert kind == "count"
    assert np.array_equal(x.numpy(), raw["counts"])
    assert [names[code] for code in y] == raw["cell_type"].tolist()
    assert "counts (700, 765)" in refusal_of_real(path)


@pytest.mark.skipif(
    not (DATA / "small" / "japanese_vowels.npz").exists(), reason=f"no small/japanese_vowels.npz in {DATA}"
)
def test_frames_of_vowels():
    """The cepstra of all frames: real vectors of 12 values."""
    path = DATA / "small" / "japanese_vowels.npz"
    kind, x, *_ = load(path, key="train_frames")
    assert kind == "real"
    assert np.array_equal(x.numpy(), np.load(path, allow_pickle=False)["train_frames"])


def refusal_of_real(path):
    with pytest.raises(ConfigError, match=r"choose the data with data.key") as error:
        load(path)
    return str(error.value)


def test_a_long_header_in_a_small_file_is_not_read(tmp_path):
    """NumPy would read a header of 100 MB before it refuses it."""
    length = 100 * 2**20
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as file:
        file.write(b"\x93NUMPY\x02\x00" + length.to_bytes(4, "little"))
        for _ in range(100):
            file.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(ConfigError, match="a.npz cannot be read"):
        read_array_file(tmp_path / "a.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21
