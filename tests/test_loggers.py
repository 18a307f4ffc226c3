"""Loggers that an interrupted run goes on with as if nothing had happened."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import wandb
from conftest import REPO, command
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_cli import SHORT

from vaezoo import loggers
from vaezoo.loggers import (
    CSV,
    SHOWN,
    DisabledOnError,
    TensorBoard,
    WandB,
    call_or_disable,
    chart_rows,
    heat_map,
    log_evaluation,
    wandb_logger,
)
from vaezoo.runs.signals import Stopped

# What a run of two epochs of 4 steps logs: after each second step, after each epoch, and in the test.
ROWS = [
    (1, {"step/elbo": -9.5, "step/loss": 9.5}),
    (3, {"step/elbo": -8.25, "step/loss": 8.25}),
    (3, {"epoch": 0, "val/elbo": -8.0}),
    (3, {"epoch": 0, "train/elbo": 1 / 3}),
    (5, {"step/elbo": -7.0, "step/loss": 7.0}),
    (7, {"step/elbo": -6.0, "step/loss": 6.0}),
    (7, {"epoch": 1, "val/elbo": -6.5}),
    (7, {"epoch": 1, "train/elbo": float("nan")}),
    (8, {"epoch": 2, "test/elbo": -6.125}),
]


def log(logger, rows):
    for step, row in rows:
        logger.log_metrics(row, step=step)


def written(folder):
    return (folder / "metrics.csv").read_bytes()


@pytest.fixture
def whole(tmp_path):
    """The file of an uninterrupted run."""
    (tmp_path / "whole").mkdir()
    log(CSV(str(tmp_path / "whole")), ROWS)
    return written(tmp_path / "whole")


def test_the_file_is_that_of_lightnings_logger(tmp_path, whole):
    logger = CSVLogger(str(tmp_path), name="", version="")
    log(logger, ROWS)
    logger.save()
    assert written(tmp_path) == whole


def test_every_row_is_on_disk_at_once(tmp_path):
    logger = CSV(str(tmp_path))
    for number, (step, row) in enumerate(ROWS, 1):
        logger.log_metrics(row, step=step)
        table = list(csv.DictReader((tmp_path / "metrics.csv").open()))
        assert len(table) == number
        assert {name: cell for name, cell in table[-1].items() if cell} == {
            name: str(value) for name, value in (row | {"step": step}).items()
        }


@pytest.mark.parametrize("saved", range(0, 9, 2))
@pytest.mark.parametrize("torn", [b"", b"1,-8.", b"3,,,,,\r"])
def test_a_log_that_was_interrupted_anywhere_ends_the_same(tmp_path, whole, saved, torn):
    """The checkpoint is after any step, and the kill at any later row, also before or within that step's validation."""
    # What is logged after a checkpoint of its step is logged once more: a validation, and an epoch's end.
    after = [row for row in ROWS if row[0] >= saved or (row[0] == saved - 1 and "epoch" in row[1])]
    for logged in range(len(ROWS) - len(after), len(ROWS) + 1):
        log(CSV(str(tmp_path)), ROWS[:logged])
        with (tmp_path / "metrics.csv").open("ab") as file:
            file.write(torn)
        again = CSV(str(tmp_path))
        again.rewind(saved)
        log(again, after)
        assert written(tmp_path) == whole


def test_a_new_run_starts_a_new_file(tmp_path):
    log(CSV(str(tmp_path)), ROWS)
    log(CSV(str(tmp_path)), ROWS[:1])
    assert len(written(tmp_path).splitlines()) == 2


def test_tensorboard_hides_events_after_the_resumed_step(tmp_path):
    for resume, steps in ((None, range(6)), (3, range(3, 5))):
        logger = TensorBoard(str(tmp_path), name="", version="")
        if resume is not None:
            logger.rewind(resume)
        for step in steps:
            logger.log_metrics({"a": step + (0.5 if resume else 0)}, step=step)
        logger.finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("a")] == [(0, 0), (1, 1), (2, 2), (3, 3.5), (4, 4.5)]


def test_wandb_continues_its_run(tmp_path):
    """A resumed run has the id of the run in its folder. A new run in this folder or in an empty one has another."""
    ids = []
    for resume in (None, "auto", None):
        ids.append(wandb_logger(str(tmp_path), resume=resume).experiment.id)
        wandb.finish()
    assert ids[0] == ids[1] != ids[2]
    assert wandb_logger(str(tmp_path / "empty"), resume="auto").experiment.id not in ids
    wandb.finish()


class Broken(DisabledOnError, CSVLogger):
    """A logger whose backend fails."""

    @property
    def experiment(self):
        raise ConnectionResetError("Connection lost")


def test_a_logger_that_fails_is_switched_off(tmp_path, capsys):
    """It prints one message, whatever is logged next. An interrupt by the user is not caught."""
    logger = Broken(str(tmp_path))
    for _ in range(2):
        logger.log_metrics({"a": 1.0}, step=0)
        logger.log_hyperparams({"a": 1})
        logger.save()
        logger.finalize("success")
    call_or_disable(logger, pytest.fail, "is called though the logger is off")
    assert logger.disabled
    told = "Broken has failed and is switched off (Connection lost): the run goes on without it\n"
    assert capsys.readouterr().err == told

    def stopped():
        raise Stopped(15)

    with pytest.raises(Stopped):
        call_or_disable(Broken(str(tmp_path)), stopped)


KILLER = """
import os, signal, lightning.pytorch as pl
from pathlib import Path

class Killer(pl.Callback):
    def on_train_epoch_end(self, trainer, model):
        for task in Path(f"/proc/{os.getpid()}/task").iterdir():
            for child in (task / "children").read_text().split():
                if "wandb" in Path(f"/proc/{child}/cmdline").read_text() and trainer.current_epoch == 0:
                    os.kill(int(child), signal.SIGKILL)
                    Path("killed").touch()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the service is found in /proc")
def test_a_run_continues_when_its_wandb_service_is_killed(tmp_path, monkeypatch):
    """The run prints one message, its exit code is 0, and metrics.csv is complete."""
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # that of other tests
    (tmp_path / "killer.py").write_text(KILLER)
    words = ("trainer.max_epochs=3", "model.encoder.hidden=[8]", "callbacks.images.every_n_epochs=1", "threads=1",
             "allow_packages=[killer]", "+callbacks.killer._target_=killer.Killer", "hydra.run.dir=D")  # fmt: skip
    done = command(*words, cwd=tmp_path, PYTHONPATH=os.pathsep.join([str(REPO), str(tmp_path)]))
    assert (tmp_path / "killed").exists()
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("WandB has failed and is switched off (") == 1
    assert "Traceback" not in done.stderr
    rows = list(csv.DictReader((tmp_path / "D" / "metrics.csv").open()))
    assert sum(bool(row["val/elbo"]) for row in rows) == 3
    assert '"status": "completed"' in (tmp_path / "D" / "summary.json").read_text()


def test_logging_continues_without_wandb_if_it_cannot_start(tmp_path, monkeypatch, capsys):
    def dead(**_):
        raise wandb.Error("no service")

    monkeypatch.setattr(wandb, "init", dead)
    assert wandb_logger(str(tmp_path)) is None
    assert "W&B cannot log offline either (no service): logging without W&B" in capsys.readouterr().err


def test_a_file_of_an_earlier_version_goes_on_with_the_present_names(tmp_path):
    """The speed has one column, with the old rows and the new ones."""
    (tmp_path / "metrics.csv").write_text("step,step/elbo,step/images_per_second\n0,-9.0,50.0\n")
    logger = CSV(str(tmp_path))
    logger.rewind(1)
    logger.log_metrics({"step/elbo": -8.0, "step/examples_per_second": 60.0}, step=1)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "step,step/elbo,step/examples_per_second", "0,-9.0,50.0", "1,-8.0,60.0",
    ]  # fmt: skip


# What W&B and TensorBoard show.

TENSORBOARD = "{_target_: vaezoo.loggers.TensorBoard, save_dir: '${run_dir}', name: '', version: tensorboard}"


def read_wandb(folder):
    """Return the records of an offline W&B run, by type, each a list."""
    words = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    records = {}
    for line in done.stdout.splitlines():
        record = json.loads(line)
        records.setdefault(record["type"], []).append(record[record["type"]])
    return records


def summary_of(records):
    return {name: value for part in records["summary"] for name, value in part.get("update", {}).items()}


def read_events(folder):
    return EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "histograms": 0}).Reload()


def test_what_wandb_and_tensorboard_show(cli):
    """A run with 64 latent dimensions, read back from the disk: x axis, groups, number of panels, pictures,
    and the numbers of an evaluation, which are added to it.
    """
    words = (*SHORT, "model.latent_dim=64", "callbacks.images.every_n_epochs=1", "trainer.log_every_n_steps=10")
    artifact = ("logger.wandb.artifact=true", f"+logger.tensorboard={TENSORBOARD}")
    code, _out, err, run = cli(*words, *artifact)
    assert code == 0, err
    (folder,) = (run / "wandb").glob("offline-run-*")
    records = read_wandb(folder)

    # The x axis of all that is logged is the optimizer step.
    metrics = {metric.get("name", metric.get("glob_name")): metric for metric in records["metric"]}
    assert metrics["*"]["step_metric"] == "trainer/global_step"
    named = {name: metric for name, metric in metrics.items() if name not in ("*", "trainer/global_step")}
    assert all(metric["step_metric"] == "trainer/global_step" for metric in named.values())
    history = [part["item"] for part in records["history"]]
    steps = [item["trainer/global_step"] for item in history]
    assert steps == sorted(steps) or max(b - a for a, b in zip(steps[1:], steps, strict=False)) <= 1
    assert max(steps) == 39  # 40 steps, counted from 0
    assert [item["trainer/global_step"] for item in history if "val/elbo" in item] == [19, 39]
    assert [item["trainer/global_step"] for item in history if "optimization/loss" in item] == [9, 19, 29, 39]

    # Panels: one for each name that is not hidden, in a section for each group.
    keys = {name.partition(".")[0] for item in history for name in item if not name.startswith("_")}
    panels = {key for key in keys if not metrics.get(key, {}).get("options", {}).get("hidden")}
    assert {panel.partition("/")[0] for panel in panels} == {"train", "val", "optimization", "images"}
    assert len(panels) <= len(keys) <= 25
    assert {"val/elbo", "val/kl_per_dim", "images/samples", "optimization/learning_rate", "train/kl"} <= panels

    # The KL of each dimension is one heat map a validation. Its sum is the KL.
    rows = [row for row in csv.DictReader((run / "metrics.csv").open()) if row["val/elbo"]]
    maps = [item for item in history if "val/kl_per_dim.values" in item]
    for item, row in zip(maps, rows, strict=True):
        assert item["val/kl_per_dim._type"] == "histogram"
        assert item["val/kl_per_dim.bins"] == list(range(65))
        assert item["val/kl_per_dim.values"] == [float(row[f"val/kl_dim/{d:03d}"]) for d in range(64)]

    # The table of runs: the best validation, the test numbers, and what was trained on what.
    values = summary_of(records)
    assert values["val/elbo"] == {"max": max(float(row["val/elbo"]) for row in rows)}
    assert values["val/loss"] == {"min": min(float(row["val/loss"]) for row in rows)}
    summary = json.loads((run / "summary.json").read_text())
    assert values["test/elbo"] == summary["test"]["elbo"]
    config = {name: value for part in records["config"] for name, value in part["update"].items()}
    facts = {"dataset": "Digits", "parameters": summary["parameters"], "git_commit": summary["git_commit"]}
    assert facts.items() <= config.items()
    assert set(records["run"][0]["tags"]) == {"digits", "mlp_vae"}
    (stored,) = records["artifact"]
    assert stored["type"] == "model"
    assert stored["manifest"]["contents"][0]["path"] == "best.ckpt"
    pictures = [folder / "files" / part["path"] for files in records["files"] for part in files["files"]]
    pictures = [path for path in pictures if path.suffix == ".png"]
    assert len(pictures) == 6
    assert all(np.asarray(Image.open(path)).std() > 5 for path in pictures)

    events = read_events(run)
    groups = {tag.partition("/")[0] for tag in events.Tags()["scalars"]} - {"epoch", "hp_metric"}
    assert groups == {"train", "val", "test", "optimization"}
    assert not [tag for tag in events.Tags()["scalars"] if "kl_dim" in tag]
    assert [event.step for event in events.Histograms("val/kl_per_dim")] == [19, 39]
    assert {"images/samples"} <= set(events.Tags()["images"])

    # An evaluation adds its numbers to the run, under the same id, and to TensorBoard; those of other data apart.
    again = ("task=evaluate", f"run={run}", "task.metrics=[]")
    code, out, err, _folder = cli(*again, "data.binarize=threshold")
    assert code == 0, err
    assert "added to the run in TensorBoard and W&B" in " ".join(out.split())
    (added,) = set((run / "wandb").glob("offline-run-*")) - {folder}
    other = read_wandb(added)
    assert other["run"][0]["run_id"] == records["run"][0]["run_id"]
    assert summary_of(other)["test_Digits/elbo"] not in (None, summary["test"]["elbo"])
    assert "test/elbo" not in summary_of(other)
    assert "history" not in other
    (event,) = read_events(run).Scalars("test_Digits/elbo")
    assert event.step == summary["steps"]
    before = {path for path in run.rglob("*") if "evaluate" not in path.parts}
    code, out, err, _folder = cli(*again, "task.log_to_run=false")
    assert code == 0, err
    assert {path for path in run.rglob("*") if "evaluate" not in path.parts} == before
    assert "added to" not in out


def test_names_of_charts():
    row = {"epoch": 1, "step/loss": 2.0, "test/kl_dim/0.000": 3.0, "test/kl_dim/1.000": 4.0, "train/elbo": 5.0}
    numbers = {"epoch": 1, "optimization/loss": 2.0, "train/elbo": 5.0}
    assert chart_rows(row) == (numbers, {"test/kl_per_dim": [3.0, 4.0]})
    assert all(name.partition("/")[0] in ("train", "optimization") for name in SHOWN)


def test_numbers_of_the_user_have_a_chart():
    """Only some numbers of training steps are hidden in W&B."""
    calls = []

    class Run:
        def define_metric(self, name, step_metric, hidden, **_):
            calls.append((name, step_metric, hidden))

        def log(self, row):
            calls.append(row)

    logger = WandB(Run())
    row = {"lr-Adam": 0.1, "val/mine": 1.0, "step/kl": 2.0, "epoch": 0}
    for _ in range(2):
        logger.log_metrics(row, step=5)
    hidden = {"lr-Adam": False, "val/mine": False, "optimization/kl": True, "epoch": True}
    assert calls[:4] == [(name, "trainer/global_step", value) for name, value in hidden.items()]
    assert len(calls) == 6
    assert calls[4]["trainer/global_step"] == 5


def test_heat_map_of_many_dimensions():
    """W&B refuses a histogram with more than 512 bins, and values that are not finite."""
    small = heat_map([1.0, float("nan"), 3.0])
    assert (list(small.histogram), list(small.bins)) == ([1, 0, 3], [0, 1, 2, 3])
    large = heat_map([1.0] * 1024)
    assert len(large.histogram) == 512
    assert set(large.histogram) == {2}


def test_an_evaluation_does_not_fail_with_its_loggers(tmp_path, monkeypatch, capsys):
    """The reason is printed. A run without these loggers gets nothing."""
    assert log_evaluation(tmp_path, {}, {"test/elbo": 1.0}, 3) == []
    (tmp_path / "wandb" / "run-1-abc").mkdir(parents=True)
    (tmp_path / "wandb" / "run-1-abc" / "run-abc.wandb").touch()

    def fail(**_):
        raise TypeError("no such option")

    monkeypatch.setattr(loggers, "wandb_logger", fail)
    assert log_evaluation(tmp_path, {}, {"test/elbo": 1.0}, 3) == []
    assert capsys.readouterr().err == "the numbers were not added to W&B (no such option)\n"
