"""Tests of the data module of arrays: splits, kinds, binarization, and what a model and a user get."""

import json

import numpy as np
import pytest
import torch
from conftest import DATA, config

from vaezoo.data import ArrayData, LazyExamples
from vaezoo.errors import ConfigError
from vaezoo.families import CoupledMixtureOfLogistics

RNG = np.random.default_rng(0)
FACES = RNG.integers(0, 256, (90, 8, 6, 3), dtype=np.uint8)
NAMES = np.array(["cat", "dog", "gnu"])[np.arange(90) % 3]


def make(folder, array=FACES, labels=None, **options):
    path = folder / "a.npy"
    if labels is None:
        np.save(path, array)
    else:
        path = folder / "a.npz"
        np.savez(path, x=array, y=labels)
    return ArrayData(path=str(path), **{"batch_size": 16, **options})


def ready(data):
    data.setup()
    return data


def splits_of(data):
    return data.train, data.val, data.test


def test_each_image_is_in_one_split_with_its_label(tmp_path):
    """All images and labels of the file, each once; an image stays in its split when others are removed."""
    data = ready(make(tmp_path, labels=NAMES))
    x = torch.cat([split.x for split in splits_of(data)])
    y = torch.cat([split.y for split in splits_of(data)])
    assert x.shape == (90, 3, 8, 6)
    found = {bytes(image.numpy()): data.class_names[label] for image, label in zip(x, y, strict=True)}
    assert found == {bytes(face.transpose(2, 0, 1).copy()): name for face, name in zip(FACES, NAMES, strict=True)}
    assert min(len(split.x) for split in splits_of(data)) >= 1
    fewer = ready(make(tmp_path, FACES[:60]))
    test = {bytes(image.numpy()) for image in data.test.x}
    assert {bytes(image.numpy()) for image in fewer.test.x} <= test


def test_equal_rows_are_on_one_side(tmp_path):
    data = ready(make(tmp_path, np.concatenate([FACES, FACES])))
    sets = [{bytes(image.numpy()) for image in split.x} for split in splits_of(data)]
    assert [len(split.x) for split in splits_of(data)] == [2 * len(images) for images in sets]
    assert len(sets[0] | sets[1] | sets[2]) == 90


def test_what_the_model_sees(tmp_path):
    """Bytes are divided by 255 when a batch is made."""
    data = ready(make(tmp_path))
    batch = next(iter(data.val_dataloader()))
    assert batch.x.dtype == torch.float32
    assert torch.equal(batch.x, data.val.x.float() / 255)
    assert batch.y.tolist() == [-1] * len(batch.x)
    assert data.mean.allclose(data.train.x.float().mean(0) / 255, atol=1e-6)
    assert (data.noun, data.data_kind, data.shape) == ("image", "byte", (3, 8, 6))


@pytest.mark.parametrize(
    ("array", "options", "kind", "stored", "noun", "likelihood"),
    [
        (FACES, {}, "byte", torch.uint8, "image", "CoupledMixtureOfLogistics"),
        (FACES, {"layout": "ND", "kind": "byte"}, "byte", torch.uint8, "example", "DiscretizedLogistic"),
        (FACES > 99, {}, "binary", torch.float32, "image", "Bernoulli"),
        ((FACES > 99).astype("u1") * 255, {}, "binary", torch.uint8, "image", "Bernoulli"),
        (FACES / 300, {}, "unit", torch.float32, "image", "ContinuousBernoulli"),
        (FACES / 300, {"kind": "real"}, "real", torch.float32, "image", "SharedScaleNormal"),
        (FACES.reshape(90, -1) / 3, {}, "real", torch.float32, "example", "SharedScaleNormal"),
        (FACES.reshape(90, -1).astype(int), {}, "count", torch.int64, "example", "NegativeBinomial"),
    ],
)
def test_kinds(array, options, kind, stored, noun, likelihood, tmp_path):
    """The kind is known before ``setup``; the default likelihood follows it, and batches have the type of the kind."""
    data = make(tmp_path, array, **options)
    assert data.data_kind == kind
    assert data.resolve_binarize(None) == ("dynamic" if stored is torch.uint8 and kind == "binary" else "none")
    assert data.data_kind == kind
    assert data.likelihood_config() == {"_target_": f"vaezoo.families.{likelihood}"}
    data = ready(data)
    assert data.noun == noun
    assert data.train.x.dtype == stored
    x = next(iter(data.val_dataloader())).x
    assert x.dtype == (torch.int64 if kind == "count" else torch.float32)
    if kind in ("binary", "byte", "unit"):
        assert 0 <= x.min() <= x.max() <= 1
    if kind == "binary":
        assert x.unique().tolist() == [0, 1]
    assert data.describe()["kind"] == kind


def test_bytes_are_binarized_if_the_likelihood_needs_bits(tmp_path):
    """As for the bundled images: training bits are drawn in each epoch, and other kinds of data stay as they are."""
    data = make(tmp_path)
    assert data.resolve_binarize({"binary"}) == "dynamic"
    data = ready(data)
    assert data.data_kind == "binary"
    assert data.val.x.unique().tolist() == [0, 1]
    x = data.examples(60).x
    assert x.unique().tolist() == [0, 1]
    assert abs(x.mean() - data.train.x.float().mean() / 255) < 0.03
    real = make(tmp_path, FACES / 300)
    assert real.resolve_binarize({"binary"}) == "none"
    assert real.data_kind == "unit"


def test_missing_values(tmp_path):
    """NaN is a hole: counted, reported, kept; the mean leaves it out."""
    array = FACES.reshape(90, -1) / 3
    array[5, 7] = array[5, 8] = array[9, 7] = np.nan
    data = make(tmp_path, array)
    data.inspect()
    assert data.has_missing
    data = ready(data)
    assert sum(int(split.x.isnan().sum()) for split in splits_of(data)) == 3
    assert data.mean.allclose(data.train.x.nanmean(0), atol=1e-4)
    assert data.report()["missing values"] == 3
    assert data.report()["examples with missing values"] == 2
    assert not ready(make(tmp_path)).has_missing
    counts = ready(make(tmp_path, np.where(np.isnan(array), np.nan, np.round(array)), kind="count"))
    assert counts.has_missing
    assert torch.cat([split.x for split in splits_of(counts)]).min() == -1


def test_an_array_on_the_disk_gives_the_same_batches(tmp_path, capsys):
    """The splits and the batches do not depend on whether the array is held in memory."""
    here, there = (ready(make(tmp_path, in_memory=in_memory)) for in_memory in (True, False))
    assert isinstance(there.train.x, LazyExamples)
    assert "are read from" in capsys.readouterr().out
    for a, b in zip(here.train_dataloader().batches, there.train_dataloader().batches, strict=True):
        assert torch.equal(a.x, b.x)
    assert torch.equal(here.mean, there.mean)
    with pytest.raises(ConfigError, match=r"data.binarize=static needs the images in memory"):
        ready(make(tmp_path, in_memory=False, binarize="static"))


def test_report_and_description_are_plain_values(tmp_path):
    data = ready(make(tmp_path, FACES.astype("f4") * 2 - 7, labels=NAMES, value_range=[-7, 503]))
    report = data.report()
    assert json.loads(json.dumps([report, data.describe()]))
    assert report["values"] == [-7, 503]
    assert report["classes"] == {"cat": 30, "dog": 30, "gnu": 30}
    assert report["kind"] == "byte (data.value_range=[-7, 503]: all values are k / 255)"
    assert data.describe()["class_names"] == ["cat", "dog", "gnu"]
    some = ready(make(tmp_path, labels=np.where(NAMES == "dog", "", NAMES)))
    assert some.report()["classes"] == {"cat": 30, "gnu": 30}


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (FACES, {}),
        (FACES[..., 0], {}),
        (FACES.transpose(0, 3, 1, 2) / 100 - 3, {"value_range": [-3, 0]}),
        (FACES.reshape(90, -1) / 7, {}),
        (FACES.reshape(90, -1).astype(int), {}),
    ],
)
def test_examples_are_written_as_they_were_in_the_file(array, options, tmp_path):
    """In the layout and the units of the file."""
    data = ready(make(tmp_path, array, **options))
    batch = next(iter(data.batches(data.train, 10)))
    (file,) = data.save_examples(batch.x, tmp_path / "samples")
    found = np.load(file) if file.suffix == ".npy" else np.loadtxt(file, delimiter=",", skiprows=1)
    if file.suffix == ".csv":
        assert file.read_text().splitlines()[0] == ",".join(f"x{i}" for i in range(array.shape[1]))
    assert data.shows_draws == (data.data_kind == "count")  # the mean of counts is no count
    assert found.shape == (10, *array.shape[1:])
    rows = {tuple(np.round(row.ravel(), 4)) for row in array}
    assert all(tuple(np.round(row.ravel(), 4)) in rows for row in found.astype(float))


def test_pictures_are_between_black_and_white(tmp_path):
    """Values that are no pixels are scaled from the least to the largest; missing values are gray."""
    array = FACES / 100 - 1
    array[3, 0, 0, 0] = np.nan
    data = ready(make(tmp_path, array, kind="real"))
    pictures = torch.cat([data.to_images(split.x) for split in splits_of(data)])
    assert pictures.min() == 0
    assert pictures.max() == pytest.approx(1)
    assert (pictures == 0.5).any()
    bytes_ = ready(make(tmp_path, FACES))
    expected = bytes_.to_images(next(iter(bytes_.val_dataloader())).x)
    reals = ready(make(tmp_path, FACES / 100 - 1, kind="real"))
    scaled = torch.cat([reals.to_images(split.x) for split in splits_of(reals)])
    assert all((scaled - image).abs().flatten(1).amax(1).min() < 1e-5 for image in expected)
    assert ready(make(tmp_path, FACES.reshape(90, -1) / 3)).to_images(torch.zeros(2, 144)) is None


def test_a_file_that_is_not_named():
    with pytest.raises(ConfigError, match=r"data.path is missing"):
        ArrayData().setup()


def test_config_has_the_defaults_of_the_class(tmp_path):
    node = config("data", "data=array", f"data.path={tmp_path}/a.npy")
    assert node.pop("_target_") == "vaezoo.data.ArrayData"
    data, default = ArrayData(**node), ArrayData(path=node["path"], batches_per_step=8)
    node["known_shape"] = node.pop("shape")  # to ask for the shape would read the data
    for name in node:
        assert getattr(data, name) == getattr(default, name), name


def test_train_a_model_on_a_file(cli, tmp_path):
    """One command, and the likelihood follows the data."""
    np.savez(tmp_path / "faces.npz", x=FACES, y=NAMES)
    code, _out, error, run = cli(
        "data=array", "data.path=faces.npz", "data.batch_size=16", "model=mlp_vae", "trainer.max_epochs=1", "logger=csv"
    )
    assert code == 0, error
    summary = json.loads((run / "summary.json").read_text())
    assert np.isfinite(summary["test"]["elbo"])
    assert CoupledMixtureOfLogistics.__name__ in json.dumps(summary["config"]["model"])
    assert summary["config"]["data"]["shape"] == [3, 8, 6]


@pytest.mark.skipif(not (DATA / "small" / "pbmc_counts.npz").exists(), reason=f"no small/pbmc_counts.npz in {DATA}")
def test_cells():
    """700 cells with their types."""
    path = DATA / "small" / "pbmc_counts.npz"
    data = ready(ArrayData(path=str(path), key="counts", labels_key="cell_type"))
    assert data.data_kind == "count"
    assert sum(len(split.x) for split in splits_of(data)) == 700
    assert sum(data.report()["classes"].values()) == 700
    assert data.train.x.dtype == torch.int64
