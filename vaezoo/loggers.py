"""Loggers: ``metrics.csv``, TensorBoard and Weights & Biases.

A resumed run continues its logs, without rows of steps that are repeated. W&B never asks, needs no account and does not
block. If the backend of a logger fails, it is switched off and the run continues: ``metrics.csv`` has all numbers.
"""

import csv
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


class TensorBoard(DisabledOnError, TensorBoardLogger):
    """Lightning's TensorBoard logger, for runs that may be resumed."""

    def rewind(self, step: int) -> None:
        """Hide what was logged at or after ``step`` optimizer steps. To be called before anything is logged."""
        hide_events_from(self, step)


class WandB(DisabledOnError, WandbLogger):
    """Lightning's W&B logger, switched off if W&B fails."""


def wandb_logger(
    save_dir: str,
    project: str = "vaezoo",
    name: str | None = None,
    init_timeout: float = 20.0,
    resume: str | None = None,
    **settings: Any,
) -> WandbLogger | None:
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
        **settings: further arguments of ``wandb.init``, such as ``entity``, ``group`` or ``tags``.

    Returns:
        The logger; None in every process except the first, and if W&B cannot start.
    """
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]  # Lightning sets it on the function
        return None
    import wandb

    if resume:
        settings = {"id": find_wandb_id(save_dir), "resume": "allow"} | settings

    def start(mode: Any):
        # wandb.init changes a Settings object: each attempt needs a new one.
        quiet = wandb.Settings(init_timeout=init_timeout, silent=True, console="off")
        return wandb.init(dir=save_dir, project=project, name=name, mode=mode, settings=quiet, **settings)

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
    return WandB(experiment=run)


def find_wandb_id(save_dir: str) -> str | None:
    """Return the id of the newest W&B run whose files are in a run's folder; None if there is none."""
    files = sorted(Path(save_dir, "wandb").glob("*run-*/run-*.wandb"), key=lambda file: file.stat().st_mtime)
    return files[-1].stem.removeprefix("run-") if files else None
