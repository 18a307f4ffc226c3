"""A mixture of discretized logistics over all channels of a pixel."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Distribution

from vaezoo.distributions.discretized_logistic import DiscretizedLogisticDistribution


class CoupledMixtureDistribution(Distribution):
    """A mixture over the channels of each pixel, with one component for all of them, over images (C, H, W).

        P(x) = sum_i pi_i prod_c DiscretizedLogistic(x_c; loc_ic + sum_{d < c} a_icd (x_d - 1/2), scale_ic)

    Args:
        logits: unnormalized ln pi_i, (*batch, n, H, W).
        loc: the locations, (*batch, n, C, H, W).
        log_scale: logarithms of the scales, (*batch, n, C, H, W).
        coefficients: a_icd for (c, d) = (1, 0), (2, 0), (2, 1), (3, 0), ..., each (*batch, n, C (C - 1) / 2, H, W).
    """

    def __init__(self, logits: Tensor, loc: Tensor, log_scale: Tensor, coefficients: Tensor):
        self.logits, self.loc, self.log_scale, self.coefficients = logits, loc, log_scale, coefficients
        super().__init__(loc.shape[:-4], loc.shape[-3:], validate_args=False)

    def expand(self, batch_shape, _instance=None):
        tensors = (self.logits, self.loc, self.log_scale, self.coefficients)
        dims = len(self.batch_shape)
        return CoupledMixtureDistribution(*(tensor.expand(*batch_shape, *tensor.shape[dims:]) for tensor in tensors))

    def channel(self, c: int, before: Sequence[Tensor]) -> DiscretizedLogisticDistribution:
        """Return the distribution of channel c in each component, batch shape (*batch, n, H, W).

        Args:
            c: index of the channel.
            before: x_0, ..., x_{c-1}, each of a shape that broadcasts against (*batch, n, H, W).
        """
        loc = self.loc[..., c, :, :]
        for d, x in enumerate(before):
            loc = loc + self.coefficients[..., c * (c - 1) // 2 + d, :, :] * (x - 0.5)
        return DiscretizedLogisticDistribution(loc, self.log_scale[..., c, :, :])

    def log_prob(self, value: Tensor) -> Tensor:
        channels = value.unsqueeze(-4).unbind(-3)  # each (*batch, 1, H, W)
        parts = [self.channel(c, channels[:c]).log_prob(x) for c, x in enumerate(channels)]
        log_p = parts[0]
        for part in parts[1:]:
            log_p = log_p + part
        return torch.logsumexp(log_p + self.logits.log_softmax(-3), -3).flatten(-2).sum(-1)

    @property
    def mean(self) -> Tensor:
        """The mean of each channel, if the channels before it are at their means in each component.

        For the first channel it is the mean; for the others it is the mean as far as no probability is in the tails
        beyond 0 and 1.
        """
        means: list[Tensor] = []
        for c in range(self.event_shape[0]):
            means.append(self.channel(c, means).mean)
        return (self.logits.softmax(-3).unsqueeze(-3) * torch.stack(means, -3)).sum(-4)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        sample_shape = torch.Size(sample_shape)
        weights = TorchCategorical(logits=self.logits.movedim(-3, -1), validate_args=False)
        component = weights.sample(sample_shape).unsqueeze(-3)  # (*sample, *batch, 1, H, W)
        chosen: list[Any] = []
        for tensor in (self.loc, self.log_scale, self.coefficients):
            all_samples = tensor.expand(*sample_shape, *tensor.shape)
            index = component.unsqueeze(-3).expand(*component.shape[:-3], 1, *all_samples.shape[-3:])
            chosen.append(all_samples.gather(-4, index))
        one = CoupledMixtureDistribution(torch.zeros_like(component, dtype=self.loc.dtype), *chosen)
        channels: list[Tensor] = []
        for c in range(self.event_shape[0]):
            channels.append(one.channel(c, channels).sample())
        return torch.cat(channels, -3)
