"""Families of 8-bit data, k / 255 for k = 0 ... 255. They are probabilities, so bits per dimension can be computed."""

import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import MixtureSameFamily

from vaezoo.distributions import (
    CategoricalDistribution,
    CoupledMixtureDistribution,
    DiscretizedLogisticDistribution,
)
from vaezoo.distributions.numerics import bisect, soft_floor
from vaezoo.families.base import Family
from vaezoo.types import Shape


class DiscretizedLogistic(Family):
    """The logistic distribution discretized to the 256 levels of 8-bit data.

    Raw outputs: the location and the log scale, which has a soft floor.

    Args:
        min_log_scale: floor of the log scale, with the scale in the units of the data, [0, 1].
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
        return mean, torch.full_like(mean, -2.0)  # a scale of 0.14 of the data range


class MixtureOfDiscretizedLogistics(Family):
    """A mixture of discretized logistics, sum_i pi_i DiscretizedLogistic(loc_i, scale_i), for each pixel and channel.

    Raw outputs: the logits of all weights, then all locations, then all log scales. With one component it is
    ``DiscretizedLogistic``.

    Reference: Salimans et al. 2017, PixelCNN++, https://arxiv.org/abs/1701.05517, eq. 2. Differs from the paper: there,
    the means of green and blue also depend on the channels before them; here, the channels are independent given z.

    Args:
        num_components: number of components; >= 1.
        min_log_scale: floor of each log scale, with the scale in the units of the data, [0, 1].
    """

    supported_data = frozenset({"byte"})

    def __init__(self, num_components: int = 10, min_log_scale: float = -7.0):
        super().__init__()
        if num_components < 1:
            raise ValueError(f"num_components must be >= 1, got {num_components}")
        self.num_components, self.min_log_scale = num_components, min_log_scale
        self.num_outputs = 3 * num_components  # the logits of all weights, all locations, all log scales

    def forward(self, *params: Tensor) -> MixtureSameFamily:
        n = self.num_components
        logits, loc, log_scale = (torch.stack(params[i : i + n], -1) for i in (0, n, 2 * n))
        component = DiscretizedLogisticDistribution(loc, soft_floor(log_scale, self.min_log_scale))
        weights = TorchCategorical(logits=logits, validate_args=False)
        return MixtureSameFamily(weights, component, validate_args=False)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        same = [torch.zeros_like(mean)] * self.num_components
        # As for a single logistic. The network makes the components differ.
        loc, log_scale = mean, torch.full_like(mean, -2.0)
        return (*same, *[loc] * self.num_components, *[log_scale] * self.num_components)


class CoupledMixtureOfLogistics(Family):
    """A mixture of discretized logistics for each pixel, with one component for all channels of the pixel.

        P(x) = sum_i pi_i prod_c DiscretizedLogistic(x_c; loc_ic + sum_{d < c} a_icd (x_d - 1/2), scale_ic)

    The channels depend on each other given z: for RGB, the mean of green on red, that of blue on red and green, with
    coefficients a = tanh(raw). With one channel it is ``MixtureOfDiscretizedLogistics``. Raw outputs: n logits, n C
    locations, n C log scales and n C (C - 1) / 2 coefficients for each pixel, 10 n channels for RGB.

    Reference: Salimans et al. 2017, PixelCNN++, https://arxiv.org/abs/1701.05517, section 2.1 and 2.2. Differs from the
    paper: the data are in [0, 1] instead of [-1, 1], which changes no probability; the log scale has a soft floor of
    -7 in these units, -6.3 in those of the paper, which clips it at -7; and the probability of a level is computed
    from two log-sigmoids, without the paper's approximation for small values.

    Args:
        num_components: n, the number of components; >= 1.
        min_log_scale: floor of each log scale, with the scale in the units of the data, [0, 1].
    """

    supported_data = frozenset({"byte"})

    def __init__(self, num_components: int = 10, min_log_scale: float = -7.0):
        super().__init__()
        if num_components < 1:
            raise ValueError(f"num_components must be >= 1, got {num_components}")
        self.num_components, self.min_log_scale = num_components, min_log_scale

    def sizes(self, channels: int) -> list[int]:
        """Return the numbers of channels of the logits, locations, log scales and coefficients."""
        n = self.num_components
        return [n, n * channels, n * channels, n * channels * (channels - 1) // 2]

    def raw_shape(self, shape: Shape) -> tuple[int, ...]:
        if len(shape) != 3:
            raise ValueError(
                f"CoupledMixtureOfLogistics needs images (C, H, W), got examples of shape {tuple(shape)}: use "
                f"MixtureOfDiscretizedLogistics"
            )
        return (sum(self.sizes(shape[0])), *shape[1:])

    def split(self, raw: Tensor, shape: Shape) -> tuple[Tensor, ...]:
        return raw.split(self.sizes(shape[0]), dim=-3)

    def forward(self, *params: Tensor) -> CoupledMixtureDistribution:
        n = self.num_components
        logits, loc, log_scale, coefficients = params
        loc, log_scale = loc.unflatten(-3, (n, -1)), soft_floor(log_scale, self.min_log_scale).unflatten(-3, (n, -1))
        num_coefficients = coefficients.shape[-3] // n
        coefficients = coefficients.tanh().unflatten(-3, (n, num_coefficients))
        return CoupledMixtureDistribution(logits, loc, log_scale, coefficients)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        sizes = self.sizes(len(mean))
        # As for a single logistic. The network makes the components differ.
        loc = mean.repeat(self.num_components, 1, 1)
        logits, coefficients = (mean.new_zeros(size, *mean.shape[1:]) for size in (sizes[0], sizes[3]))
        return logits, loc, torch.full_like(loc, -2.0), coefficients


class Categorical(Family):
    """A softmax over the 256 levels of 8-bit data, for each pixel and channel.

    It is the most general elementwise distribution, and it does not use the order of the levels. Raw outputs: 256
    logits.

    Reference: van den Oord et al. 2016, Pixel Recurrent Neural Networks, https://arxiv.org/abs/1601.06759, section 3.4.
    """

    num_outputs = 256
    supported_data = frozenset({"byte"})

    def forward(self, *params: Tensor) -> CategoricalDistribution:
        return CategoricalDistribution(torch.stack(params, -1))

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        # Logits that are linear in the level: of all distributions with this mean, the one with the largest entropy.
        # At the two limits the mean is 0.02 and 0.98, so at the start no level has nearly no probability.
        levels = torch.linspace(0, 1, self.num_outputs, dtype=mean.dtype, device=mean.device)
        slope = bisect(lambda slope: CategoricalDistribution(slope[..., None] * levels).mean, mean, limit=50.0)
        return (slope[..., None] * levels).unbind(-1)
