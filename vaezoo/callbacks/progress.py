"""Progress of a training: a bar on a terminal, lines elsewhere."""

import math
import os
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any, NamedTuple

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


def describe_place(trainer: pl.Trainer, epochs: int | float) -> str:
    """Return how far a training is, as text: "epoch 3/50", "epoch 0.035, step 200/500".

    Args:
        trainer: the trainer.
        epochs: the epoch that is trained, from 1; or the trained epochs, a float if the last one is not complete.
    """
    limited = trainer.max_epochs is not None and trainer.max_epochs >= 0
    text = f"epoch {format_epochs(epochs)}" + (f"/{trainer.max_epochs}" if limited else "")
    return text + (f", step {trainer.global_step}/{trainer.max_steps}" if trainer.max_steps >= 0 else "")


def describe_time(seconds: float) -> str:
    """Return a time as text: "45 s", "1 min 20 s", "2 h 5 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_rest = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes_rest} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def has_width() -> bool:
    """Return whether the terminal has a width: without one, as in ``script`` of util-linux, a bar is not drawn."""
    with suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    return True


class Mark(NamedTuple):
    """A moment of a training: the time in seconds, and what was trained until then."""

    time: float
    epochs: float
    steps: int


def seconds_left(before: Mark, now: Mark, max_epochs: int | None, max_steps: int) -> float | None:
    """Return the time until the end of a training, by its speed between two moments; None without an end or a speed.

    Args:
        before: the first moment.
        now: the second moment.
        max_epochs: end of the training in epochs; None or -1: there is none.
        max_steps: end of the training in steps; -1: there is none.
    """
    limits = ((max_epochs, before.epochs, now.epochs), (max_steps, before.steps, now.steps))
    times = [
        (limit - done) / (done - start) * (now.time - before.time)
        for limit, start, done in limits
        if limit is not None and limit >= 0 and done > start
    ]
    return max(0.0, min(times)) if times else None


def restart_bar(bar: Any, total: int | float) -> None:
    """Let a bar begin again.

    Args:
        bar: the bar.
        total: number of its batches; inf if it is not known.
    """
    bar.reset(None if math.isinf(total) else int(total))


class Progress(TQDMProgressBar):
    """Shows a bar with the ELBO and the time left. If the output is not a terminal, prints a line from time to time.

    The time left follows from the last ``num_epochs`` epochs.

    Args:
        every_n_seconds: least time between two lines, in seconds.
    """

    refresh_seconds = 0.2  # between two refreshes of the bar: one takes as long as several small steps
    num_epochs = 5

    def __init__(self, every_n_seconds: float = 5.0):
        if every_n_seconds < 0:
            raise ValueError(f"every_n_seconds must be >= 0, got {every_n_seconds}")
        self.prints_lines = not (sys.stdout.isatty() and sys.stderr.isatty() and has_width())
        self.every_n_seconds, self.last_line_time = every_n_seconds, -every_n_seconds
        self.last_refresh = -self.refresh_seconds
        self.marks: deque[Mark] = deque(maxlen=self.num_epochs + 1)
        super().__init__(refresh_rate=0 if self.prints_lines else 1)

    @property
    def total_train_batches(self) -> int | float:
        """Batches of an epoch: Lightning would count chunks."""
        return self.trainer.lightning_module.batches_per_epoch  # type: ignore[return-value]

    def init_train_tqdm(self) -> Any:
        """Return the bar, without the time left of this epoch, which would stand beside that of the training."""
        bar = super().init_train_tqdm()
        bar.bar_format = "{desc} |{bar}| {n_fmt}/{total_fmt} [{rate_noinv_fmt}{postfix}]"
        return bar

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.has_dataloader_changed(dataloader_idx):  # Lightning would number the loaders, from 0
            restart_bar(self.val_progress_bar, self.total_val_batches_current_dataloader)

    def on_test_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.has_dataloader_changed(dataloader_idx):
            restart_bar(self.test_progress_bar, self.total_test_batches_current_dataloader)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        now = time.monotonic()
        if self.is_enabled and (now - self.last_refresh >= self.refresh_seconds or trainer.is_last_batch):
            self.last_refresh = now
            bar = self.train_progress_bar
            bar.n, bar.total = pl_module.last_batch_index + 1, self.total_train_batches
            bar.set_postfix(self.get_metrics(trainer, pl_module))  # this also refreshes the bar

    def get_metrics(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, int | str | float | dict]:
        """Return the numbers beside the bar."""
        shown: dict[str, int | str | float | dict] = {}
        name = pl_module.monitored
        if left := self.describe_left(trainer):
            shown["left"] = left
        if f"val/{name}" in trainer.callback_metrics:
            shown[f"val {name}"] = f"{float(trainer.callback_metrics[f'val/{name}']):.2f}"
        if pl_module.last_metrics:
            shown[f"batch {name}"] = f"{float(pl_module.last_metrics[name]):.2f}"
        return shown

    def describe_left(self, trainer: pl.Trainer) -> str:
        """Return the time left as text; empty before an epoch has been trained."""
        if not self.marks:
            return ""
        seconds = seconds_left(self.marks[0], self.mark(trainer), trainer.max_epochs, trainer.max_steps)
        return "" if seconds is None or len(self.marks) < 2 else describe_time(seconds)

    def mark(self, trainer: pl.Trainer) -> Mark:
        """Return the present moment."""
        model: Any = trainer.lightning_module
        return Mark(time.monotonic(), model.epochs, trainer.global_step)

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        super().on_train_start(trainer, *_)
        self.marks.clear()

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        restart_bar(self.train_progress_bar, self.total_train_batches)
        # Lightning counts from 0.
        self.train_progress_bar.set_description_str(describe_place(trainer, trainer.current_epoch + 1))
        self.marks.append(self.mark(trainer))
        if trainer.current_epoch > 0 and time.monotonic() - self.last_line_time >= self.every_n_seconds:
            self.print_epoch(trainer)

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        super().on_train_end(trainer, *_)
        self.marks.clear()
        self.print_epoch(trainer)

    def print_epoch(self, trainer: pl.Trainer) -> None:
        """Print the means of the last complete epoch."""
        model: Any = trainer.lightning_module
        results: dict[str, dict[str, float]] = model.results
        if self.prints_lines and trainer.is_global_zero and "train" in results:
            name = model.monitored
            means = [f"{stage} {name} {results[stage][name]:.2f}" for stage in ("train", "val") if stage in results]
            left = self.describe_left(trainer)
            parts = [describe_place(trainer, model.epochs), *means, *([f"{left} left"] if left else [])]
            self.print_line("  ".join(parts))

    def print_line(self, text: str) -> None:
        """Print a line on stderr, where the bar would be, without buffering."""
        self.last_line_time = time.monotonic()
        print(text, file=sys.stderr, flush=True)
