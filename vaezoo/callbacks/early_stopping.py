"""The end of a training that gets no better."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import early_stopping


class EarlyStopping(early_stopping.EarlyStopping):
    """Lightning's, for runs that are resumed: what it has stopped does not go on, and no validation counts twice."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.stopping_reason != early_stopping.EarlyStoppingReason.NOT_STOPPED:  # in an earlier attempt
            trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.before = self.state_dict()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """In a validation, write down the state before it: it is run again, whole."""
        if trainer.validating:
            checkpoint["callbacks"][self.state_key] = self.before
