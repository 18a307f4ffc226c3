"""A categorical distribution over the 256 levels of 8-bit data."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Distribution


class CategoricalDistribution(Distribution):
    """A probability for each of the levels k / (n - 1), k = 0 ... n - 1.

    Args:
        logits: unnormalized log probabilities of the n levels, (*batch, n).
    """

    def __init__(self, logits: Tensor):
        self.levels = TorchCategorical(logits=logits, validate_args=False)
        self.top = logits.shape[-1] - 1
        super().__init__(logits.shape[:-1], validate_args=False)

    def expand(self, batch_shape, _instance=None):
        logits = self.levels.logits
        return CategoricalDistribution(logits.expand(*batch_shape, logits.shape[-1]))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.levels.log_prob((value * self.top).round())

    @property
    def mean(self) -> Tensor:
        probs = self.levels.probs
        levels = torch.linspace(0, 1, self.top + 1, dtype=probs.dtype, device=probs.device)
        return (probs * levels).sum(-1)  # not a matrix product, which autocast would round to bf16

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.levels.sample(torch.Size(sample_shape)).to(self.levels.logits.dtype) / self.top
