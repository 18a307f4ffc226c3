"""Checkpoints on disk: intact whatever happens while they are written, and never loaded if damaged."""

import hashlib
import itertools
import os
import random
import stat
import subprocess
import warnings
import zipfile
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from campaign.writer import (
    caught,
    flips,
    kills_at_lines,
    kills_inside_saves,
    limited_file_size,
    mutations,
    refused,
    same,
    save,
    serialised,
    state,
)
from conftest import RandomImages, config
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from vaezoo.instantiate import build
from vaezoo.runs import checkpoint_file
from vaezoo.runs.checkpoint import (
    CheckpointIO,
    find_checkpoint,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from vaezoo.runs.checkpoint_file import remove_leftovers


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def newest(folder):
    path, found = newest_checkpoint(folder)
    assert same(found, found["global_step"])
    return path.name, found["global_step"]


def test_last_and_previous(tmp_path):
    """The previous checkpoint is kept; the SHA-256 are those of sha256sum; no other files remain."""
    folder = tmp_path / "made" / "checkpoints"
    for number in (1, 2, 3):
        save(folder, number)
    assert same(read_checkpoint(folder / "last.ckpt"), 3)
    assert same(read_checkpoint(folder / "previous.ckpt"), 2)
    assert names(folder) == ["last.ckpt", "last.ckpt.sha256", "previous.ckpt", "previous.ckpt.sha256"]
    for name in ("last.ckpt", "previous.ckpt"):
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert (folder / f"{name}.sha256").read_text() == f"{digest}  {name}\n"
    write_checkpoint(state(4), folder / "last.ckpt")  # without a name for it, the one before is replaced
    assert newest(folder) == ("last.ckpt", 4)
    assert same(read_checkpoint(folder / "previous.ckpt"), 2)


def test_a_checkpoint_of_an_earlier_version_has_the_present_names(tmp_path):
    """Keys and classes, in both ways of reading: a resumed run compares this config with its own."""
    old = {"data": {"chunk": 3}, "scheduler": {"_target_": "vaezoo.schedulers.cosine"}}
    new = {"data": {"batches_per_step": 3}, "scheduler": {"_target_": "vaezoo.training.schedulers.cosine"}}
    write_checkpoint(state(1) | {"vaezoo_config": old}, tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt")["vaezoo_config"] == new
    _, newest_content = newest_checkpoint(tmp_path)
    assert newest_content["vaezoo_config"] == new


def test_files_are_renamed_after_they_are_on_the_disk(tmp_path, monkeypatch):
    """An open file can still be read; the data are flushed before the renaming, and the folder after it."""
    save(tmp_path, 1)
    last = tmp_path / "last.ckpt"
    before = last.read_bytes()
    steps = []

    def flush(file):
        steps.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
        steps.append(last.read_bytes() == before)

    monkeypatch.setattr(os, "fsync", flush)
    with last.open("rb") as file:
        save(tmp_path, 2)
        assert file.read() == before
    assert steps == ["file", True, "folder", False]
    with last.open("rb") as file:
        write_checkpoint(state(3), last)
        assert same(torch.load(file, weights_only=True), 2)


def test_a_file_copied_by_hand(tmp_path):
    """Without a SHA-256 it is read and replaced like any other; with the SHA-256 of another file it is refused."""
    save(tmp_path, 1)
    copy = tmp_path / "run" / "last.ckpt"
    copy.parent.mkdir()
    copy.write_bytes((tmp_path / "last.ckpt").read_bytes())
    assert same(read_checkpoint(copy), 1)
    save(copy.parent, 2)
    assert same(read_checkpoint(copy.with_name("previous.ckpt")), 1)
    copy.write_bytes((tmp_path / "last.ckpt").read_bytes())
    with pytest.raises(
        ValueError, match=r"last\.ckpt is not a readable .*SHA-256 is not the one in last\.ckpt\.sha256"
    ):
        read_checkpoint(copy)


def test_newest_is_the_one_with_the_most_steps(tmp_path, capsys):
    assert newest_checkpoint(tmp_path / "nowhere") is None
    assert newest_checkpoint(tmp_path) is None
    write_checkpoint(state(5), tmp_path / "best.ckpt")
    assert newest(tmp_path) == ("best.ckpt", 5)
    save(tmp_path, 4)
    assert newest(tmp_path) == ("best.ckpt", 5)
    save(tmp_path, 5)
    assert newest(tmp_path) == ("last.ckpt", 5)
    save(tmp_path, 6)
    (tmp_path / "last.ckpt").unlink()
    (tmp_path / "last.ckpt").mkdir()
    assert capsys.readouterr().err == ""
    assert newest(tmp_path)[1] == 5
    said = f"{tmp_path / 'last.ckpt'} is not a readable checkpoint (Is a directory): skipped\n"
    assert capsys.readouterr().err == said


def test_only_the_first_process_prints(tmp_path, monkeypatch, capsys):
    save(tmp_path, 1)
    (tmp_path / "best.ckpt").write_text("broken")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert newest(tmp_path) == ("last.ckpt", 1)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    newest(tmp_path)
    assert "best.ckpt is not a readable checkpoint" in capsys.readouterr().err


def test_a_folder_with_the_name_of_a_checkpoint_is_an_error_at_the_start(tmp_path):
    """Not when the checkpoint is first written, after hours."""
    (tmp_path / "last.ckpt").mkdir()
    with pytest.raises(
        ValueError, match=r"last\.ckpt is a folder, but a checkpoint is to be written there: move it away$"
    ):
        remove_leftovers(tmp_path)


def test_find_the_checkpoint_of_a_run_folder(tmp_path):
    for name in ("previous", "last", "best"):
        write_checkpoint(state(1), tmp_path / "checkpoints" / f"{name}.ckpt")
        assert find_checkpoint(tmp_path).stem == name


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_lines(tmp_path):
    """Killed at every third line of the writer, nothing is damaged or lost."""
    save(tmp_path, 1)
    save(tmp_path, 2)
    assert len(list(kills_at_lines(tmp_path, 2, every=3))) > 15


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_inside_saves(tmp_path):
    stages = list(itertools.islice(kills_inside_saves(tmp_path, random.Random(0), floats=20_000), 8))
    assert len(stages) == 8


def test_full_disk(tmp_path):
    """Wherever the space ends, the message has the path and the bytes needed and free; the old checkpoint loads."""
    save(tmp_path, 1, 20_000)
    save(tmp_path, 2, 20_000)
    size = (tmp_path / "last.ckpt").stat().st_size
    for limit in (0, 1, 80, 4096, size // 2, size - 1):
        assert refused(tmp_path, 3, 20_000, limited_file_size(limit))
    assert not refused(tmp_path, 3, 20_000, limited_file_size(size))


def test_unwritable(tmp_path, monkeypatch):
    """The operating system's reason is in the message; so is a disk that returns other bytes."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"^cannot save \S+/file/last\.ckpt: (Not a directory|File exists)$"):
        save(tmp_path / "file", 1)
    save(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_file, "compute_digest", lambda path: "0" * 64)
        with pytest.raises(OSError, match=r"^cannot save \S+/last\.ckpt: the disk returns other bytes"):
            save(tmp_path, 2)
    assert newest(tmp_path) == ("last.ckpt", 1)
    assert names(tmp_path) == ["file", "last.ckpt", "last.ckpt.sha256"]


def test_damaged_files_are_skipped(tmp_path):
    """Each kind of damage, with the old SHA-256, with none, and with one that fits."""
    seen = set()
    for kind, content, fits in itertools.islice(mutations(random.Random(1)), 14):
        with warnings.catch_warnings(action="error"):
            for sidecar in ("stale", "fitting") if fits else ("stale",):
                assert caught(tmp_path, content, sidecar), (kind, sidecar)
            seen.add((kind, caught(tmp_path, content, "none")))
    assert len(seen) == 14
    assert ("truncated", True) in seen


def test_flipped_bits_without_sha256(tmp_path):
    """Each is detected or changes nothing, because most of a small file is padding."""
    assert sum(flips(tmp_path, range(8), every=67)) > 100


def test_a_tensor_that_is_marked_as_a_folder(tmp_path):
    """With one bit of the archive's directory flipped, torch alone returns a tensor of uninitialized memory."""
    path = tmp_path / "alone.ckpt"
    content = bytearray(serialised(state(1)))
    path.write_bytes(content)
    for part in range(len(zipfile.ZipFile(path).namelist())):
        flipped = content.copy()
        start = -1
        for _ in range(part + 1):
            start = flipped.index(b"PK\1\2", start + 1)
        flipped[start + 38] ^= 16
        path.write_bytes(flipped)
        assert same(read_checkpoint(path), 1)


def test_values_that_cannot_be_read_are_not_written(tmp_path):
    save(tmp_path, 1)

    class Text(str):
        pass

    for value, kind in [
        (OmegaConf.create({"a": 1}), "DictConfig"),
        (Path("a"), "PosixPath"),
        (np.float64(1), "float64"),
        (np.zeros(1), "ndarray"),
        (torch.nn.Linear(1, 1), "Linear"),
        (Text("a"), "Text"),
        ({Text("a"): 1}, "Text"),
        (len, "builtin"),
    ]:
        with pytest.raises(ValueError, match=rf"last\.ckpt is left as it was: .* holds a {kind}.* in extra\.0"):
            save_with(tmp_path, extra=[value])
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match=r"not finite, in state_dict\.w$"):
            save_with(tmp_path, state_dict={"w": torch.tensor([1.0, bad])})
    with pytest.raises(ValueError, match="is not a checkpoint of a vaezoo run"):
        write_checkpoint({"state_dict": {}}, tmp_path / "last.ckpt")
    assert names(tmp_path) == ["last.ckpt", "last.ckpt.sha256"]
    assert newest(tmp_path) == ("last.ckpt", 1)
    save_with(tmp_path, callbacks={"best": {"score": torch.tensor(-torch.inf)}}, extra=(None, True, "a", [1.5, {}]))


def save_with(folder, **parts):
    write_checkpoint(state(1) | parts, folder / "last.ckpt")


def test_remove_leftovers(tmp_path):
    """Temporary files of ended processes, and of this one, are removed; all other files stay."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    stale = [f".last.ckpt.{gone.pid}.tmp", f".best.ckpt.sha256.{gone.pid}.tmp", f".last.ckpt.{os.getpid()}.tmp"]
    kept = [f".last.ckpt.{os.getppid()}.tmp", ".notes.tmp", ".x.ckpt.swp", "last.ckpt", "last.ckpt.sha256"]
    for name in (*stale, *kept):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(kept)
    remove_leftovers(tmp_path / "nowhere")


@pytest.mark.filterwarnings("ignore:.*exists and is not empty")
@pytest.mark.parametrize("name", ["factor_vae"])  # it has two optimizers
def test_lightning_saves_and_loads_with_checkpoint_io(name, tmp_path):
    """A trainer's own checkpoints are plain data, and a training can be resumed from them."""
    small = [f"model.{part}.hidden=[8]" for part in ("encoder", "decoder")]
    nets = ["model/encoder=mlp", "model/decoder=mlp"]
    node = config("model", f"model={name}", "data.shape=[1,9,7]", "model.latent_dim=3", *small, *nets)

    def fit(epochs, **kwargs):
        model = build(node, "model", optimizer=lambda p: torch.optim.Adam(p, 1e-3), seed=0)
        model.config = {"model": node, "seed": 0}
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        callbacks = [pl.callbacks.ModelCheckpoint(tmp_path, "last", enable_version_counter=False)]
        trainer = pl.Trainer(max_epochs=epochs, plugins=[CheckpointIO()], callbacks=callbacks, **quiet)
        trainer.fit(model, RandomImages((1, 9, 7)), **kwargs)
        return trainer

    fit(1)
    trainer = fit(2, ckpt_path=tmp_path / "last.ckpt")
    assert trainer.current_epoch == 2
    files = [f"{stem}.ckpt{end}" for stem in ("last", "previous") for end in ("", ".sha256")]
    assert names(tmp_path) == files
    assert newest_checkpoint(tmp_path)[1]["global_step"] == trainer.global_step
    assert read_checkpoint(tmp_path / "previous.ckpt")["global_step"] == trainer.global_step // 2
    (tmp_path / "last.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match="is not a readable checkpoint"):
        fit(3, ckpt_path=tmp_path / "last.ckpt")
    trainer.strategy.remove_checkpoint(tmp_path / "last.ckpt")
    assert names(tmp_path) == files[2:]
