"""The Bernoulli family for binary data, and its continuous form for the interval [0, 1]."""

import torch
from torch import Tensor
from torch.distributions import Bernoulli as TorchBernoulli

from vaezoo.distributions import ContinuousBernoulliDistribution
from vaezoo.distributions.numerics import bisect
from vaezoo.families.base import Family


class Bernoulli(Family):
    """Bernoulli(sigmoid(l)), for binary data only.

    For grey values, its cross-entropy is not a likelihood: choose ``ContinuousBernoulli`` or ``DiscretizedLogistic``,
    or binarize the data. Raw output: the logit l.
    """

    supported_data = frozenset({"binary"})

    def forward(self, *params: Tensor) -> TorchBernoulli:
        (logits,) = params
        return TorchBernoulli(logits=logits, validate_args=False)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return (torch.logit(mean, eps=1e-3),)  # clipped as in Burda et al. 2016


class ContinuousBernoulli(Family):
    """The continuous Bernoulli p(x) = C(p) p^x (1 - p)^(1 - x) on [0, 1]: the cross-entropy of grey values, normalized.

    Raw output: the logit of p.

    Reference: Loaiza-Ganem & Cunningham 2019, The continuous Bernoulli, https://arxiv.org/abs/1907.06845.
    """

    supported_data = frozenset({"byte", "unit"})

    def forward(self, *params: Tensor) -> ContinuousBernoulliDistribution:
        (logits,) = params
        return ContinuousBernoulliDistribution(logits)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        # The inverse of the mean has no closed form. At the two limits the mean is 0.02 and 0.98.
        return (bisect(lambda logits: self(logits).mean, mean, limit=50.0),)
