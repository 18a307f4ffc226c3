"""Weight averaging over optimizer steps."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EMAWeightAveraging

from vaezoo.types import IndexedBatch


class EMA(EMAWeightAveraging):
    """Exponential moving average of the weights: Lightning's, asked after each batch and not after each chunk of them.

    Validation, test and checkpoints use the average.

    Args:
        decay: share of the average that stays at an update, in [0, 1).
        use_buffers: average buffers too, else they are copied.
        **kwargs: those of ``EMAWeightAveraging``.
    """

    def __init__(self, decay: float = 0.999, use_buffers: bool = False, **kwargs: Any):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        super().__init__(decay=decay, use_buffers=use_buffers, **kwargs)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.final_weights: dict[str, Any] = {}  # those of the training's end, which the average takes the place of

    def on_microbatch_end(self, trainer: pl.Trainer, pl_module: Any, part: IndexedBatch) -> None:
        """Average, where a step was taken."""
        super().on_train_batch_end(trainer, pl_module, None, part.batch, part.batch_idx)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.final_weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
        super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """After the training, too, write down the weights that it would go on from, beside their average."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if trainer.state.fn == "fit" and self.final_weights:
            checkpoint["current_model_state"] = self.final_weights

    def on_train_batch_end(self, *_: Any) -> None:
        """Nothing: each batch of the chunk had its turn."""
