"""Progress of a training: a bar on a terminal, lines elsewhere."""

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar


def format_epochs(epochs: int | float) -> str:
    """Return a number of epochs as text: 5, 1.25, 0.035."""
    return f"{epochs}" if isinstance(epochs, int) else f"{epochs:.2f}" if epochs >= 0.1 else f"{epochs:.2g}"


def describe_training(steps: int, epochs: int | float) -> str:
    """Return the length of a training as text: "200 steps (0.035 epochs)"."""
    return f"{steps:,} step{'s' * (steps != 1)} ({format_epochs(epochs)} epoch{'s' * (epochs != 1)})"


def describe_plan(trainer: pl.Trainer) -> str:
    """Return the planned length of a training as text: "5 epochs or 200 steps"."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    limits = [f"{epochs} epoch{'s' * (epochs != 1)}"] if epochs is not None and epochs >= 0 else []
    limits += [f"{steps} step{'s' * (steps != 1)}"] if steps >= 0 else []
    return " or ".join(limits) or "no end"


class Progress(TQDMProgressBar):
    """Shows a bar with the ELBO. If the output is not a terminal, prints a line from time to time instead.

    Args:
        every_n_seconds: least time between two lines, in seconds.
    """

    refresh_seconds = 0.2  # between two refreshes of the bar: one takes as long as several small steps

    def __init__(self, every_n_seconds: float = 5.0):
        if every_n_seconds < 0:
            raise ValueError(f"every_n_seconds must be >= 0, got {every_n_seconds}")
        self.prints_lines = not sys.stderr.isatty()
        self.every_n_seconds, self.last_line_time = every_n_seconds, -every_n_seconds
        self.last_refresh = -self.refresh_seconds
        super().__init__(refresh_rate=0 if self.prints_lines else 1)

    @property
    def total_train_batches(self) -> int | float:
        """Batches of an epoch: Lightning would count chunks."""
        return self.trainer.lightning_module.batches_per_epoch  # type: ignore[return-value]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        now = time.monotonic()
        if self.is_enabled and (now - self.last_refresh >= self.refresh_seconds or trainer.is_last_batch):
            self.last_refresh = now
            bar = self.train_progress_bar
            bar.n, bar.total = pl_module.last_batch_index + 1, self.total_train_batches
            bar.set_postfix(self.get_metrics(trainer, pl_module))  # this also refreshes the bar

    def get_metrics(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, int | str | float | dict]:
        shown: dict[str, int | str | float | dict] = {}
        name = pl_module.monitored
        if pl_module.last_metrics:
            shown[f"batch {name}"] = f"{float(pl_module.last_metrics[name]):.2f}"
        if f"val/{name}" in trainer.callback_metrics:
            shown[f"val {name}"] = f"{float(trainer.callback_metrics[f'val/{name}']):.2f}"
        return shown

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.prints_lines and trainer.is_global_zero:
            parameters = sum(p.numel() for p in pl_module.parameters())
            data = type(getattr(trainer, "datamodule", None) or trainer.train_dataloader).__name__
            name = (getattr(pl_module, "config", None) or {}).get("name") or type(pl_module).__name__
            self.print_line(f"{name} with {parameters:,} parameters on {data}, {describe_plan(trainer)}")

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer, *_)
        if trainer.current_epoch > 0 and time.monotonic() - self.last_line_time >= self.every_n_seconds:
            self.print_epoch(trainer)

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        super().on_train_end(trainer, *_)
        self.print_epoch(trainer)

    def print_epoch(self, trainer: pl.Trainer) -> None:
        """Print the means of the last complete epoch."""
        model: Any = trainer.lightning_module
        results: dict[str, dict[str, float]] = model.results
        if self.prints_lines and trainer.is_global_zero and "train" in results:
            name = model.monitored
            means = (f"{stage} {name} {results[stage][name]:.2f}" for stage in ("train", "val") if stage in results)
            self.print_line(f"epoch {format_epochs(model.epochs)} of {describe_plan(trainer)}  {'  '.join(means)}")

    def print_line(self, text: str) -> None:
        """Print a line on stderr, where the bar would be, without buffering."""
        self.last_line_time = time.monotonic()
        print(text, file=sys.stderr, flush=True)
