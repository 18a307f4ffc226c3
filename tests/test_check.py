"""The task ``check``: what it says of data is right, and it trains nothing."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import RandomImages
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from vaezoo.data import DataModule, Split
from vaezoo.data.statistics import describe_data
from vaezoo.models import VAE
from vaezoo.tasks.check import describe_few_steps, lines, report, shorten


class Rows(DataModule):
    """Rows of real numbers with holes, duplicates and labels."""

    noun, data_kind = "row", "real"

    def __init__(self):
        super().__init__(val_size=10, batch_size=8)

    def read(self):
        x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        x[:, 2] = 4.0
        x[3, 0] = x[8, 0] = x[8, 1] = math.nan
        test = torch.cat([x[20:25], 100 + x[:7]])
        return Split(x, torch.tensor([0, 1, 1, -1, 2] * 10)), Split(test, torch.zeros(12).long())


def test_numbers_of_a_table():
    data = Rows()
    data.setup()
    found = describe_data(data)
    x = torch.cat([data.train.x, data.val.x, data.test.x])
    assert found["numbers"] == {"train": 40, "val": 10, "test": 12}
    assert found["looked_at"] == 62
    assert found["missing"] == pytest.approx(float(x.isnan().double().mean()))
    assert found["missing_examples"] == pytest.approx(3 / 62)  # the rows 3 and 8, and row 3 in the test set
    values = x[~x.isnan()].double()
    assert found["range"] == [float(values.min()), float(values.max())]
    assert found["mean"] == pytest.approx(float(values.mean()))
    assert found["std"] == pytest.approx(float(values.std()))
    assert found["duplicates"] == 5
    assert found["shared"] == sum(bool((row == data.train.x).all(1).any()) for row in data.test.x)
    assert found["constant_entries"] == 0  # 4 in the training rows, 104 in test rows
    counts = {str(i): int((data.train.y == i).sum()) for i in range(3)}
    assert found["classes"] == {"no label": int((data.train.y < 0).sum()), **counts}
    assert found["bytes"] == 40 * 3 * 4


def test_few_examples_stand_for_many():
    data = RandomImages((1, 4, 4), num=400)
    data.setup()
    found = describe_data(data, most=30)
    assert found["looked_at"] == 30 + 20 + 30
    assert found["bytes"] == 380 * 16


def test_check_of_digits(cli):
    """One screen, a file with all numbers, a sheet of 32 training images; no checkpoint."""
    code, out, err, folder = cli("task=check", "model=conv_vae", "logger=csv")
    assert code == 0, err
    assert sorted(path.name for path in folder.iterdir() if path.name[0] != ".") == [
        "check.json", "check.png", "summary.json",
    ]  # fmt: skip
    found = json.loads((folder / "check.json").read_text())
    assert found["numbers"] == {"train": 1257, "val": 180, "test": 360}
    assert (found["kind"], found["shape"], found["classes"]["3"]) == ("binary", [1, 8, 8], 132)
    assert found["seconds_per_epoch"] == pytest.approx(1257 / found["images_per_second"], rel=0.2, abs=0.1)
    lines = out.splitlines()
    assert lines[0] == "Digits: 1,797 images of shape 1x8x8 (1,257 training, 180 validation, 360 test)"
    assert "binary data, data.binarize=dynamic; log p(x | z): Bernoulli" in lines[1]
    assert lines[1].endswith(f"; model: conv_vae, {found['parameters']:,} parameters")
    assert not any(line.startswith("warning") for line in lines)  # 1,257 images in batches of 128 are 10 steps
    assert any(line.startswith("training: ") and "images/s" in line for line in lines)
    assert len(lines) <= 24
    sheet = np.asarray(Image.open(folder / "check.png"))
    assert sheet.shape[2] == 3
    assert {0, 255} <= set(np.unique(sheet).tolist())


def test_check_of_a_table_has_a_range_for_each_column_only(cli, tmp_path):
    """One range over the ages, counts and codes of a table would mean nothing."""
    rows = "".join(f"{20 + i / 3:.2f},{i % 14},{'low' if i % 3 else 'high'}\n" for i in range(190))
    (tmp_path / "t.csv").write_text(f"age,children,grade\n{rows}")
    code, out, err, folder = cli("task=check", "data=table", "data.path=t.csv", "logger=none")
    assert code == 0, err
    assert "values:" not in out
    assert "age: real (numbers that are not whole): 20 ... 83" in out
    found = json.loads((folder / "check.json").read_text())
    num = found["numbers"]["train"]
    assert found["steps_per_epoch"] == math.ceil(num / 64) < 10
    warning = f"warning: {num} training rows and batches of 64 are 3 optimizer steps per epoch: data.batch_size=8 makes"
    assert f"{warning} {math.ceil(num / 8)}\n" in out


@pytest.mark.parametrize(
    ("num", "batch_size", "batches_per_step", "expected"),
    [
        (152, 128, 1, "are 2 optimizer steps per epoch: data.batch_size=8 makes 19"),
        (100, 128, 1, "are 1 optimizer step per epoch: data.batch_size=8 makes 13"),
        (152, 32, 4, "are 2 optimizer steps per epoch: data.batch_size=2 makes 19"),
        (152, 16, 1, None),
        (5, 1, 1, None),
    ],
)
def test_warning_of_few_steps(num, batch_size, batches_per_step, expected):
    examples = batch_size * batches_per_step
    steps = math.ceil(num / examples)
    found = {
        "noun": "row", "numbers": {"train": num}, "batch_size": batch_size, "examples_per_step": examples,
        "steps_per_epoch": steps,
    }  # fmt: skip
    warning = f"warning: {num} training rows and batches of {batch_size} {expected}"
    assert describe_few_steps(found) == ([warning] if expected else [])


def test_numbers_are_written_for_people():
    """One is singular, short times have digits, and yes is no number."""
    found = {
        "noun": "row", "class": "Rows", "shape": [3], "choice": "Rows", "model": "mlp_vae", "parameters": 5,
        "numbers": {"train": 1, "val": 0, "test": 0}, "looked_at": 1, "kind": "real", "range": [], "missing": 0,
        "about_these_data": {"held in memory": True}, "duplicates": 0, "shared": 0, "constant_entries": 0,
        "classes": {}, "rows_per_second": 50.0, "epochs": 1, "peak_memory_mb": {"process": 9.0}, "batch_size": 1,
        "examples_per_step": 1, "steps_per_epoch": 1,
    }  # fmt: skip
    text = "\n".join(lines(found, []))
    assert "Rows: 1 row of shape 3 (1 training, " in text
    assert "held in memory: yes" in text
    assert "50 rows/s, 0.02 s for an epoch and 0.02 s for 1 epoch; 9 MB" in text
    found |= {"epochs": 9000}
    assert "0.02 s for an epoch and 3 min for 9,000 epochs" in "\n".join(lines(found, []))
    assert shorten(False) == "no"


def test_the_likelihood_in_the_header_of_a_run(cli):
    """It stands beside the kind of data; an override changes it."""
    small = ["trainer.max_epochs=1", "callbacks.images=null", "logger=none"]
    code, _, err, folder = cli(*small, "data.binarize=none")
    assert code == 0, err
    line = "byte data; log p(x | z): MixtureOfDiscretizedLogistics (model/likelihood=NAME changes it)"
    assert line in err.splitlines()
    config = json.loads((folder / "summary.json").read_text())["config"]
    assert config["model"]["likelihood"]["_target_"] == "vaezoo.families.MixtureOfDiscretizedLogistics"
    code, _, err, _ = cli(*small, "model/likelihood=continuous_bernoulli")
    assert "byte data; log p(x | z): ContinuousBernoulli" in err


def test_only_the_first_of_several_processes_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert report({"run_dir": str(tmp_path)}, VAE((3,), 2), Rows(), {}) is None
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out == ""


class HalfObserved(Rows):
    """Rows whose first entry is missing in the first row, else constant, and whose second entry is never observed."""

    def read(self):
        x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        x[:, 0], x[:, 1] = 7.0, math.nan
        x[::2, 0] = math.nan
        return Split(x, torch.zeros(50).long()), Split(x[:12], torch.zeros(12).long())


def test_missing_entries_are_neither_equal_nor_different():
    data = HalfObserved()
    data.setup()
    assert describe_data(data)["constant_entries"] == 2


@pytest.mark.parametrize(
    ("shape", "likelihood"),
    [((1, 8, 8), "MixtureOfDiscretizedLogistics"), ((3, 8, 8), "CoupledMixtureOfLogistics")],
)
def test_default_likelihood_of_bytes(shape, likelihood):
    data = RandomImages(shape, binarize="none")
    data.setup()
    assert data.likelihood_config() == {"_target_": f"vaezoo.families.{likelihood}"}


def test_names_in_a_file_do_not_change_the_terminal(cli, tmp_path):
    """A column may be named by codes of the terminal."""
    rows = "".join(f"{i}.5,{i % 3}\n" for i in range(60))
    (tmp_path / "t.csv").write_text(f"a\x1b[31m,b\n{rows}")
    arguments = ("data=table", "data.path=t.csv", "logger=none")
    code, out, err, _ = cli("task=check", *arguments, "data.batch_size=8")
    assert code == 0, err
    assert "a\\x1b[31m: real" in out
    code, _, err, _ = cli(*arguments, "data.types={c: real}")
    assert code == 1
    assert "\x1b" not in out + err
