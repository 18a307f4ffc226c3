"""Tests of a folder of pictures: splits, labels, bad files, the cache, and runs on it."""

import inspect
import json
import multiprocessing
import os
import re
import signal
import threading
import time

import numpy as np
import pytest
import torch
from conftest import config
from PIL import Image

from vaezoo.data import FolderData, ImageData, LazyExamples, OwnData, picture_cache
from vaezoo.data.base import DataModule
from vaezoo.data.picture_files import decode
from vaezoo.errors import ConfigError
from vaezoo.instantiate import build
from vaezoo.models import VAE
from vaezoo.runs.signals import Stopped, handling_signals

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """A folder of caches for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "vaezoo" / "pictures"


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def colors(*shape):
    return RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture
def photos(tmp_path):
    """60 pictures of two classes, and their pixels by path."""
    pixels = {f"{name}/{i:02}.png": colors(6, 5) for i in range(30) for name in ("cat", "dog")}
    for path, content in pixels.items():
        save(tmp_path / "photos" / path, content)
    return tmp_path / "photos", pixels


def ready(root, **options):
    data = FolderData(str(root), **{"batch_size": 1, **options})
    data.setup()
    return data


def by_path(data):
    """Pixels and label of each picture by its path, and the name of its set."""
    found = {}
    for name in ("train", "val", "test"):
        split = getattr(data, name)
        for path, x, y in zip(data.keys(name)["file"], split.x[:], split.y.tolist(), strict=True):
            found[path] = name, x.permute(1, 2, 0).numpy(), y
    return found


def check_all(data, pixels):
    """Each picture is in one of the sets, with its own path, pixels and label."""
    found = by_path(data)
    assert found.keys() == pixels.keys()
    for path, (_, x, y) in found.items():
        assert np.array_equal(x, pixels[path])
        assert y == path.startswith("dog")


@pytest.mark.parametrize("in_memory", [True, False])
def test_each_picture_once_with_its_path_and_label(photos, in_memory):
    root, pixels = photos
    data = ready(root, in_memory=in_memory)
    assert isinstance(data.train.x, torch.Tensor if in_memory else LazyExamples)
    assert data.shape == (3, 6, 5)
    assert data.data_kind == "byte"
    check_all(data, pixels)
    assert data.describe()["class_names"] == ["cat", "dog"]
    batch = next(iter(data.batches(data.val, 2)))
    assert torch.equal(batch.x, data.val.x[:][:2].float() / 255)


def test_order_does_not_depend_on_the_number_of_processes(photos, monkeypatch, caches):
    seen = []
    for cores in (1, 3):
        monkeypatch.setattr(picture_cache, "num_cores", lambda cores=cores: cores)
        data = ready(photos[0], on_bad="skip")
        seen.append((data.cache.rows[:], data.cache.arrays["digests"], data.keys("train")["file"].tolist()))
        for path in caches.iterdir():
            path.rename(caches.parent / f"{path.name}{cores}")
    assert np.array_equal(seen[0][0], seen[1][0])
    assert np.array_equal(seen[0][1], seen[1][1])
    assert seen[0][2] == seen[1][2]


def test_sets_are_stable_and_have_no_common_pictures(photos):
    """More files move no picture, and a copy, also in another format, is in the set of its picture."""
    root, pixels = photos
    before = {path: name for path, (name, *_) in by_path(ready(root)).items()}
    for i in range(20):
        save(root / "more" / f"{i}.png", colors(6, 5))
    for path, content in list(pixels.items())[:20]:
        save(root / "copies" / f"{path}.bmp", content)
    data = ready(root)
    after = {path: name for path, (name, *_) in by_path(data).items()}
    assert len(after) == 100
    assert {path: after[path] for path in before} == before
    for path in list(pixels)[:20]:
        assert after[f"copies/{path}.bmp"] == after[path]
    assert data.report()["duplicate files"] == 20
    assert len(set(before.values())) == 3
    assert {path: name for path, (name, *_) in by_path(ready(root, split_seed=1)).items()} != after


def test_bad_files_stop_or_are_left_out(photos, capsys):
    """The error names the first 20 with their causes; the same command with the flag decodes nothing again."""
    root, pixels = photos
    for i in range(22):
        (root / f"bad{i:02}.jpg").write_bytes(b"<html>")
    (root / "cat" / "line\nbreak.png").write_bytes(b"")
    words = r"23 of 83 picture files in data.root=.* cannot be read \(the output lists them\): repair or remove"
    with pytest.raises(ConfigError, match=words) as refusal:
        ready(root)
    assert str(refusal.value).endswith("remove them, or leave them out with data.on_bad=skip")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "files that cannot be read:"
    cause = 'it is no png, jpeg, webp, bmp, tiff or gif file: it begins with the text "<html>"'
    assert lines[1] == f"  bad00.jpg: {cause}"
    assert lines[21:] == ["  and 3 more"]
    data = ready(root, on_bad="skip")
    assert capsys.readouterr().out == "23 of 83 picture files cannot be read and are left out\n"
    check_all(data, pixels)
    check_all(ready(root, on_bad="skip", in_memory=False), pixels)
    assert data.report()["bad files"]["'cat/line\\nbreak.png'"] == "the file is empty"
    assert len(data.report()["bad files"]) == 23
    assert data.report()["pictures outside of the class folders"] == 0
    save(root / "loose.png", colors(6, 5))
    assert ready(root, on_bad="skip").report()["pictures outside of the class folders"] == 1


def test_a_file_that_crashes_its_decoder_costs_a_line(photos, monkeypatch):
    root, pixels = photos

    def decode_or_abort(path, settings):
        if path.name == "07.png" and path.parent.name == "cat":
            os.abort()
        return decode(path, settings)

    monkeypatch.setattr(picture_cache, "decode", decode_or_abort)
    data = ready(root, on_bad="skip")
    check_all(data, {path: content for path, content in pixels.items() if path != "cat/07.png"})
    assert data.report()["bad files"] == {"cat/07.png": "the process that read it crashed (SIGABRT)"}


@pytest.mark.parametrize("options", [{}, {"size": 4, "channels": 3}])
def test_only_bad_files(tmp_path, options, capsys):
    """With and without reading the headers first."""
    save(tmp_path / "a.png", colors(4, 4))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:20])
    words = r"1 of 1 picture files .* cannot be read \(a.png: Truncated File Read\): repair or remove it$"
    with pytest.raises(ConfigError, match=words):
        ready(tmp_path, on_bad="skip", **options)
    assert capsys.readouterr().err == ""  # the file is named once, in the error


def test_several_sizes(photos):
    """Without a size the error names the most frequent ones; with one, pictures are scaled."""
    root, _ = photos
    save(root / "cat" / "a.png", colors(9, 9))
    save(root / "cat" / "b.png", colors(9, 9))
    save(root / "cat" / "c.png", colors(7, 8))
    words = "have 3 sizes, most often (height x width) 6x5 (60), 9x9 (2), 7x8 (1): choose one for all with data.size=64"
    with pytest.raises(ConfigError, match=re.escape(words)):
        ready(root)
    assert ready(root, size=4).shape == (3, 4, 4)
    data = ready(root, size=[8, 4], fit="pad", background=[1, 2, 3])
    assert data.shape == (3, 8, 4)
    assert (data.train.x[:][:, :, 0] == torch.tensor([1, 2, 3]).reshape(1, 3, 1)).all()
    assert data.report()["sizes of the files"] == {"6x5": 60, "9x9": 2, "7x8": 1}
    assert (data.report()["different sizes"], data.report()["modes"]) == (3, {"RGB": 63})


def test_channels_follow_the_files(tmp_path):
    for i in range(9):
        save(tmp_path / "grey" / f"{i}.png", colors(4, 4)[..., 0])
        save(tmp_path / "both" / f"{i}.png", colors(4, 4)[..., 0])
    save(tmp_path / "both" / "color.png", colors(4, 4))
    assert ready(tmp_path / "grey").shape == (1, 4, 4)
    assert ready(tmp_path / "grey", channels=3).shape == (3, 4, 4)
    assert ready(tmp_path / "grey", background=[255, 0, 0]).shape == (3, 4, 4)
    assert ready(tmp_path / "both").shape == (3, 4, 4)
    assert ready(tmp_path / "both", channels=1).shape == (1, 4, 4)


def test_bits_are_a_kind_of_their_own(tmp_path):
    """If all pixels of all pictures are 0 or 255, nothing is drawn; one other pixel makes them bytes."""
    for i in range(9):
        save(tmp_path / f"{i}.png", 255 * RNG.integers(0, 2, (4, 4), dtype=np.uint8))
    data = ready(tmp_path)
    assert (data.data_kind, data.binarize, data.binary) == ("binary", "dynamic", True)
    assert set(data.examples(9).x.unique().tolist()) == {0.0, 1.0}
    assert data.mean.allclose(data.train.x.float().mean(0) / 255)
    save(tmp_path / "9.png", np.full((4, 4), 254, np.uint8))
    data = ready(tmp_path)
    assert (data.data_kind, data.binarize, data.binary) == ("byte", "none", False)


def test_bits_that_are_drawn_need_memory(photos):
    data = FolderData(str(photos[0]), batch_size=1, in_memory=False, binarize="dynamic")
    words = r"data.binarize=dynamic needs the images in memory: use data.binarize=none, or data.in_memory=true if"
    with pytest.raises(ConfigError, match=words):
        data.setup()


def test_too_little_memory_is_a_sentence(photos, monkeypatch):
    monkeypatch.setattr("vaezoo.data.memory.available_memory", lambda: 60 * 90 - 1)
    with pytest.raises(ConfigError, match=r"data.root=.*photos needs 0.0 GB of memory .*: use data.in_memory=false"):
        ready(photos[0], in_memory=True)


def test_large_sets_stay_on_the_disk(photos, monkeypatch, capsys):
    root, pixels = photos
    size = len(pixels) * 90
    for free, expected in ((4 * size + 1, torch.Tensor), (4 * size, LazyExamples)):
        monkeypatch.setattr("vaezoo.data.folder.available_memory", lambda free=free: free)
        data = ready(root)
        assert isinstance(data.test.x, expected)
        assert ("are read from the disk: 0 MB of memory are free" in capsys.readouterr().out) == (free == 4 * size)


def test_the_cache_is_used_until_something_changes(photos, monkeypatch, capsys):
    root, pixels = photos
    ready(root)
    assert "cache: " in capsys.readouterr().out
    original, built = picture_cache.build, []
    monkeypatch.setattr(picture_cache, "build", lambda *arguments: built.append(1) or original(*arguments))
    ready(root, val_size=0.2, split_seed=3, on_bad="skip", in_memory=False)
    assert capsys.readouterr().out.startswith("the pictures (0 MB) are read from the disk")
    assert not built

    changes = {
        "another size": lambda: ready(root, size=4),
        "other channels": lambda: ready(root, channels=1),
        "another fit": lambda: ready(root, size=4, fit="pad"),
        "another background": lambda: ready(root, background=0),
        "a range": lambda: ready(root, value_range=[0, 9]),
        "another folder": lambda: ready(root.rename(root.with_name("moved"))) and root.with_name("moved").rename(root),
        "a later time": lambda: os.utime(root / "cat" / "00.png", (1, 1)) or ready(root),
        "another name": lambda: (root / "cat" / "00.png").rename(root / "cat" / "aa.png") and ready(root),
        "a file less": lambda: (root / "cat" / "aa.png").unlink() or ready(root),
    }
    for number, (name, change) in enumerate(changes.items()):
        change()
        assert len(built) == number + 1, name
    assert by_path(ready(root)).keys() == pixels.keys() - {"cat/00.png"}


def test_nothing_happens_before_the_data_are_needed(tmp_path):
    FolderData(str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="none does not exist"):
        FolderData(str(tmp_path / "none")).setup()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "data.size=0 is not possible: use 64 or [HEIGHT,WIDTH]"),
        ({"size": [8]}, "data.size=[8] is not possible"),
        ({"size": [8, 8.5]}, "data.size=[8, 8.5] is not possible"),
        ({"size": "64"}, "data.size=64 is not possible"),
        ({"channels": 4}, "data.channels=4 is not possible: use 1, 3 or null"),
        ({"fit": "stretch"}, "data.fit=stretch is not possible: use crop or pad"),
        ({"background": 256}, "data.background=256 is not possible: use a level from 0 to 255 or [RED,GREEN,BLUE]"),
        ({"background": [1, 2]}, "data.background=[1, 2] is not possible"),
        ({"background": "white"}, "data.background=white is not possible"),
        ({"value_range": [1, 1]}, "data.value_range=[1, 1] is not possible: use [LOW,HIGH] or null"),
        ({"value_range": [0, float("inf")]}, "data.value_range=[0, inf] is not possible"),
        ({"value_range": 9}, "data.value_range=9 is not possible"),
        ({"on_bad": "ignore"}, "data.on_bad=ignore is not possible: use error or skip"),
        ({"binarize": "bits"}, "data.binarize=bits is not one of"),
        ({"batch_size": 0}, "data.batch_size must be >= 1"),
    ],
)
def test_impossible_options(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        FolderData(**options)


def test_config_has_the_defaults_of_the_classes():
    """The exception is ``batches_per_step``, which is safe for any trainer in Python."""
    defaults = {}
    for owner in (DataModule, ImageData, OwnData, FolderData):
        defaults |= {name: p.default for name, p in inspect.signature(owner.__init__).parameters.items()}
    node = config("data", "data=folder")
    assert node.keys() - {"_target_"} == defaults.keys() - {"self", "seed", "kwargs"}
    same = node.keys() - {"_target_", "batches_per_step"}
    assert {name: node[name] for name in same} == {name: defaults[name] for name in same}
    assert isinstance(build(node, "data"), FolderData)


def test_values_are_plain(photos):
    """What a checkpoint carries and what ``task=check`` prints."""
    data = ready(photos[0], value_range=[0, 5])
    for values in (data.describe(), data.report()):
        assert json.loads(json.dumps(values)) == values
    report = data.report()
    assert report["classes"] == {"cat": 30, "dog": 30}
    assert (report["picture files"], report["duplicate files"], report["cache in bytes"]) == (60, 0, 60 * 90)


@pytest.mark.parametrize("bits", [False, True])
def test_a_run_from_the_command_line(cli, tmp_path, bits):
    """The likelihood follows the pictures, the shape is recorded, and the run goes on from its folder."""
    for i in range(40):
        pixels = colors(8, 8)
        save(tmp_path / "photos" / f"{i}.png", (255 * (pixels[..., 0] > 99)).astype(np.uint8) if bits else pixels)
    common = ["data=folder", "data.root=photos", "data.batch_size=8", "logger=csv", "threads=1", "model.latent_dim=2"]
    code, _, err, run = cli(*common, "trainer.max_epochs=1")
    assert code == 0, err
    recorded = json.loads((run / "summary.json").read_text())
    assert recorded["scored"] == ("bits" if bits else "levels")
    code, _, err, _ = cli(f"run={run}", "trainer.max_epochs=2", "logger=csv")
    assert code == 0, err
    resumed = json.loads((run / "summary.json").read_text())
    assert (recorded["epochs"], resumed["epochs"]) == (1, 2)
    assert resumed["config"]["data"]["shape"] == [1 if bits else 3, 8, 8]
    assert resumed["config"]["data"]["root"] == str(tmp_path / "photos")


def test_a_run_on_bad_files_is_one_sentence(cli, tmp_path):
    save(tmp_path / "photos" / "a.png", colors(8, 8))
    (tmp_path / "photos" / "b.png").write_bytes(b"")
    code, _, err, _ = cli("data=folder", "data.root=photos", "logger=csv")
    assert code == 1
    assert err.startswith("error: 1 of 2 picture files in data.root=")
    assert err.count("b.png: the file is empty") == err.count("\n") == 1


def test_training_from_the_disk_equals_training_in_memory(photos):
    """The same batches in the same order, so the same weights to the bit."""
    import lightning.pytorch as pl

    weights = []
    for in_memory in (True, False):
        data = FolderData(str(photos[0]), batch_size=8, in_memory=in_memory)
        data.setup()
        torch.manual_seed(0)
        model = VAE(data.shape, latent_dim=2, likelihood=build(data.likelihood_config(), "model.likelihood"))
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        trainer.fit(model, data)
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(*weights)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # processes that decode change their own handlers only


def test_a_signal_ends_decoding_at_once(photos, monkeypatch, caches):
    """The processes that decode end, and no incomplete cache is left."""

    def decode_slowly(path, settings):
        time.sleep(10)
        return decode(path, settings)

    monkeypatch.setattr(picture_cache, "decode", decode_slowly)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    start = time.monotonic()
    with pytest.raises(Stopped), handling_signals():
        ready(photos[0])
    assert time.monotonic() - start < 10
    assert not multiprocessing.active_children()
    assert [path.suffix for path in caches.iterdir()] == [".lock"]


def test_pictures_as_arrays_are_encoded_as_in_the_training(photos):
    """Arrays of bytes (N, H, W, 3), as Pillow and NumPy make them; another shape is refused."""
    data = ready(photos[0], size=8, channels=3)
    model = VAE(data.shape, latent_dim=2, likelihood=build(data.likelihood_config(), "model.likelihood")).eval()
    model.data_description = data.describe()
    pixels = data.test.x[:]
    expected = model.encode(pixels.float() / 255)
    assert torch.equal(model.encode(pixels.movedim(1, -1).numpy()), expected)
    with pytest.raises(ValueError, match="expected a batch of shape"):
        model.encode(pixels.movedim(1, -1)[:, :, :4].numpy())
