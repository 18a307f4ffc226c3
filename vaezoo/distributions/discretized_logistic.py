"""The logistic distribution over the 256 levels of 8-bit data."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

BLOCK = 1 << 15  # numbers in a block of ``mean``


class DiscretizedLogisticDistribution(Distribution):
    """A logistic distribution rounded to the levels k / 255, k = 0 ... 255. The outer levels contain the tails.

    With the edges a < b of a bin in units of the scale, its probability is

        sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b))

    The product keeps all digits; the difference can lose all of them.

    Reference: Kingma et al. 2016, Improved Variational Inference with Inverse Autoregressive Flow,
    https://arxiv.org/abs/1606.04934.

    Args:
        loc: location, any shape, in the units of the data: [0, 1].
        log_scale: logarithm of the scale, a shape that broadcasts against ``loc``.
    """

    num_levels = 256

    def __init__(self, loc: Tensor, log_scale: Tensor):
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)
        super().__init__(self.loc.shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return DiscretizedLogisticDistribution(self.loc.expand(batch_shape), self.log_scale.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        step = 1 / (self.num_levels - 1)
        inverse_scale = torch.exp(-self.log_scale)
        centre = value - self.loc
        lowest, highest = value < step / 2, value > 1 - step / 2  # their outer edges are at infinity
        a = torch.where(lowest, -torch.inf, (centre - step / 2) * inverse_scale)
        b = torch.where(highest, torch.inf, (centre + step / 2) * inverse_scale)
        width = torch.where(lowest | highest, torch.inf, step * inverse_scale)
        return F.logsigmoid(b) + F.logsigmoid(-a) + torch.log(-torch.expm1(-width))

    @property
    def mean(self) -> Tensor:
        """The mean of the rounded variable: sum_k P(X > k / 255) / 255."""
        step = 1 / (self.num_levels - 1)
        if torch.compiler.is_exporting():
            return self.mean_for_export(step)
        means = []
        # In blocks that stay in the processor's cache: many times as fast for a mixture over images.
        blocks = zip(self.loc.flatten().split(BLOCK), self.log_scale.flatten().split(BLOCK), strict=True)
        for loc, log_scale in blocks:
            total, inverse_scale = torch.zeros_like(loc), torch.exp(-log_scale)
            for k in range(self.num_levels - 1):
                total = total + torch.sigmoid((loc - (k + 0.5) * step) * inverse_scale)
            means.append(total * step)
        return torch.cat(means).reshape(self.loc.shape)

    def mean_for_export(self, step: float) -> Tensor:
        """Return the mean as a small graph for any batch size: 15 levels at a time, and no blocks."""
        loc, inverse_scale = self.loc[..., None], torch.exp(-self.log_scale)[..., None]
        total = torch.zeros_like(self.loc)
        for first in range(0, self.num_levels - 1, 15):
            thresholds = (torch.arange(first, first + 15).to(loc) + 0.5) * step
            total = total + torch.sigmoid((loc - thresholds) * inverse_scale).sum(-1)
        return total * step

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        x = self.loc + self.log_scale.exp() * torch.logit(u, eps=torch.finfo(u.dtype).eps)
        top = self.num_levels - 1
        return (x * top).round().clamp(0, top) / top
