"""Schedules for a weight of the objective, counted in optimizer steps."""

from abc import abstractmethod
from typing import Any

import lightning.pytorch as pl


class Anneal(pl.Callback):
    """Multiplies a weight of the objective by a function of the optimizer step.

    The factor depends on the step only, so a resumed training continues the schedule.

    Args:
        weight: name of the weight, such as ``beta`` or ``free_bits``.
    """

    def __init__(self, weight: str = "beta"):
        self.weight = weight

    @abstractmethod
    def factor(self, step: int) -> float:
        """Return the factor of the configured weight at an optimizer step."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        weights = pl_module.objective.configured_weights
        if self.weight not in weights:
            fix = f"choose from {', '.join(sorted(weights))}" if weights else "nor any other: use callbacks/anneal=null"
            raise ValueError(
                f"callbacks.anneal.weight={self.weight}: {type(pl_module.objective).__name__} has no such weight, {fix}"
            )
        if weights[self.weight] == 0:
            raise ValueError(
                f"callbacks.anneal.weight={self.weight} is configured as 0, and a schedule multiplies it: give it a "
                f"value > 0 or use callbacks/anneal=null"
            )
        pl_module.objective.schedules[self.weight] = self.factor


class LinearWarmup(Anneal):
    """Raises the factor linearly from ``start`` to 1 and keeps it there.

    Bowman et al. 2016, "Generating Sentences from a Continuous Space", https://arxiv.org/abs/1511.06349;
    Sonderby et al. 2016, "Ladder Variational Autoencoders", https://arxiv.org/abs/1602.02282.

    Args:
        weight: name of the weight.
        steps: optimizer steps until the full weight; >= 1.
        start: factor at step 0, in [0, 1].

    Example:
        >>> [LinearWarmup(steps=4, start=0.5).factor(step) for step in (0, 2, 4, 9)]
        [0.5, 0.75, 1.0, 1.0]
    """

    def __init__(self, weight: str = "beta", steps: int = 1000, start: float = 0.0):
        super().__init__(weight)
        if steps < 1 or not 0 <= start <= 1:
            raise ValueError(f"callbacks.anneal: steps must be >= 1 and start in [0, 1], got {steps} and {start}")
        self.steps, self.start = steps, start

    def factor(self, step: int) -> float:
        return self.start + (1 - self.start) * min(1.0, step / self.steps)


class Cyclical(Anneal):
    """Raises the factor linearly from 0 to 1 in the first part of each period and keeps it there until its end.

    Fu et al. 2019, "Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing",
    https://arxiv.org/abs/1903.10145, eq. 6.

    Args:
        weight: name of the weight.
        period: optimizer steps of a cycle; >= 1.
        ratio: fraction of a cycle in which the factor rises, in (0, 1].

    Example:
        >>> [Cyclical(period=4, ratio=0.5).factor(step) for step in range(6)]
        [0.0, 0.5, 1.0, 1.0, 0.0, 0.5]
    """

    def __init__(self, weight: str = "beta", period: int = 1000, ratio: float = 0.5):
        super().__init__(weight)
        if period < 1 or not 0 < ratio <= 1:
            raise ValueError(f"callbacks.anneal: period must be >= 1 and ratio in (0, 1], got {period} and {ratio}")
        self.period, self.ratio = period, ratio

    def factor(self, step: int) -> float:
        return min(1.0, (step % self.period) / (self.period * self.ratio))
