"""GECO: a constraint on the distortion instead of a weight on the KL term."""

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from vaezoo.types import IndexedBatch


class GECO(pl.Callback):
    """Minimizes the KL at a given distortion: generalized ELBO with constrained optimization.

    Minimize KL(q, p) subject to E_q[-log p(x | z)] <= target. Let lambda be the multiplier of the constraint. Divided
    by it, the Lagrangian is ``-log p(x | z) + beta KL`` with beta = 1 / lambda. So this callback works with any
    objective that has a weight on its KL term, and sets that weight. After each batch (algorithm 1 of the paper)

        log beta <- log beta - speed * C,    C: running mean of (distortion - target).

    Rezende and Viola 2018, "Taming VAEs", https://arxiv.org/abs/1810.00597.

    Args:
        target: distortion to reach, in nats per example.
        speed: change of log beta per batch and nat; > 0.
        momentum: fraction of the running mean that a batch keeps, in [0, 1).

    Attributes:
        log_beta: log beta, 0-dim; None before the training.
        mean_excess: C, 0-dim; None before the first batch.
    """

    max_abs_log_beta = math.log(1e4)

    def __init__(self, target: float, speed: float = 1e-3, momentum: float = 0.99):
        if not (math.isfinite(target) and 0 < speed < math.inf and 0 <= momentum < 1):
            raise ValueError(
                f"callbacks.anneal: target must be finite, speed > 0 and momentum in [0, 1), "
                f"got {target}, {speed} and {momentum}"
            )
        self.target, self.speed, self.momentum = target, speed, momentum
        self.log_beta: Tensor | None = None
        self.mean_excess: Tensor | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        objective = pl_module.objective
        if objective.kl_weight is None:
            raise ValueError(
                f"callbacks/anneal=geco: {type(objective).__name__} has no weight on the KL term to set, "
                f"use a model whose objective is the ELBO"
            )
        if self.target <= 0 and pl_module.likelihood.supported_data <= {"binary", "byte"}:
            raise ValueError(  # a probability is at most 1
                f"callbacks.anneal.target={self.target}: the distortion of bits and levels is above 0, give a value > 0"
            )
        self.weight = objective.get_buffer(objective.kl_weight)
        if self.log_beta is None:  # not restored from a checkpoint
            self.log_beta = self.weight.clamp(min=math.exp(-self.max_abs_log_beta)).log()
        self.log_beta = self.log_beta.to(self.weight)
        self.weight.copy_(self.log_beta.exp())

    def on_microbatch_end(self, trainer: pl.Trainer, pl_module: Any, item: IndexedBatch) -> None:
        """Update beta with the distortion of a batch, which is averaged over the processes."""
        assert self.log_beta is not None
        distortion = trainer.strategy.reduce(-pl_module.last_metrics["log_px"].to(self.log_beta))
        excess = distortion - self.target
        before = torch.zeros_like(excess) if self.mean_excess is None else self.mean_excess.to(excess)
        after = excess if self.mean_excess is None else torch.lerp(excess, before, self.momentum)
        self.mean_excess = torch.where(excess.isfinite(), after, before)  # on_nan=skip leaves out such a batch
        log_beta = self.log_beta - self.speed * self.mean_excess
        self.log_beta = log_beta.clamp(-self.max_abs_log_beta, self.max_abs_log_beta)
        self.weight.copy_(self.log_beta.exp())

    def state_dict(self) -> dict[str, Any]:
        return {"log_beta": self.log_beta, "excess": self.mean_excess}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.log_beta, self.mean_excess = state_dict["log_beta"], state_dict["excess"]
