"""Loggers that an interrupted run goes on with as if nothing had happened."""

import csv
import os
import sys

import pytest
import wandb
from conftest import REPO
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_cli import command

from vaezoo.loggers import CSV, DisabledOnError, TensorBoard, call_or_disable, wandb_logger
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
