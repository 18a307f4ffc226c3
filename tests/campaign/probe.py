"""What the campaign adds to a training: a record of every batch, and faults at named events."""

import hashlib
import json
import math
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from vaezoo.callbacks.checkpoints import Last
from vaezoo.loggers import CSV
from vaezoo.models import LatentVariableModel
from vaezoo.runs import checkpoint
from vaezoo.runs.folder import RunFolder

counts: Counter[str] = Counter()  # events so far
fault: Callable[[str, int], None] | None = None  # told of each event and how often it has happened
saves = random.Random(0)  # says at which chunks of batches last.ckpt is written


def happens(event: str) -> None:
    """Report that an event is about to happen."""
    counts[event] += 1
    if fault is not None:
        fault(event, counts[event])


def digest(tensor: torch.Tensor) -> str:
    """Return a hash of the values, to the bit."""
    return hashlib.blake2b(tensor.contiguous().numpy().tobytes(), digest_size=8).hexdigest()


class Probe(pl.Callback):
    """Adds a line to a file for each training batch, lets checkpoints be written often, and reports events.

    Args:
        record: the file; lines are (epoch, number of the batch, step after it, loss, examples, images).
    """

    def __init__(self, record: str):
        self.record = record

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.file = os.open(self.record, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        (self.last,) = (callback for callback in trainer.callbacks if isinstance(callback, Last))

    def on_microbatch_end(self, trainer: pl.Trainer, pl_module: Any, part: Any) -> None:
        loss = float(pl_module.accumulated_losses[-1][0])
        seen = [trainer.current_epoch, part.batch_idx, trainer.global_step, loss.hex()]
        row = [*seen, digest(part.example_ids), digest(part.batch.x)]
        os.write(self.file, (json.dumps(row) + "\n").encode())
        happens("batch")
        if pl_module.num_accumulated:
            happens("batch in a window")

    def hurry(self) -> None:
        if saves.random() < 0.3:
            self.last.next_save_time = -math.inf

    def on_train_batch_start(self, *_: Any) -> None:
        self.hurry()

    def on_train_epoch_start(self, *_: Any) -> None:
        happens("epoch's start")

    def on_train_epoch_end(self, *_: Any) -> None:
        happens("epoch's end")

    def on_validation_start(self, *_: Any) -> None:
        self.hurry()
        happens("validation's start")

    def on_validation_batch_start(self, *_: Any) -> None:
        happens("validation batch")

    def on_validation_end(self, *_: Any) -> None:
        happens("validation's end")

    def on_test_batch_start(self, *_: Any) -> None:
        happens("test batch")


def tell(owner: Any, name: str, event: str) -> None:
    """Report the calls of a function as events."""
    inner = getattr(owner, name)

    def told(*args: Any, **kwargs: Any) -> Any:
        happens(event)
        return inner(*args, **kwargs)

    setattr(owner, name, told)


def install() -> None:
    """Report events for which callbacks have no hook."""
    tell(checkpoint, "replace_verified", "save")
    tell(os, "fsync", "fsync")
    tell(Path, "replace", "rename")
    tell(CSV, "log_metrics", "row")
    tell(RunFolder, "write_summary", "summary")


def break_step(what: str, value: float, epoch: int, number: int) -> None:
    """Put a number that is not finite into a batch's "images", "loss" or a "gradient", whenever it is trained on."""
    train_batch, compute_loss = LatentVariableModel.train_batch, LatentVariableModel.compute_loss
    now = False

    def train(self: Any, part: Any) -> None:
        nonlocal now
        now = (self.current_epoch, part.batch_idx) == (epoch, number)
        handles = []
        if now and what == "images":
            part.batch.x[0, 0, 0, 0] = value
        if now and what == "gradient":
            parameter = list(self.parameters())[-1]
            handles.append(parameter.register_hook(lambda gradient: torch.full_like(gradient, value)))
        try:
            train_batch(self, part)
        finally:
            for handle in handles:
                handle.remove()

    def loss(self: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
        result, metrics = compute_loss(self, x, y)
        return (result + value if now and what == "loss" else result), metrics

    LatentVariableModel.train_batch, LatentVariableModel.compute_loss = train, loss  # type: ignore[method-assign]
