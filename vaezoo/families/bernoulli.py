"""Families of bits and of the unit interval: the Bernoulli and its continuous form."""

import torch
from torch import Tensor
from torch.distributions import Bernoulli as TorchBernoulli

from vaezoo.distributions import ContinuousBernoulliDistribution
from vaezoo.distributions.numerics import bisect
from vaezoo.families.base import Family


class Bernoulli(Family):
    """Bernoulli(sigmoid(logit)): for binary data alone. On grey data its cross-entropy is no
    likelihood (choose ``ContinuousBernoulli`` or ``DiscretizedLogistic``, or binarise).
    """

    supported_data = frozenset({"binary"})

    def forward(self, *params: Tensor) -> TorchBernoulli:
        (logits,) = params
        return TorchBernoulli(logits=logits, validate_args=False)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return (torch.logit(mean, eps=1e-3),)  # the clip of Burda et al. 2016


class ContinuousBernoulli(Family):
    """Continuous Bernoulli on [0, 1] (Loaiza-Ganem & Cunningham 2019, https://arxiv.org/abs/1907.06845):
    p(x) = C(p) p^x (1 - p)^(1 - x), the normalised form of cross-entropy on grey pixels.
    """

    supported_data = frozenset({"byte", "unit"})

    def forward(self, *params: Tensor) -> ContinuousBernoulliDistribution:
        (logits,) = params
        return ContinuousBernoulliDistribution(logits)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        # The mean has no inverse in closed form. At the limits it is 0.02 and 0.98.
        return (bisect(lambda logits: self(logits).mean, mean, limit=50.0),)
