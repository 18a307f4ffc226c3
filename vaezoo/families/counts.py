"""Families of counts 0, 1, 2, ..."""

import torch
from torch import Tensor, nn

from vaezoo.distributions import NegativeBinomialDistribution, PoissonDistribution
from vaezoo.distributions.numerics import inverse_soft_floor, soft_floor
from vaezoo.families.base import Family
from vaezoo.missing import is_observed, to_float
from vaezoo.types import Shape

MIN_MEAN = 1e-3  # the smallest mean at the start of training, whose logarithm must be finite


class Poisson(Family):
    """The Poisson distribution of counts. Raw output: ln of the rate, which is the mean and the variance."""

    supported_data = frozenset({"count"})

    def forward(self, *params: Tensor) -> PoissonDistribution:
        (log_rate,) = params
        return PoissonDistribution(log_rate)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return (mean.clamp(min=MIN_MEAN).log(),)


class NegativeBinomial(Family):
    """The negative binomial distribution of counts, with mean mu and variance mu + mu^2 / theta.

    It is for counts that vary more than a Poisson's, such as reads of genes. Raw outputs: ln mu, and ln of the
    dispersion theta with a soft ceiling. With ``num_dims``, theta is a learned parameter of each dimension, shared by
    all examples, as in Lopez et al. 2018, Deep generative modeling for single-cell transcriptomics,
    https://doi.org/10.1038/s41592-018-0229-2.

    Args:
        num_dims: number of dimensions of x with shape (D,), if each has one shared dispersion. None: the network emits
            the dispersions.
        max_log_dispersion: ceiling of ln theta. Near it, the distribution is a Poisson.
    """

    supported_data = frozenset({"count"})
    start = (-4.0, 4.0)  # the range of ln theta at the start of training

    def __init__(self, num_dims: int | None = None, max_log_dispersion: float = 10.0):
        super().__init__()
        if num_dims is not None and num_dims < 1:
            raise ValueError(f"num_dims must be >= 1, got {num_dims}")
        self.max_log_dispersion = max_log_dispersion
        self.num_outputs = 2 if num_dims is None else 1
        if num_dims is not None:
            self.log_dispersion = nn.Parameter(torch.zeros(num_dims))

    def raw_shape(self, shape: Shape) -> tuple[int, ...]:
        if self.num_outputs == 1 and tuple(shape) != self.log_dispersion.shape:
            raise ValueError(
                f"NegativeBinomial has dispersions of shape {tuple(self.log_dispersion.shape)}, but x has the shape "
                f"{tuple(shape)}: use num_dims={shape[0]}"
            )
        return super().raw_shape(shape)

    def forward(self, *params: Tensor) -> NegativeBinomialDistribution:
        log_mean, log_dispersion = params if len(params) == 2 else (*params, self.log_dispersion)
        return NegativeBinomialDistribution(log_mean, -soft_floor(-log_dispersion, -self.max_log_dispersion))

    def params(self, mean: Tensor, log_dispersion: Tensor) -> tuple[Tensor, ...]:
        """Return the raw outputs for this mean and, if the network emits it, this dispersion."""
        raw = -inverse_soft_floor(-log_dispersion.clamp(*self.start), -self.max_log_dispersion)
        return (mean.clamp(min=MIN_MEAN).log(), raw)[: self.num_outputs]

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return self.params(mean, torch.zeros_like(mean))

    def params_for_data(self, mean: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """Return the raw parameters with the mean and the variance of the data, if it exceeds the mean."""
        squares = (to_float(x, mean.dtype) - mean).square().nanmean(0)
        excess = torch.where(is_observed(squares), squares, mean) - mean
        return self.params(mean, (mean.square() / excess.clamp(min=1e-12)).clamp(min=1e-12).log())
