"""Early stopping."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import early_stopping

from vaezoo.callbacks.checkpoints import check_monitor
from vaezoo.errors import ConfigError


class EarlyStopping(early_stopping.EarlyStopping):
    """Lightning's ``EarlyStopping``, made safe for resumed runs.

    A training that was stopped early does not continue when it is resumed, and a validation that is repeated after a
    resume counts once.

    Args:
        monitor: name of the metric; None: ``val/elbo``, or what a model without an ELBO monitors.
        patience: validations without a better value after which the training stops; >= 0.
        min_delta: least improvement that counts as a better value; >= 0.
        **kwargs: further arguments of Lightning's ``EarlyStopping``.
    """

    def __init__(self, monitor: str | None = None, patience: int = 3, min_delta: float = 0.0, **kwargs: Any):
        for name, value in {"patience": patience, "min_delta": min_delta}.items():
            if value < 0:
                raise ValueError(f"callbacks.early_stopping.{name} must be >= 0, got {value}")
        super().__init__(monitor=monitor or "", patience=patience, min_delta=min_delta, **kwargs)

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self.monitor = self.monitor or f"val/{pl_module.monitored}"
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.stopping_reason != early_stopping.EarlyStoppingReason.NOT_STOPPED:  # before this resume
            trainer.should_stop = True
        if trainer.limit_val_batches == 0 and self.monitor.startswith("val/"):
            raise ConfigError(
                f"callbacks.early_stopping.monitor={self.monitor} needs a validation, and trainer.limit_val_batches=0 "
                f"turns it off: leave one of them out"
            )

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.state_before_validation = self.state_dict()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            check_monitor(trainer, "early_stopping", self.monitor)
        super().on_validation_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """During a validation, save the state before it: a resumed training repeats the validation."""
        if trainer.validating:
            checkpoint["callbacks"][self.state_key] = self.state_before_validation
