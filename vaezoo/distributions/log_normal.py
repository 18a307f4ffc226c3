"""The log-normal distribution."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution


class LogNormalDistribution(Distribution):
    """The distribution of x = exp(y) with y ~ N(loc, scale^2), in closed form.

    Args:
        loc: mean of ln x, any shape.
        scale: standard deviation of ln x, a shape that broadcasts against ``loc``.
    """

    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor):
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return LogNormalDistribution(self.loc.expand(batch_shape), self.scale.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        y = value.log()
        error = (y - self.loc) / self.scale
        return -error.square() / 2 - self.scale.log() - math.log(2 * math.pi) / 2 - y

    @property
    def mean(self) -> Tensor:
        return (self.loc + self.scale.square() / 2).exp()

    @property
    def mode(self) -> Tensor:
        return (self.loc - self.scale.square()).exp()

    @property
    def variance(self) -> Tensor:
        return torch.expm1(self.scale.square()) * (2 * self.loc + self.scale.square()).exp()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        eps = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return (self.loc + self.scale * eps).exp()
