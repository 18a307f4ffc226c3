"""Distributions around another one: missing entries are left out or explained, or the unit is another one."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

from vaezoo.missing import fill_missing, is_observed


class WrappedDistribution(Distribution):
    """The base class: mean, mode, variance and samples are those of the wrapped distribution.

    Args:
        base: the wrapped distribution.
    """

    def __init__(self, base: Distribution):
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]  # torch declares a class attribute
        return self.base.has_rsample

    @property
    def mean(self) -> Tensor:
        return self.base.mean

    @property
    def mode(self) -> Tensor:
        return self.base.mode

    @property
    def variance(self) -> Tensor:
        return self.base.variance

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.base.rsample(torch.Size(sample_shape))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.base.sample(torch.Size(sample_shape))


class MaskedDistribution(WrappedDistribution):
    """A distribution whose log density leaves out missing entries: it is 0 for them, with a gradient of 0.

    A missing entry is filled before the density is computed. If NaN were passed to the density, the gradient would be
    NaN even though ``where`` replaces the value afterwards. If one value has several dimensions, it is left out when
    one of them is missing.

    Args:
        base: the distribution.
        fill_value: a value that it can score.
    """

    def __init__(self, base: Distribution, fill_value: float = 0):
        super().__init__(base)
        self.fill_value = fill_value

    def expand(self, batch_shape, _instance=None):
        return MaskedDistribution(self.base.expand(batch_shape), self.fill_value)

    def log_prob(self, value: Tensor) -> Tensor:
        observed = is_observed(value)
        for _ in self.event_shape:
            observed = observed.all(-1)
        return torch.where(observed, self.base.log_prob(fill_missing(value, self.fill_value)), 0)


class RescaledDistribution(WrappedDistribution):
    """The density of u = loc + scale * x at u, for x from a distribution, as a function of x: p(x) / |scale|.

    Args:
        base: the distribution of x; elementwise.
        log_scale: ln |scale|, a shape that broadcasts against the batch shape of ``base``.
    """

    def __init__(self, base: Distribution, log_scale: Tensor):
        super().__init__(base)
        self.log_scale = log_scale

    def expand(self, batch_shape, _instance=None):
        return RescaledDistribution(self.base.expand(batch_shape), self.log_scale)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.base.log_prob(value) - self.log_scale


class SelfMaskedDistribution(WrappedDistribution):
    """Values and which of them are observed, s: each is observed with a probability that depends on the value itself.

        log p(x_o, s | z) >= E[sum_{d in o} log p(x_d | z) + sum_d log p(s_d | x_d)],  x_m ~ p(x_m | z)
        p(s_d = 1 | x_d) = sigmoid(intercept + slope x_d)

    ``log_prob`` is the term in brackets for one draw of the missing values x_m, which has a gradient. The draw is made
    once for a distribution.

    Args:
        base: the distribution of the values, elementwise, with ``rsample``.
        intercept: a shape that broadcasts against the batch shape of ``base``.
        slope: as ``intercept``.
        fill_value: a value that ``base`` can score.
    """

    def __init__(self, base: Distribution, intercept: Tensor, slope: Tensor, fill_value: float = 0):
        super().__init__(base)
        self.intercept, self.slope, self.fill_value = intercept, slope, fill_value
        self.draw: Tensor | None = None

    def expand(self, batch_shape, _instance=None):
        return SelfMaskedDistribution(self.base.expand(batch_shape), self.intercept, self.slope, self.fill_value)

    @property
    def drawn(self) -> Tensor:
        """The draw of all values, in the batch shape, of which ``log_prob`` takes the missing ones."""
        if self.draw is None:
            self.draw = self.base.rsample()
        return self.draw

    def log_prob(self, value: Tensor) -> Tensor:
        observed = is_observed(value)
        filled = fill_missing(value, self.fill_value)
        log_px = torch.where(observed, self.base.log_prob(filled), 0)
        log_odds = self.intercept + self.slope * torch.where(observed, filled, self.drawn)
        return log_px + F.logsigmoid(torch.where(observed, log_odds, -log_odds))
