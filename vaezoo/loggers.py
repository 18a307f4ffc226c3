"""Loggers: ``metrics.csv``, TensorBoard and Weights & Biases.

A resumed run continues its logs, without rows of steps that are repeated. W&B never asks, needs no account and does not
block. If the backend of a logger fails, it is switched off and the run continues: ``metrics.csv`` has all numbers.
"""

import csv
import io
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from vaezoo.old_names import update_numbers
from vaezoo.runs.folder import write_atomic
from vaezoo.training.lightning_workarounds import hide_events_from


class CSV(Logger):
    """Writes ``metrics.csv``: one row for each call, written to the disk at once. Columns are sorted by name.

    The first row starts a new file, except after ``rewind``.

    Args:
        save_dir: the run's folder.

    Attributes:
        columns: the file's columns.
        logged_rows: step and columns of the rows that are already in the file and may be logged again after a resume.
    """

    name = version = ""

    def __init__(self, save_dir: str):
        super().__init__()
        self.file = Path(save_dir, "metrics.csv")
        self.columns: list[str] = []
        self.logged_rows: set[tuple[str, frozenset[str]]] = set()

    @property
    def save_dir(self) -> str:
        return str(self.file.parent)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = {**metrics, "step": step or 0}
        if (str(row["step"]), frozenset(row)) in self.logged_rows:
            return
        if row.keys() <= set(self.columns):
            with self.file.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        else:
            rows = self.read_rows() if self.columns else []
            self.columns = sorted({*self.columns, *row})
            self.write_rows([*rows, row])

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Do nothing: the run's folder has the config already."""

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Continue the file after ``step`` optimizer steps, whose rows are numbered from 0. Later rows are dropped.

        A resumed run may log a row of the last of these steps again, such as a validation that began after the
        checkpoint. This row is in the file already and is not written twice.
        """
        rows = [row for row in self.read_rows() if int(row["step"]) < step]
        self.columns = sorted({name for row in rows for name in row})
        self.logged_rows = {(row["step"], frozenset(row)) for row in rows if int(row["step"]) == step - 1}
        if rows:
            self.write_rows(rows)

    def read_rows(self) -> list[dict[str, str]]:
        """Return the file's rows without empty cells, with the present names of columns.

        A last line that a kill has cut short is left out.
        """
        if not self.file.exists():
            return []
        with self.file.open(encoding="utf-8", newline="") as file:
            lines = [line for line in file if line.endswith("\n")]
        return [update_numbers({name: cell for name, cell in row.items() if cell}) for row in csv.DictReader(lines)]

    def write_rows(self, rows: list[dict[str, Any]]) -> None:
        """Write the whole file."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.file, text.getvalue())


def call_or_disable(logger: Any, action: Callable, *arguments: Any, **named: Any) -> Any:
    """Call a function of a logger. If it raises an exception, print a message and switch the logger off.

    Args:
        logger: the logger; its attribute ``disabled`` is set if the call fails.
        action: the function. It is not called if the logger is already switched off.
        *arguments: positional arguments of the function.
        **named: keyword arguments of the function.

    Returns:
        The function's result; None if the logger is switched off.
    """
    if getattr(logger, "disabled", False):
        return None
    try:
        return action(*arguments, **named)
    except Exception as error:
        logger.disabled = True
        reason = " ".join(str(error).split()) or type(error).__name__
        name = type(logger).__name__
        message = f"{name} has failed and is switched off ({reason}): the run goes on without it"
        print(message, file=sys.stderr, flush=True)
        return None


class DisabledOnError(Logger):
    """Base class, to stand before a logger's class: passes Lightning's calls on through ``call_or_disable``.

    Attributes:
        disabled: whether the logger has failed and is switched off.
    """

    disabled = False

    def log_metrics(self, *arguments: Any, **named: Any) -> None:
        call_or_disable(self, super().log_metrics, *arguments, **named)  # type: ignore[safe-super]

    def log_hyperparams(self, *arguments: Any, **named: Any) -> None:
        call_or_disable(self, super().log_hyperparams, *arguments, **named)  # type: ignore[safe-super]

    def log_graph(self, *arguments: Any, **named: Any) -> None:
        call_or_disable(self, super().log_graph, *arguments, **named)

    def save(self) -> None:
        call_or_disable(self, super().save)

    def after_save_checkpoint(self, *arguments: Any) -> None:
        call_or_disable(self, super().after_save_checkpoint, *arguments)

    def finalize(self, status: str) -> None:
        call_or_disable(self, super().finalize, status)


def chart_rows(metrics: Mapping[str, float]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Divide a row of metrics into numbers and lists, each of which is one chart in W&B and TensorBoard.

    The names of the charts are in four groups, besides the test: ``train/``, ``val/``, ``optimization/`` (single steps)
    and ``images/`` (``vaezoo.callbacks.images``).

    Returns:
        The numbers, and the KL of all latent dimensions as one list.

    >>> chart_rows({"step/loss": 2.0, "val/kl": 3.0, "val/kl_dim/000": 1.0, "val/kl_dim/001": 2.0})
    ({'optimization/loss': 2.0, 'val/kl': 3.0}, {'val/kl_per_dim': [1.0, 2.0]})
    """
    numbers: dict[str, float] = {}
    lists: dict[str, list[float]] = {}
    for name, value in metrics.items():
        stage, is_dim, _ = name.partition("/kl_dim/")
        if is_dim:
            lists.setdefault(f"{stage}/kl_per_dim", []).append(value)
        else:
            numbers[re.sub("^step/", "optimization/", name)] = value
    return numbers, lists


class TensorBoardCharts(TensorBoardLogger):
    """Lightning's TensorBoard logger, with the charts of ``chart_rows``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        numbers, lists = chart_rows(metrics)
        super().log_metrics(numbers, step)
        for name, values in lists.items():
            self.experiment.add_histogram(name, np.asarray(values), step)


class TensorBoard(DisabledOnError, TensorBoardCharts):
    """Logs to TensorBoard, for runs that may be resumed."""

    def rewind(self, step: int) -> None:
        """Hide what was logged at or after ``step`` optimizer steps. To be called before anything is logged."""
        hide_events_from(self, step)


STEP = "trainer/global_step"  # the x axis of all charts in W&B: optimizer steps
# The value of the whole run, in the table of runs, if it is not the last one.
SUMMARIES = {"val/elbo": "max", "val/loss": "min"}
# Charts of train/ and optimization/ that W&B shows. The others, such as the KL of single batches, can be added there.
SHOWN = {
    "train/elbo", "train/log_px", "train/kl", "train/loss", "optimization/loss", "optimization/beta",
    "optimization/learning_rate", "optimization/gradient_norm", "optimization/examples_per_second",
}  # fmt: skip
MAX_BINS = 512  # of a histogram in W&B


class WandBCharts(WandbLogger):
    """Lightning's W&B logger, with the charts of ``chart_rows`` over optimizer steps.

    The KL of the latent dimensions is a histogram with a bin for each of them, which W&B draws as a heat map over the
    steps. Test numbers are values of the run, without charts.

    Args:
        experiment: the W&B run.
        checkpoints: a folder whose best (or last) checkpoint becomes an artifact at the end of a training; None: no
            artifact.
    """

    def __init__(self, experiment: Any, checkpoints: Path | None = None):
        super().__init__(experiment=experiment)
        self.checkpoints = checkpoints
        self.defined: set[str] = set()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        numbers, lists = chart_rows(metrics)
        if test := {name: value for name, value in numbers.items() if name.startswith("test")}:
            self.experiment.summary.update(test)
            return
        for name in [name for name in numbers if name not in self.defined]:
            self.defined.add(name)
            hidden = name == "epoch" or (name.startswith(("train/", "optimization/")) and name not in SHOWN)
            self.experiment.define_metric(name, STEP, step_sync=True, hidden=hidden, summary=SUMMARIES.get(name))
        charts: Any = {name: heat_map(values) for name, values in lists.items()}
        super().log_metrics(numbers | charts, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Log the best checkpoint as an artifact, once, if the training has succeeded."""
        super().finalize(status)
        if self.checkpoints is None or status != "success":
            return
        import wandb

        files = (self.checkpoints / name for name in ("best.ckpt", "last.ckpt"))
        for file in [file for file in files if file.exists()][:1]:
            artifact = wandb.Artifact(f"model-{self.experiment.id}", type="model")
            artifact.add_file(str(file), policy="immutable")  # W&B reads it where it is, and makes no copy of it
            self.experiment.log_artifact(artifact)
        self.checkpoints = None


def heat_map(values: list[float]) -> Any:
    """Return a W&B histogram with a bin for each value. If W&B does not allow so many, adjacent values are summed."""
    import wandb

    num, bins = len(values), min(len(values), MAX_BINS)
    return wandb.Histogram(np_histogram=np.histogram(range(num), bins, (0, num), weights=np.nan_to_num(values)))


class WandB(DisabledOnError, WandBCharts):
    """Logs to W&B; switched off if W&B fails."""


def wandb_logger(
    save_dir: str,
    project: str = "vaezoo",
    name: str | None = None,
    init_timeout: float = 20.0,
    resume: str | None = None,
    artifact: bool = False,
    tags: Sequence[str] = (),
    **settings: Any,
) -> WandB | None:
    """Return a W&B logger that is online if possible.

    If WANDB_MODE is set, it decides. Otherwise the logger is online if there is an API key, stored or exported, and a
    connection within ``init_timeout`` seconds; else it is offline. The files of an offline run are in
    ``save_dir``/wandb, for ``wandb sync`` and ``wandb leet``.

    Args:
        save_dir: the run's folder.
        project: W&B project.
        name: name of the run in W&B.
        init_timeout: seconds to wait for a connection.
        resume: continue the W&B run whose files are in ``save_dir``, if there is one. Offline, this makes a second
            folder with the same id, which ``wandb sync`` merges with the first.
        artifact: whether the best checkpoint is stored in W&B, as an artifact.
        tags: tags of the run. W&B allows 64 characters in each.
        **settings: further arguments of ``wandb.init``, such as ``entity``, ``group`` or ``notes``.

    Returns:
        The logger; None in every process except the first, and if W&B cannot start.
    """
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]  # Lightning sets it on the function
        return None
    import wandb

    if resume:
        settings = {"id": find_wandb_id(save_dir), "resume": "allow"} | settings
    tags = tuple(str(tag)[:64] for tag in tags if str(tag))

    def start(mode: Any):
        # wandb.init changes a Settings object: each attempt needs a new one.
        quiet = wandb.Settings(init_timeout=init_timeout, silent=True, console="off")
        run = wandb.init(dir=save_dir, project=project, name=name, mode=mode, settings=quiet, tags=tags, **settings)
        run.define_metric(STEP, hidden=True)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        return run

    try:
        mode = os.environ.get("WANDB_MODE", "online")
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            mode = "offline"
        run = start(mode)
    except (wandb.Error, TimeoutError) as error:
        reason = str(error).strip().splitlines()[0]
        print(f"cannot reach W&B ({reason}): logging offline", file=sys.stderr)
        try:
            run = start("offline")
        except (wandb.Error, OSError) as failure:
            reason = " ".join(str(failure).split())
            print(f"W&B cannot log offline either ({reason}): logging without W&B", file=sys.stderr)
            return None
    return WandB(run, Path(save_dir, "checkpoints") if artifact else None)


def log_evaluation(folder: Path, options: Mapping[str, Any], values: Mapping[str, float], step: int) -> list[str]:
    """Add the numbers of an evaluation to the W&B run and the TensorBoard log of the run that was evaluated.

    A failure is printed and ends nothing.

    Args:
        folder: the folder of the evaluated run.
        options: arguments of ``wandb_logger``: where the run is in W&B.
        values: numbers by name, such as ``test/elbo``.
        step: optimizer steps of the run.

    Returns:
        The names of the loggers that have got the numbers.
    """
    if not os.access(folder, os.W_OK):  # W&B would write to a temporary folder
        print(f"the numbers were not added to the run: {folder} cannot be written", file=sys.stderr)
        return []
    done = []
    for name, start in (("TensorBoard", find_tensorboard), ("W&B", find_wandb)):
        try:
            if (logger := start(folder, options)) is not None:
                logger.log_metrics(values, step)
                logger.finalize("success")
                if isinstance(logger, WandB):
                    logger.experiment.finish()
                done += [] if logger.disabled else [name]
        except Exception as error:  # a logger never ends an evaluation
            print(f"the numbers were not added to {name} ({error})", file=sys.stderr)
    return done


def find_tensorboard(folder: Path, _: Mapping[str, Any]) -> TensorBoard | None:
    """Return a logger for the TensorBoard log of a run; None if the run has none."""
    if not list(folder.glob("tensorboard/events*")):
        return None
    return TensorBoard(str(folder), name="", version="tensorboard")


def find_wandb(folder: Path, options: Mapping[str, Any]) -> WandB | None:
    """Return a logger for the W&B run of a run, with the options of ``wandb_logger``; None if the run has none."""
    if find_wandb_id(str(folder)) is None:
        return None
    return wandb_logger(**{**options, "save_dir": str(folder), "resume": "auto", "artifact": False})


def find_wandb_id(save_dir: str) -> str | None:
    """Return the id of the newest W&B run whose files are in a run's folder; None if there is none."""
    files = sorted(Path(save_dir, "wandb").glob("*run-*/run-*.wandb"), key=lambda file: file.stat().st_mtime)
    return files[-1].stem.removeprefix("run-") if files else None
