"""Which checkpoints a training leaves: the best one, and the last one to go on from."""

import math
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from vaezoo.errors import ConfigError, suggest
from vaezoo.runs.signals import Stopped, install_handlers, stop_request
from vaezoo.training.lightning_workarounds import complete_interrupted_epochs, is_validation_next, repeat_validation


class Best(Checkpoint):
    """Keeps the checkpoint with the best value of a logged metric, as ``best.ckpt``.

    Args:
        dirpath: folder of the checkpoint.
        monitor: name of the metric.
        mode: "max" or "min", whichever is better.

    Attributes:
        score: the best value so far; a value that is not finite is never the best.
    """

    def __init__(self, dirpath: str, monitor: str = "val/elbo", mode: str = "max"):
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be max or min, got {mode}")
        self.path, self.monitor, self.mode = Path(dirpath, "best.ckpt"), monitor, mode
        self.score: float | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        check_monitor(trainer, "checkpoint_best", self.monitor)
        if self.monitor not in trainer.callback_metrics:  # of a training epoch, the first of which has not ended
            return
        score = float(trainer.callback_metrics[self.monitor])
        sign = 1 if self.mode == "max" else -1
        if math.isfinite(score) and (self.score is None or sign * score > sign * self.score):
            self.score = score
            trainer.save_checkpoint(self.path)

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score = state_dict["score"]


def check_monitor(trainer: pl.Trainer, callback: str, monitor: str) -> None:
    """Refuse, after the first validation, a metric that nothing logs.

    Raises:
        ConfigError: suggests one that is logged.
    """
    metrics = trainer.callback_metrics
    waits = monitor.startswith("train/") and not any(name.startswith("train/") for name in metrics)
    if monitor not in metrics and not waits:
        names = [name for name in metrics if "kl_dim" not in name]
        raise ConfigError(f"callbacks.{callback}.monitor={monitor} is not logged, {suggest(monitor, names)}")


class Last(Checkpoint):
    """Keeps the training's state as ``last.ckpt``, from which it goes on bit for bit.

    It is written between two chunks of batches and before a validation, when ``every_seconds`` have passed
    since the last time, and at the end; a signal (``vaezoo.runs.signals``) makes it be written at once and ends the
    run.
    Whatever is lost with a kill is computed again, to the same bits.

    Args:
        dirpath: folder of the checkpoint.
        every_seconds: least time between two writes; or a hundred times what a write takes, if that is longer.
    """

    def __init__(self, dirpath: str, every_seconds: float = 10.0):
        if every_seconds < 0:
            raise ValueError(f"every_seconds must be >= 0, got {every_seconds}")
        self.path, self.every_seconds = Path(dirpath, "last.ckpt"), every_seconds
        self.next_save_time = math.inf
        self.saved_path: str | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let a run that goes on from its last step, amid an epoch, end that epoch and the training."""
        complete_interrupted_epochs(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if stop_request.listening:
            install_handlers()  # Lightning has just put handlers of its own before ours
        self.next_save_time = time.monotonic() + self.every_seconds

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        # Lightning cannot go on from an epoch's last batch, and from one that a validation follows it goes on without
        # that: there, the validation or the next epoch is waited for.
        if not trainer.is_last_batch and not is_validation_next(trainer):
            self.save_if_due(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.save_if_due(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.stop_requested(trainer):
            raise Stopped(stop_request.signum, self.saved_path)

    def on_test_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.on_validation_batch_end(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning takes an epoch that was cut short for a whole one: there, what its last turn wrote stands.
        if trainer.is_last_batch:
            self.save(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """In a validation, write down one that is yet to be done: it is run again, whole."""
        if trainer.validating:
            repeat_validation(checkpoint)

    def stop_requested(self, trainer: pl.Trainer) -> bool:
        """Whether a signal has come, in any process."""
        return trainer.strategy.reduce_boolean_decision(bool(stop_request.signum), all=False)

    def save_if_due(self, trainer: pl.Trainer) -> None:
        """Save where it is time to, or where a signal has come: then stop, too."""
        stop_requested = self.stop_requested(trainer)
        ends = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step  # amid an epoch
        due = stop_requested or ends or time.monotonic() >= self.next_save_time
        if trainer.strategy.reduce_boolean_decision(due, all=False):
            self.save(trainer)
        if stop_requested:
            raise Stopped(stop_request.signum, self.saved_path)

    def save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint."""
        start = time.monotonic()
        trainer.save_checkpoint(self.path)
        self.saved_path = str(self.path)
        end = time.monotonic()
        self.next_save_time = end + max(self.every_seconds, 100 * (end - start))
