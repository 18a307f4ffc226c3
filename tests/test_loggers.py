"""Loggers that an interrupted run goes on with as if nothing had happened."""

import csv

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vaezoo.callbacks.loggers import CSV, TensorBoard, wandb_logger

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
    """The file of a run that nothing interrupted."""
    (tmp_path / "whole").mkdir()
    log(CSV(str(tmp_path / "whole")), ROWS)
    return written(tmp_path / "whole")


def test_the_layout_is_lightnings(tmp_path, whole):
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
def test_interrupted_anywhere_it_ends_the_same(tmp_path, whole, saved, torn):
    """A checkpoint after any step, and a kill at any later row, also before or inside the validation of that step."""
    # What is logged after a checkpoint of its step is logged once more: a validation, and an epoch's end.
    after = [row for row in ROWS if row[0] >= saved or (row[0] == saved - 1 and "epoch" in row[1])]
    for logged in range(len(ROWS) - len(after), len(ROWS) + 1):
        log(CSV(str(tmp_path)), ROWS[:logged])
        with (tmp_path / "metrics.csv").open("ab") as file:
            file.write(torn)
        again = CSV(str(tmp_path))
        again.resume(saved)
        log(again, after)
        assert written(tmp_path) == whole


def test_a_new_run_begins_a_new_file(tmp_path):
    log(CSV(str(tmp_path)), ROWS)
    log(CSV(str(tmp_path)), ROWS[:1])
    assert len(written(tmp_path).splitlines()) == 2


def test_tensorboard_hides_what_was_logged_too_far_ahead(tmp_path):
    for resume, steps in ((None, range(6)), (3, range(3, 5))):
        logger = TensorBoard(str(tmp_path), name="", version="")
        if resume is not None:
            logger.resume(resume)
        for step in steps:
            logger.log_metrics({"a": step + (0.5 if resume else 0)}, step=step)
        logger.finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("a")] == [(0, 0), (1, 1), (2, 2), (3, 3.5), (4, 4.5)]


def test_wandb_goes_on_with_its_run(tmp_path):
    """A resumed run has the id of the run in its folder; a new one in the same folder, or nothing there, another."""
    ids = []
    for resume in (None, "auto", None):
        ids.append(wandb_logger(str(tmp_path), resume=resume).experiment.id)
        wandb.finish()
    assert ids[0] == ids[1] != ids[2]
    assert wandb_logger(str(tmp_path / "empty"), resume="auto").experiment.id not in ids
    wandb.finish()
