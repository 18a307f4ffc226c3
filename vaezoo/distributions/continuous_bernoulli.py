"""The continuous Bernoulli distribution."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution


class ContinuousBernoulliDistribution(Distribution):
    """Density C(p) p^x (1 - p)^(1 - x) on [0, 1], in the logit l of p.

    In l the normaliser C = 2 atanh(1 - 2p) / (1 - 2p) is l / tanh(l / 2), exact for every l; torch's
    own class works in p, which saturates at 1 - 1e-7 (0.9 nats short per pixel at l = 40). Around
    l = 0 closed forms are 0 / 0: they are evaluated away from it, and a series is taken there.
    """

    has_rsample = True
    small = 0.02

    def __init__(self, logits: Tensor):
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return ContinuousBernoulliDistribution(self.logits.expand(batch_shape))

    def size(self, least: float) -> Tensor:
        """|l|, with 1 in place of what is below ``least``."""
        size = self.logits.abs()
        return torch.where(size < least, torch.ones_like(size), size)

    def log_prob(self, value: Tensor) -> Tensor:
        s, square = self.size(self.small), self.logits.square()
        series = math.log(2) + square / 12 - 7 * square.square() / 1440
        log_norm = torch.where(self.logits.abs() < self.small, series, torch.log(s / torch.tanh(s / 2)))
        return value * self.logits - F.softplus(self.logits) + log_norm

    @property
    def mean(self) -> Tensor:
        """1 / (1 - exp(-l)) - 1 / l, and 1 minus that of -l."""
        s, logits = self.size(self.small), self.logits
        series = 0.5 + logits / 12 - logits.pow(3) / 720
        upper = -1 / torch.expm1(-s) - 1 / s
        return torch.where(logits.abs() < self.small, series, torch.where(logits > 0, upper, 1 - upper))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles of the truncated exponential, -log(1 - u (1 - exp(-s))) / s, mirrored for l > 0."""
        s, positive = self.size(1e-6), self.logits > 0
        u = torch.where(positive, 1 - value, value)
        x = (-torch.log1p(u * torch.expm1(-s)) / s).clamp(0, 1)  # rounding may leave [0, 1]
        x = torch.where(self.logits.abs() < 1e-6, u, x)
        return torch.where(positive, 1 - x, x)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        return self.icdf(torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device))
