"""A normal distribution whose scale maximizes the likelihood of the data."""

import math
from collections.abc import Callable

from torch import Tensor
from torch.distributions import Normal as TorchNormal


class OptimalScaleNormalDistribution(TorchNormal):
    """N(loc, scale^2). If ``fit_scale`` is given, ``log_prob`` uses the scale that fits the given data best.

    Args:
        loc: mean, (*batch, *event).
        scale: standard deviation of samples, and of ``log_prob`` if there is no ``fit_scale``. It broadcasts against
            ``loc``.
        fit_scale: a function from the mean squared error of the data to the best scale, both of shape ().
    """

    def __init__(self, loc: Tensor, scale: Tensor, fit_scale: Callable[[Tensor], Tensor] | None = None):
        super().__init__(loc, scale.expand_as(loc), validate_args=False)
        self.fit_scale = fit_scale

    def expand(self, batch_shape, _instance=None):
        loc, scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        return OptimalScaleNormalDistribution(loc, scale, self.fit_scale)

    def log_prob(self, value: Tensor) -> Tensor:
        square = (value - self.loc).square()
        scale = self.scale if self.fit_scale is None else self.fit_scale(square.mean())
        return -square / (2 * scale.square()) - scale.log() - math.log(2 * math.pi) / 2
