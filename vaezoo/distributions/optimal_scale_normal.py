"""A normal distribution whose one scale maximizes the likelihood of the batch."""

import math
from collections.abc import Callable

from torch import Tensor
from torch.distributions import Normal as TorchNormal


class OptimalScaleNormalDistribution(TorchNormal):
    """N(loc, scale^2) that, where it is given ``fit``, scores data with the scale that fits them best.

    Args:
        loc: (*batch, *event).
        scale: standard deviation of samples, and of ``log_prob`` without ``fit``; it broadcasts against loc.
        fit: from the mean squared error of the data scored to their scale, both ().
    """

    def __init__(self, loc: Tensor, scale: Tensor, fit: Callable[[Tensor], Tensor] | None = None):
        super().__init__(loc, scale.expand_as(loc), validate_args=False)
        self.fit = fit

    def expand(self, batch_shape, _instance=None):
        return OptimalScaleNormalDistribution(self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.fit)

    def log_prob(self, value: Tensor) -> Tensor:
        square = (value - self.loc).square()
        scale = self.scale if self.fit is None else self.fit(square.mean())
        return -square / (2 * scale.square()) - scale.log() - math.log(2 * math.pi) / 2
