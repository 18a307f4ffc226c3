"""Progress: a bar on a terminal, lines elsewhere."""

import sys
import time

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar


class Progress(TQDMProgressBar):
    """A bar that shows the ELBO; where the output is no terminal, a line now and then instead.

    Args:
        every_n_batches: batches between two refreshes of the bar.
        every_n_seconds: least time between two lines.
    """

    def __init__(self, every_n_batches: int = 20, every_n_seconds: float = 5.0):
        self.lines = not sys.stderr.isatty()
        self.every_n_seconds, self.last_line = every_n_seconds, 0.0
        super().__init__(refresh_rate=0 if self.lines else every_n_batches)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, int | str | float | dict]:
        shown: dict[str, int | str | float | dict] = {}
        if latest := getattr(pl_module, "latest", None):
            shown["elbo"] = f"{float(latest['elbo'].mean()):.2f}"
        if "val/elbo" in trainer.callback_metrics:
            shown["val elbo"] = f"{float(trainer.callback_metrics['val/elbo']):.2f}"
        return shown

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        now = time.monotonic()
        last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if self.lines and trainer.is_global_zero and (last or now - self.last_line >= self.every_n_seconds):
            self.last_line = now
            shown = "  ".join(f"{name} {value}" for name, value in self.get_metrics(trainer, pl_module).items())
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}", file=sys.stderr, flush=True)
