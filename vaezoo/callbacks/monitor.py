"""Metrics of single optimizer steps, every ``trainer.log_every_n_steps`` steps."""

import time
from typing import Any

import lightning.pytorch as pl

from vaezoo.types import IndexedBatch


class Monitor(pl.Callback):
    """Logs ``step/*``: metrics of the last batch, the objective's weights, learning rate, gradient norm and speed.

    The metrics are ``elbo``, ``log_px``, ``kl`` and ``loss`` with the objective's own terms. The gradient norm is that
    before clipping. The speed, ``examples_per_second``, is measured since the last row, without validation.

    Attributes:
        examples: examples that the training has processed so far in all processes.
        seconds: time in seconds that this took, without validation.
    """

    def __init__(self) -> None:
        self.examples, self.seconds = 0, 0.0
        self.start_time: float | None = None  # since when the time is not yet in ``seconds``; None outside training
        self.last_row = (0, 0.0, 0)  # examples, seconds and step of the last row

    def add_elapsed_time(self) -> None:
        """Add the time since the last call to ``seconds``."""
        if self.start_time is not None:
            now = time.perf_counter()
            self.seconds += now - self.start_time
            self.start_time = now

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.start_time = time.perf_counter()  # a resumed training may start within an epoch
        self.last_row = (self.examples, self.seconds, trainer.global_step)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.start_time = time.perf_counter()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self.add_elapsed_time()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.start_time = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.add_elapsed_time()
        self.start_time = None

    def on_microbatch_end(self, trainer: Any, pl_module: Any, item: IndexedBatch) -> None:
        """Count the examples of a batch, and log a row if it is time for one."""
        self.examples += len(item.batch.x) * trainer.world_size
        step = trainer.global_step
        if step == self.last_row[2] or step % trainer.log_every_n_steps:
            return
        self.add_elapsed_time()
        examples, seconds = self.examples - self.last_row[0], self.seconds - self.last_row[1]
        self.last_row = (self.examples, self.seconds, step)
        values = {
            **pl_module.last_metrics,
            **pl_module.objective.weights(),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "gradient_norm": pl_module.gradient_norm,
            "examples_per_second": examples / max(seconds, 1e-9),
        }
        row = {f"step/{name}": float(value) for name, value in values.items()}
        for logger in trainer.loggers:
            logger.log_metrics(row, step=step - 1)  # Lightning counts its own rows from 0
