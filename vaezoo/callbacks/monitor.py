"""What is measured while training runs, every ``trainer.log_every_n_steps`` optimizer steps."""

import time
from typing import Any

import lightning.pytorch as pl

from vaezoo.types import IndexedBatch


class Monitor(pl.Callback):
    """Logs ``step/*``: the batch's elbo, log_px, kl and loss, the learning rate, the objective's
    weights, the gradient's norm (before clipping) and images per second.

    Attributes:
        images, seconds: seen in training so far, over all processes, and the time that took, without
            validation.
    """

    def __init__(self) -> None:
        self.images, self.seconds = 0, 0.0
        self.clock: float | None = None
        self.logged = (0, 0.0, 0)  # images, seconds and step at the last row

    def read_clock(self) -> None:
        """Add the time since the last reading."""
        if self.clock is not None:
            now = time.perf_counter()
            self.seconds += now - self.clock
            self.clock = now

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.clock = time.perf_counter()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self.read_clock()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.clock = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.read_clock()
        self.clock = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.clock = time.perf_counter()  # a resumed run starts amid an epoch
        self.logged = (self.images, self.seconds, trainer.global_step)

    def on_batch(self, trainer: Any, pl_module: Any, part: IndexedBatch) -> None:
        """Count the batch, and log a row where one is due."""
        self.images += len(part.batch.x) * trainer.world_size
        step = trainer.global_step
        if step == self.logged[2] or step % trainer.log_every_n_steps:
            return
        self.read_clock()
        images, seconds = self.images - self.logged[0], self.seconds - self.logged[1]
        self.logged = (self.images, self.seconds, step)
        values = {
            **pl_module.latest,
            **pl_module.objective.weights(),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "gradient_norm": pl_module.gradient_norm,
            "images_per_second": images / max(seconds, 1e-9),
        }
        row = {f"step/{name}": float(value) for name, value in values.items()}
        for logger in trainer.loggers:
            logger.log_metrics(row, step=step - 1)  # Lightning counts its own rows so
