"""The two checkpoints that a training leaves: the best one, and the last one to resume from."""

import math
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from vaezoo.errors import ConfigError, suggest
from vaezoo.runs.signals import Stopped, defer_stop, stop_request
from vaezoo.training.lightning_workarounds import complete_interrupted_epochs, is_validation_next, repeat_validation


class Best(Checkpoint):
    """Keeps the checkpoint with the best value of a logged metric, as ``best.ckpt``.

    Args:
        dirpath: folder of the checkpoint.
        monitor: name of the metric; None: ``val/elbo``, or what a model without an ELBO monitors.
        mode: "max" if larger values are better, "min" if smaller ones are.

    Attributes:
        score: the best value so far; None before the first one. NaN and infinity are never the best.
    """

    def __init__(self, dirpath: str, monitor: str | None = None, mode: str = "max"):
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be max or min, got {mode}")
        self.path, self.monitor, self.mode = Path(dirpath, "best.ckpt"), monitor, mode
        self.score: float | None = None

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self.monitor = self.monitor or f"val/{pl_module.monitored}"

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        assert self.monitor is not None  # by ``setup``
        check_monitor(trainer, "checkpoint_best", self.monitor)
        if self.monitor not in trainer.callback_metrics:  # a metric of a training epoch, and the first has not ended
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
    """Raise a ConfigError if a metric is not logged; to be called when a validation ends.

    Args:
        trainer: the trainer.
        callback: the callback's key in the config, for the message.
        monitor: name of the metric.

    Raises:
        ConfigError: nothing logs the metric. The message suggests a similar one.
    """
    metrics = trainer.callback_metrics
    may_come = monitor.startswith("train/") and not any(name.startswith("train/") for name in metrics)
    if monitor not in metrics and not may_come:
        names = [name for name in metrics if "kl_dim" not in name]
        raise ConfigError(f"callbacks.{callback}.monitor={monitor} is not logged, {suggest(monitor, names)}")


class Last(Checkpoint):
    """Keeps the state of the training as ``last.ckpt``. A training that is resumed from it is equal to the last bit.

    It is written between two chunks of batches or before a validation, if ``every_seconds`` have passed since the last
    time, and at the end. After a signal (``vaezoo.runs.signals``) it is written as soon as possible, and the run stops.
    Everything that is lost by a kill is computed again, with the same result.

    Args:
        dirpath: folder of the checkpoint.
        every_seconds: least time between two checkpoints. If a hundred times the duration of writing one is longer,
            this is used instead.

    Attributes:
        saved_path: path of the checkpoint; None before it is written.
        next_save_time: time (``time.monotonic``) from which on the checkpoint is written again.
    """

    def __init__(self, dirpath: str, every_seconds: float = 10.0):
        if every_seconds < 0:
            raise ValueError(f"every_seconds must be >= 0, got {every_seconds}")
        self.path, self.every_seconds = Path(dirpath, "last.ckpt"), every_seconds
        self.next_save_time = math.inf
        self.saved_path: str | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        complete_interrupted_epochs(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        defer_stop()
        self.next_save_time = time.monotonic() + self.every_seconds

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        # Lightning cannot resume from the last batch of an epoch. If a validation follows, a resumed training would not
        # run it. In both cases the next validation or epoch saves.
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
        # If the training ends within an epoch, Lightning marks this epoch as complete now. A checkpoint of this moment
        # could not be resumed for longer, so the one from the last step stays.
        if trainer.is_last_batch:
            self.save(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if trainer.validating:
            repeat_validation(checkpoint)

    def stop_requested(self, trainer: pl.Trainer) -> bool:
        """Return whether any process has received a signal to stop."""
        return trainer.strategy.reduce_boolean_decision(bool(stop_request.signum), all=False)

    def save_if_due(self, trainer: pl.Trainer) -> None:
        """Save if it is time for it, if the training ends within an epoch, or after a signal; then stop as well."""
        stop_requested = self.stop_requested(trainer)
        ends = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
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
