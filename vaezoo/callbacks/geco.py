"""A constraint on the distortion in place of a weight on the rate."""

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from vaezoo.types import IndexedBatch


class GECO(pl.Callback):
    """Least rate at a given distortion: Rezende & Viola 2018, https://arxiv.org/abs/1810.00597.

    Minimise KL(q, p) subject to E_q[-log p(x | z)] <= target by a multiplier lambda of the constraint,
    which each batch multiplies by exp(speed * C), C the running mean of distortion - target (their
    algorithm 1). Divided by lambda the Lagrangian is ``-log_px + beta KL`` with beta = 1 / lambda, so
    any objective with a weight on its rate can be steered, and that weight is what this writes.

    Args:
        target: distortion to reach, nats per example.
        speed: change of log beta per batch and nat; > 0.
        momentum: of the running mean, in [0, 1).
    """

    max_abs_log_beta = math.log(1e4)  # of |log beta|

    def __init__(self, target: float, speed: float = 1e-3, momentum: float = 0.99):
        if not (math.isfinite(target) and 0 < speed < math.inf and 0 <= momentum < 1):
            raise ValueError(
                f"callbacks.anneal: target must be finite, speed > 0 and momentum in [0, 1), "
                f"got {target}, {speed} and {momentum}"
            )
        self.target, self.speed, self.momentum = target, speed, momentum
        self.log_beta: Tensor | None = None
        self.mean_excess: Tensor | None = None  # the running mean of distortion - target

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        objective = pl_module.objective
        if objective.kl_weight is None:
            raise ValueError(
                f"callbacks/anneal=geco: {type(objective).__name__} has no weight on the rate to steer, "
                f"take a model whose objective is the ELBO"
            )
        if self.target <= 0 and pl_module.likelihood.supported_data <= {"binary", "byte"}:  # no mass is above 1
            raise ValueError(f"callbacks.anneal.target={self.target}: the distortion of bits and levels is above 0")
        self.weight = objective.get_buffer(objective.kl_weight)
        if self.log_beta is None:  # else it came from a checkpoint
            self.log_beta = self.weight.clamp(min=math.exp(-self.max_abs_log_beta)).log()
        self.log_beta = self.log_beta.to(self.weight)
        self.weight.copy_(self.log_beta.exp())

    def on_microbatch_end(self, trainer: pl.Trainer, pl_module: Any, part: IndexedBatch) -> None:
        """Steer by the batch's mean of log p(x | z)."""
        assert self.log_beta is not None
        distortion = trainer.strategy.reduce(-pl_module.last_metrics["log_px"].to(self.log_beta))
        now = distortion - self.target
        before = torch.zeros_like(now) if self.mean_excess is None else self.mean_excess.to(now)
        after = now if self.mean_excess is None else torch.lerp(now, before, self.momentum)
        self.mean_excess = torch.where(now.isfinite(), after, before)  # else on_nan has left the batch out
        log_beta = self.log_beta - self.speed * self.mean_excess
        self.log_beta = log_beta.clamp(-self.max_abs_log_beta, self.max_abs_log_beta)
        self.weight.copy_(self.log_beta.exp())

    def state_dict(self) -> dict[str, Any]:
        return {"log_beta": self.log_beta, "excess": self.mean_excess}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.log_beta, self.mean_excess = state_dict["log_beta"], state_dict["excess"]
