"""Callbacks of Lightning that do not work with the training loop of this package, and what to use instead."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch import callbacks

# These do nothing or something wrong, because the loop makes its optimizer steps itself, several in each of Lightning's
# steps; or a training with them could not be resumed exactly.
REFUSED: dict[type[pl.Callback], str] = {
    callbacks.BackboneFinetuning: "no model has a backbone: freeze parts with a subclass of BaseFinetuning",
    callbacks.BatchSizeFinder: "set data.batch_size",
    callbacks.GradientAccumulationScheduler: "set trainer.accumulate_grad_batches",
    callbacks.LearningRateFinder: "set optimizer.lr (in Python, optimizer=partial(torch.optim.Adam, lr=1e-3)), or "
    "compare several: -m optimizer.lr=1e-3,1e-4",
    callbacks.ModelPruning: "its masks are in no checkpoint: prune a trained model with torch.nn.utils.prune",
    callbacks.OnExceptionCheckpoint: "use callbacks.checkpoint_last (vaezoo.callbacks.checkpoints.Last)",
    callbacks.SpikeDetection: "use on_nan=skip or trainer.gradient_clip_val",
    callbacks.StochasticWeightAveraging: "use callbacks/ema=default (vaezoo.callbacks.ema.EMA)",
    callbacks.ThroughputMonitor: "use callbacks.monitor (vaezoo.callbacks.monitor.Monitor), which logs the speed",
}
# These count batches or look at single ones, and Lightning calls them once in ``data.batches_per_step`` batches.
NEED_EVERY_BATCH: dict[type[pl.Callback], str] = {
    callbacks.DeviceStatsMonitor: "",
    callbacks.LearningRateMonitor: "callbacks.monitor (vaezoo.callbacks.monitor.Monitor), which logs the learning rate",
    callbacks.ModelCheckpoint: "callbacks.checkpoint_last (vaezoo.callbacks.checkpoints.Last)",
    callbacks.WeightAveraging: "callbacks/ema=default (vaezoo.callbacks.ema.EMA)",
}


def check_callbacks(trainer: Any) -> None:
    """Raise a ValueError if a callback of the trainer does not work with the training loop of this package."""
    batches_per_step = getattr(trainer.datamodule, "effective_batches_per_step", 1)
    for callback in trainer.callbacks:  # type: pl.Callback
        name = type(callback).__name__
        for kind, advice in REFUSED.items():
            if isinstance(callback, kind):
                raise ValueError(f"the callback {name} does not work with vaezoo's training loop: {advice}")
        for kind, instead in NEED_EVERY_BATCH.items():
            if isinstance(callback, kind) and batches_per_step > 1 and counts_batches(callback):
                other = f" or {instead}" if instead else ""
                raise ValueError(
                    f"the callback {name} would be called after every {batches_per_step} batches only: "
                    f"use data.batches_per_step=1{other}"
                )


def counts_batches(callback: pl.Callback) -> bool:
    """Return whether a callback needs a call for each batch.

    Callbacks of this package do not: ``on_microbatch_end`` is called for each batch. A ``ModelCheckpoint`` does if it
    counts steps.
    """
    if isinstance(callback, callbacks.ModelCheckpoint):
        return "'every_n_train_steps': 0" not in callback.state_key
    return not hasattr(callback, "on_microbatch_end")
