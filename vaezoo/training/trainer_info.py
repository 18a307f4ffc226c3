"""The trainer's state that a data module needs."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerStatus

from vaezoo.training.lightning_workarounds import last_training_step


class TrainerInfo:
    """Tell the epoch, the process and the device of a trainer.

    The values are read when they are asked for, so one object serves a whole training.

    Args:
        trainer: Lightning's trainer. None: epoch 0, from its first step, in one process on the CPU.

    >>> info = TrainerInfo()
    >>> info.epoch, info.next_step, info.rank, info.world_size, info.device.type
    (0, 0, 0, 1, 'cpu')
    """

    def __init__(self, trainer: pl.Trainer | None = None):
        self.trainer: Any = trainer

    @property
    def epoch(self) -> int:
        """Current epoch, counted from 0."""
        return self.trainer.current_epoch if self.trainer else 0

    @property
    def next_step(self) -> int:
        """First step of the epoch that is still to be done: > 0 if a run is resumed within an epoch."""
        if self.trainer is None:
            return 0
        step = last_training_step(self.trainer) + 1
        return step if step < self.trainer.num_training_batches else 0  # a completed epoch starts anew

    @property
    def rank(self) -> int:
        """Number of this process, counted from 0."""
        return self.trainer.global_rank if self.trainer else 0

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.trainer.world_size if self.trainer else 1

    @property
    def device(self) -> torch.device:
        """Device that this process trains on."""
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    @property
    def takes_chunks(self) -> bool:
        """Return whether a model is being trained that takes several batches in one step (``TrainingLoop``)."""
        is_running = self.trainer is not None and self.trainer.state.status == TrainerStatus.RUNNING
        return is_running and getattr(self.trainer.lightning_module, "takes_chunks", False)

    @property
    def counts_steps(self) -> bool:
        """Return whether an option of the trainer counts steps: ``limit_train_batches``, ``val_check_interval`` or
        ``max_steps``. Each step must then be one batch.
        """
        if self.trainer is None:
            return False
        limits = (self.trainer.limit_train_batches, self.trainer.val_check_interval)
        # 1.0 is all of an epoch, but 1 is one batch.
        return self.trainer.max_steps >= 0 or any(type(limit) is not float or limit != 1.0 for limit in limits)
