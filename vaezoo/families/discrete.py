"""Families of 8-bit data, k / 255 for k = 0 ... 255: masses, so bits per dimension follow."""

import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import MixtureSameFamily

from vaezoo.distributions import CategoricalDistribution, DiscretizedLogisticDistribution
from vaezoo.distributions.numerics import bisect, soft_floor
from vaezoo.families.base import Family


class DiscretizedLogistic(Family):
    """Discretised logistic over the 256 levels of 8-bit data: a mass, so bits per dimension follow.

    Args:
        min_log_scale: floor of log scale, in units of the data range.
    """

    num_outputs = 2
    supported_data = frozenset({"byte"})

    def __init__(self, min_log_scale: float = -7.0):
        super().__init__()
        self.min_log_scale = min_log_scale

    def forward(self, *params: Tensor) -> DiscretizedLogisticDistribution:
        loc, log_scale = params
        return DiscretizedLogisticDistribution(loc, soft_floor(log_scale, self.min_log_scale))

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return mean, torch.full_like(mean, -2.0)  # a scale of 0.14, not of the whole range


class MixtureOfDiscretizedLogistics(Family):
    """sum_i pi_i DiscretizedLogistic(loc_i, scale_i), for each pixel and channel by itself.

    The likelihood of PixelCNN++ (Salimans et al. 2017, https://arxiv.org/abs/1701.05517, eq. 2), except
    that theirs also lets the means of green and blue depend on the channels before: colours are not
    coupled here. With one component it is ``DiscretizedLogistic``.

    Args:
        num_components: >= 1.
        min_log_scale: floor of each log scale, in units of the data range.
    """

    supported_data = frozenset({"byte"})

    def __init__(self, num_components: int = 10, min_log_scale: float = -7.0):
        super().__init__()
        if num_components < 1:
            raise ValueError(f"num_components must be >= 1, got {num_components}")
        self.num_components, self.min_log_scale = num_components, min_log_scale
        self.num_outputs = 3 * num_components  # all weights' logits, then all locations, then all log scales

    def forward(self, *params: Tensor) -> MixtureSameFamily:
        n = self.num_components
        logits, loc, log_scale = (torch.stack(params[i : i + n], -1) for i in (0, n, 2 * n))
        component = DiscretizedLogisticDistribution(loc, soft_floor(log_scale, self.min_log_scale))
        weights = TorchCategorical(logits=logits, validate_args=False)
        return MixtureSameFamily(weights, component, validate_args=False)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        same = [torch.zeros_like(mean)] * self.num_components
        loc, log_scale = mean, torch.full_like(mean, -2.0)  # as the single logistic; the network parts them
        return (*same, *[loc] * self.num_components, *[log_scale] * self.num_components)


class Categorical(Family):
    """A softmax over the 256 levels of 8-bit data, for each pixel and channel by itself.

    The most general elementwise mass (van den Oord et al. 2016, https://arxiv.org/abs/1601.06759,
    section 3.4), which knows nothing of the order of the levels; the network emits 256 planes.
    """

    num_outputs = 256
    supported_data = frozenset({"byte"})

    def forward(self, *params: Tensor) -> CategoricalDistribution:
        return CategoricalDistribution(torch.stack(params, -1))

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        # Logits linear in the level: of all masses with this mean that of the most entropy. At the
        # limits the mean is 0.02 and 0.98, so that no level is all but excluded at the start.
        levels = torch.linspace(0, 1, self.num_outputs, dtype=mean.dtype, device=mean.device)
        slope = bisect(lambda slope: CategoricalDistribution(slope[..., None] * levels).mean, mean, limit=50.0)
        return (slope[..., None] * levels).unbind(-1)
