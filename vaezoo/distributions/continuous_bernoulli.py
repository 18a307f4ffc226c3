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
    series_limit = 0.02

    def __init__(self, logits: Tensor):
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return ContinuousBernoulliDistribution(self.logits.expand(batch_shape))

    def abs_logits(self, min_value: float) -> Tensor:
        """|l|, with 1 in place of what is below ``min_value``."""
        size = self.logits.abs()
        return torch.where(size < min_value, torch.ones_like(size), size)

    def log_prob(self, value: Tensor) -> Tensor:
        s, square = self.abs_logits(self.series_limit), self.logits.square()
        series = math.log(2) + square / 12 - 7 * square.square() / 1440
        log_norm = torch.where(self.logits.abs() < self.series_limit, series, torch.log(s / torch.tanh(s / 2)))
        return value * self.logits - F.softplus(self.logits) + log_norm

    @property
    def mean(self) -> Tensor:
        """1 / (1 - exp(-l)) - 1 / l, and 1 minus that of -l."""
        s, logits = self.abs_logits(self.series_limit), self.logits
        series = 0.5 + logits / 12 - logits.pow(3) / 720
        upper = -1 / torch.expm1(-s) - 1 / s
        return torch.where(logits.abs() < self.series_limit, series, torch.where(logits > 0, upper, 1 - upper))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles of the truncated exponential, -log(1 - u (1 - exp(-s))) / s, mirrored for l > 0."""
        s, positive = self.abs_logits(1e-6), self.logits > 0
        u = torch.where(positive, 1 - value, value)
        x = (-torch.log1p(u * torch.expm1(-s)) / s).clamp(0, 1)  # rounding may leave [0, 1]
        x = torch.where(self.logits.abs() < 1e-6, u, x)
        return torch.where(positive, 1 - x, x)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        return self.icdf(torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device))
