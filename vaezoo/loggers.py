"""Loggers that a resumed run goes on with, and Weights & Biases without questions: no prompt, no hang, no account.

A logger whose backend fails never ends a run: it is switched off, and ``metrics.csv`` has all numbers.
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

from vaezoo.runs.folder import write_atomic
from vaezoo.training.lightning_workarounds import hide_events_from


class CSV(Logger):
    """``metrics.csv``: a row each time something is logged, on disk at once. Columns are sorted by name.

    A new logger begins a new file with its first row, unless it is told to ``resume``.

    Args:
        save_dir: the run's folder.
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
        """The run's folder has its config already."""

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Go on with the file as the run had left it after ``step`` optimizer steps (their rows are numbered
        from 0): later rows are dropped.

        What is said once more of the last of these steps, such as a validation that a checkpoint came
        before, is there already and not written again.
        """
        rows = [row for row in self.read_rows() if int(row["step"]) < step]
        self.columns = sorted({name for row in rows for name in row})
        self.logged_rows = {(row["step"], frozenset(row)) for row in rows if int(row["step"]) == step - 1}
        if rows:
            self.write_rows(rows)

    def read_rows(self) -> list[dict[str, str]]:
        """The file's rows, without empty cells; of a line that a kill has cut short, nothing."""
        if not self.file.exists():
            return []
        with self.file.open(encoding="utf-8", newline="") as file:
            lines = [line for line in file if line.endswith("\n")]
        return [{name: cell for name, cell in row.items() if cell} for row in csv.DictReader(lines)]

    def write_rows(self, rows: list[dict[str, Any]]) -> None:
        """Write the whole file."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.file, text.getvalue())


def call_or_disable(logger: Any, action: Callable, *arguments: Any, **named: Any) -> Any:
    """Do something with a logger; if its backend raises, say so once and switch the logger off.

    Returns:
        What the action returns; None when the logger is switched off.
    """
    if getattr(logger, "disabled", False):
        return None
    try:
        return action(*arguments, **named)
    except Exception as error:
        logger.disabled = True
        reason = " ".join(str(error).split()) or type(error).__name__
        name = type(logger).__name__
        said = f"{name} has failed and is switched off ({reason}): the run goes on without it"
        print(said, file=sys.stderr, flush=True)
        return None


class DisabledOnError(Logger):
    """Pass Lightning's calls on to the logger that follows in a class's bases, each through ``call_or_disable``.

    Attributes:
        disabled: whether the logger has failed.
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
    """Lightning's logger; a resumed run's second event file hides what the first one logged too far ahead."""

    def rewind(self, step: int) -> None:
        """Hide what was logged at or after this many optimizer steps; to be called before anything is logged."""
        hide_events_from(self, step)


class WandB(DisabledOnError, WandbLogger):
    """Lightning's logger of a W&B run."""


def wandb_logger(
    save_dir: str,
    project: str = "vaezoo",
    name: str | None = None,
    init_timeout: float = 20.0,
    resume: str | None = None,
    **settings: Any,
) -> WandbLogger | None:
    """A W&B logger that is online if it can be.

    WANDB_MODE decides where it is set; else a stored or exported API key makes it online, and offline
    after all when no connection comes within ``init_timeout``; without a key it is offline. Offline
    runs lie in ``save_dir``/wandb, for ``wandb sync`` and ``wandb leet``.

    Args:
        save_dir: the run's folder.
        project: W&B project.
        name: the run's name.
        init_timeout: seconds to wait for a connection.
        resume: go on with the W&B run whose files are in ``save_dir``, if there is one. Offline this makes
            a second folder of the same id, which ``wandb sync`` puts together with the first.
        **settings: further arguments of ``wandb.init``, such as ``entity``, ``group`` or ``tags``.

    Returns:
        The logger; None in every process but the first, and when W&B does not start at all.
    """
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]  # Lightning hangs it on the decorator
        return None
    import wandb

    if resume:
        settings = {"id": find_wandb_id(save_dir), "resume": "allow"} | settings

    def start(mode: Any):
        # A Settings object is changed by init: a fresh one per attempt.
        quiet = wandb.Settings(init_timeout=init_timeout, silent=True, console="off")
        return wandb.init(dir=save_dir, project=project, name=name, mode=mode, settings=quiet, **settings)

    try:
        mode = os.environ.get("WANDB_MODE", "online")
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            mode = "offline"
        run = start(mode)
    except (wandb.Error, TimeoutError) as error:
        reason = str(error).strip().splitlines()[0]
        print(f"W&B is not to be had online ({reason}): this run is logged offline", file=sys.stderr)
        try:
            run = start("offline")
        except (wandb.Error, OSError) as failure:
            print(f"W&B cannot log offline either ({' '.join(str(failure).split())}): it is left out", file=sys.stderr)
            return None
    return WandB(experiment=run)


def find_wandb_id(save_dir: str) -> str | None:
    """The id of the W&B run whose files are in a run's folder; None where there are none."""
    files = sorted(Path(save_dir, "wandb").glob("*run-*/run-*.wandb"), key=lambda file: file.stat().st_mtime)
    return files[-1].stem.removeprefix("run-") if files else None
