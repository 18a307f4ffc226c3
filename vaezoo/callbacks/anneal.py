"""Schedules for an objective's weights, counted in optimizer steps."""

from abc import abstractmethod
from typing import Any

import lightning.pytorch as pl


class Anneal(pl.Callback):
    """Multiplies one weight of the objective by a function of the optimizer step.

    The value is a function of the step alone, so a resumed run goes on where it was.

    Args:
        weight: name of the weight, such as ``beta`` or ``free_bits``.
    """

    def __init__(self, weight: str = "beta"):
        self.weight = weight

    @abstractmethod
    def factor(self, step: int) -> float:
        """What the configured weight is multiplied by at this step."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        weights = pl_module.objective.configured_weights
        if self.weight not in weights:
            fix = f"choose from {', '.join(sorted(weights))}" if weights else "nor any other: use callbacks/anneal=null"
            raise ValueError(
                f"callbacks.anneal.weight={self.weight}: {type(pl_module.objective).__name__} has no such weight, {fix}"
            )
        if weights[self.weight] == 0:
            raise ValueError(f"callbacks.anneal.weight={self.weight} is configured as 0, of which all shares are 0")
        pl_module.objective.schedules[self.weight] = self.factor


class LinearWarmup(Anneal):
    """From ``start`` to 1 over ``steps``, then 1 (Bowman et al. 2016, Sonderby et al. 2016).

    Args:
        steps: optimizer steps until the full weight; >= 1.
        start: factor at step 0.
    """

    def __init__(self, weight: str = "beta", steps: int = 1000, start: float = 0.0):
        super().__init__(weight)
        if steps < 1 or not 0 <= start <= 1:
            raise ValueError(f"callbacks.anneal: steps must be >= 1 and start in [0, 1], got {steps} and {start}")
        self.steps, self.start = steps, start

    def factor(self, step: int) -> float:
        return self.start + (1 - self.start) * min(1.0, step / self.steps)


class Cyclical(Anneal):
    """From 0 to 1 over the first ``ratio`` of each period, then 1 (Fu et al. 2019,
    https://arxiv.org/abs/1903.10145, eq. 6).

    Args:
        period: optimizer steps of a cycle; >= 1.
        ratio: fraction of a cycle in which the weight rises, in (0, 1].
    """

    def __init__(self, weight: str = "beta", period: int = 1000, ratio: float = 0.5):
        super().__init__(weight)
        if period < 1 or not 0 < ratio <= 1:
            raise ValueError(f"callbacks.anneal: period must be >= 1 and ratio in (0, 1], got {period} and {ratio}")
        self.period, self.ratio = period, ratio

    def factor(self, step: int) -> float:
        return min(1.0, (step % self.period) / (self.period * self.ratio))
