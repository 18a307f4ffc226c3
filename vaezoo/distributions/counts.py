"""Distributions of counts 0, 1, 2, ...: samples are int64, and log probabilities are computed in float64.

Terms such as ln x! are far larger than their sum: at x = 100,000, float32 would be wrong by 0.1 nats.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

from vaezoo.distributions.numerics import accumulation_dtype


class PoissonDistribution(Distribution):
    """The Poisson distribution, P(x) = rate^x exp(-rate) / x!.

    Args:
        log_rate: ln of the rate, any shape.
    """

    def __init__(self, log_rate: Tensor):
        self.log_rate = log_rate
        super().__init__(log_rate.shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return PoissonDistribution(self.log_rate.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        dtype = accumulation_dtype(self.log_rate)
        log_rate, x = self.log_rate.to(dtype), value.to(dtype)
        return (x * log_rate - log_rate.exp() - torch.lgamma(x + 1)).to(self.log_rate.dtype)

    @property
    def mean(self) -> Tensor:
        return self.log_rate.exp()

    @property
    def variance(self) -> Tensor:
        return self.mean

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return torch.poisson(self.mean.expand(self._extended_shape(torch.Size(sample_shape)))).long()


class NegativeBinomialDistribution(Distribution):
    """The negative binomial distribution with mean mu and dispersion theta: a Poisson whose rate has a gamma density.

        P(x) = Gamma(x + theta) / (Gamma(theta) x!) (theta / (theta + mu))^theta (mu / (theta + mu))^x

    The variance is mu + mu^2 / theta. For theta to infinity it is the Poisson distribution.

    Args:
        log_mean: ln mu, any shape.
        log_dispersion: ln theta, a shape that broadcasts against ``log_mean``.
    """

    def __init__(self, log_mean: Tensor, log_dispersion: Tensor):
        self.log_mean, self.log_dispersion = torch.broadcast_tensors(log_mean, log_dispersion)
        super().__init__(self.log_mean.shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return NegativeBinomialDistribution(self.log_mean.expand(batch_shape), self.log_dispersion.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        dtype = accumulation_dtype(self.log_mean)
        log_dispersion, x = self.log_dispersion.to(dtype), value.to(dtype)
        theta, log_odds = log_dispersion.exp(), self.log_mean.to(dtype) - log_dispersion  # of mu / (theta + mu)
        log_ways = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
        log_p = log_ways + theta * F.logsigmoid(-log_odds) + x * F.logsigmoid(log_odds)
        return log_p.to(self.log_mean.dtype)

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        return self.mean + (2 * self.log_mean - self.log_dispersion).exp()

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        theta = self.log_dispersion.exp().expand(self._extended_shape(torch.Size(sample_shape)))
        gamma = torch.distributions.Gamma(theta, torch.ones_like(theta), validate_args=False).sample()
        return torch.poisson(gamma * (self.log_mean - self.log_dispersion).exp()).long()


class ZeroInflatedDistribution(Distribution):
    """Counts that are 0 with probability pi for a reason of their own, and else follow another distribution.

        P(0) = pi + (1 - pi) P_base(0),  P(x) = (1 - pi) P_base(x) for x > 0

    Args:
        base: the other distribution, elementwise.
        logits: logits of pi, a shape that broadcasts against the batch shape of ``base``.
    """

    def __init__(self, base: Distribution, logits: Tensor):
        self.base, self.logits = base, logits
        super().__init__(torch.broadcast_shapes(base.batch_shape, logits.shape), validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return ZeroInflatedDistribution(self.base.expand(batch_shape), self.logits.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        log_p = F.logsigmoid(-self.logits) + self.base.log_prob(value)
        return torch.where(value == 0, torch.logaddexp(F.logsigmoid(self.logits), log_p), log_p)

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(-self.logits) * self.base.mean

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        counts = self.base.expand(self.batch_shape).sample(torch.Size(sample_shape))
        return counts * (torch.rand_like(self.logits.expand(counts.shape)) >= torch.sigmoid(self.logits))
