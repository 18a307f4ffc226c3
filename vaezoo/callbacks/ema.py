"""Exponential moving average of the weights."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EMAWeightAveraging

from vaezoo.types import IndexedBatch


class EMA(EMAWeightAveraging):
    """Exponential moving average of the weights, updated after each optimizer step.

    Validation, test and checkpoints use the average. It is Lightning's ``EMAWeightAveraging``, called after each batch
    instead of after each chunk of batches.

    Args:
        decay: fraction of the average that an update keeps, in [0, 1).
        use_buffers: average the buffers too; if false, they are copied.
        **kwargs: further arguments of ``EMAWeightAveraging``.
    """

    def __init__(self, decay: float = 0.999, use_buffers: bool = False, **kwargs: Any):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        super().__init__(decay=decay, use_buffers=use_buffers, **kwargs)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.final_weights: dict[str, Any] = {}  # of the last step, which the average replaces when the training ends

    def on_microbatch_end(self, trainer: pl.Trainer, pl_module: Any, item: IndexedBatch) -> None:
        """Update the average if an optimizer step was made."""
        super().on_train_batch_end(trainer, pl_module, None, item.batch, item.batch_idx)

    def on_train_batch_end(self, *_: Any) -> None:
        """Do nothing: ``on_microbatch_end`` was called for each batch of the chunk."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.final_weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
        super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Save the weights beside their average after the training too, so that it can be resumed for longer."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if trainer.state.fn == "fit" and self.final_weights:
            checkpoint["current_model_state"] = self.final_weights
