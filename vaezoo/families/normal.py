"""Families of real numbers: normals with a scale from the network, fixed, learned or fitted, and the Laplace."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Laplace as TorchLaplace
from torch.distributions import Normal as TorchNormal

from vaezoo.distributions import LogNormalDistribution, OptimalScaleNormalDistribution
from vaezoo.distributions.numerics import inverse_soft_floor, soft_floor
from vaezoo.families.base import Family
from vaezoo.missing import fill_missing, to_float
from vaezoo.types import Shape


class Normal(Family):
    """N(loc, scale^2), both from the network: the diagonal normal posterior, or a likelihood with a scale per pixel.

    Raw outputs: the mean and the log scale, which has a soft floor. Without a floor, the likelihood of constant pixels
    has no upper bound; the reported values depend on the floor for such data.

    Args:
        min_log_scale: floor of the log scale.
    """

    num_outputs = 2

    def __init__(self, min_log_scale: float = -7.0):
        super().__init__()
        self.min_log_scale = min_log_scale

    def forward(self, *params: Tensor) -> TorchNormal:
        loc, log_scale = params
        scale = soft_floor(log_scale, self.min_log_scale).exp()
        return TorchNormal(loc, scale, validate_args=False)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return mean, torch.full_like(mean, -1.0)  # a scale of 0.37, for data in [0, 1]


class FixedScaleNormal(Family):
    """N(loc, scale^2) with a fixed scale: the squared error in nats, with its normalizing constant.

    Raw output: the mean.

    Args:
        scale: standard deviation, in the units of the data; > 0.
    """

    def __init__(self, scale: float = 0.1):
        super().__init__()
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be > 0 and finite, got {scale}")
        self.scale = scale

    def forward(self, *params: Tensor) -> TorchNormal:
        (loc,) = params
        return TorchNormal(loc, torch.full_like(loc, self.scale), validate_args=False)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return (mean,)


class SharedScale(Family):
    """The base class of families with a learned scale that is the same for all z, of all dimensions or of each.

    Args:
        initial_scale: the scale at the start of training, in the units of the data; > exp(min_log_scale).
        min_log_scale: floor of the log scale.
        shape: shape of the scale, () for all dimensions together.
    """

    def __init__(self, initial_scale: float = 1.0, min_log_scale: float = -7.0, *, shape: Shape = ()):
        super().__init__()
        if not math.exp(min_log_scale) < initial_scale < math.inf:
            raise ValueError(
                f"initial_scale must be finite and above its floor exp(min_log_scale) = exp({min_log_scale}), "
                f"got {initial_scale}"
            )
        self.min_log_scale = min_log_scale
        above = math.log(initial_scale) - min_log_scale
        # The inverse of soft_floor.
        self.log_scale = nn.Parameter(torch.full(tuple(shape), min_log_scale + math.log(math.expm1(above))))

    @property
    def scale(self) -> Tensor:
        """The current scale, in the shape of ``log_scale``."""
        return soft_floor(self.log_scale, self.min_log_scale).exp()

    def raw_shape(self, shape: Shape) -> tuple[int, ...]:
        try:
            fits = torch.broadcast_shapes(self.log_scale.shape, tuple(shape)) == tuple(shape)
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"{type(self).__name__} has scales of shape {tuple(self.log_scale.shape)}, but x has the shape "
                f"{tuple(shape)}: use shape={list(shape)}"
            )
        return super().raw_shape(shape)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return (mean,)


class SharedScaleNormal(SharedScale):
    """N(loc, scale^2) with one learned scale for all dimensions. Raw output: the mean."""

    def forward(self, *params: Tensor) -> TorchNormal:
        (loc,) = params
        return TorchNormal(loc, self.scale.expand_as(loc), validate_args=False)


class DimensionScaleNormal(SharedScale):
    """N(loc, diag(scale)^2) with one learned scale for each dimension, the same for all z. Raw output: the mean.

    It is for the real columns of a table, which can be predicted with unequal errors.

    Args:
        shape: shape of one x, or a shape that broadcasts against it, such as (C, 1, 1) for one scale per channel.
        initial_scale: the scales at the start of training, in the units of the data; > exp(min_log_scale).
        min_log_scale: floor of the log scales.
    """

    def __init__(self, shape: Shape, initial_scale: float = 1.0, min_log_scale: float = -7.0):
        super().__init__(initial_scale, min_log_scale, shape=shape)

    def forward(self, *params: Tensor) -> TorchNormal:
        (loc,) = params
        return TorchNormal(loc, self.scale.expand_as(loc), validate_args=False)


class LogNormal(Family):
    """The log-normal distribution of positive numbers: ln x ~ N(loc, scale^2), with its density of x.

        log p(x) = log N(ln x; loc, scale^2) - ln x

    Raw outputs: loc and the log scale, which has a soft floor. The point estimate is the mean, exp(loc + scale^2 / 2).

    Args:
        min_log_scale: floor of the log scale.
    """

    num_outputs = 2
    supported_data = frozenset({"real"})
    fill_value = 1

    def __init__(self, min_log_scale: float = -7.0):
        super().__init__()
        self.min_log_scale = min_log_scale

    def forward(self, *params: Tensor) -> LogNormalDistribution:
        loc, log_scale = params
        return LogNormalDistribution(loc, soft_floor(log_scale, self.min_log_scale).exp())

    def params(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        """Return the raw outputs for this mean and standard deviation of ln x."""
        least = math.exp(self.min_log_scale + 1e-3)
        return loc, inverse_soft_floor(scale.clamp(min=least).log(), self.min_log_scale)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return self.params(mean.clamp(min=1e-6).log() - 0.5, torch.ones_like(mean))

    def params_for_data(self, mean: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """Return the raw parameters with the mean and the standard deviation of ln x."""
        logs = to_float(x, mean.dtype).log()
        loc = fill_missing(logs.nanmean(0))
        return self.params(loc, fill_missing((logs - loc).square().nanmean(0), 1).sqrt())

    def check(self, x: Tensor) -> None:
        super().check(x)
        if not (x > 0).all():
            raise ValueError(
                f"LogNormal takes numbers > 0, got values in [{x.min()}, {x.max()}]: choose a likelihood of real "
                f"numbers such as Normal, or of counts such as NegativeBinomial"
            )


class Laplace(SharedScale):
    """exp(-|x - loc| / scale) / (2 scale) with one learned scale: the absolute error in nats, with its constant.

    The best scale is the mean absolute error. Raw output: the location.
    """

    def forward(self, *params: Tensor) -> TorchLaplace:
        (loc,) = params
        return TorchLaplace(loc, self.scale.expand_as(loc), validate_args=False)


class OptimalScaleNormal(Family):
    """N(loc, sigma*^2) with the one sigma* that fits the data best.

    In training, sigma*^2 is the mean squared error (MSE) of the data given to ``log_prob``, over the samples, the batch
    and the dimensions. The gradient goes through it, so -log p(x | z) is D/2 ln MSE plus a constant. The values logged
    in training are therefore slightly optimistic: one number is fitted to each batch. Evaluation and sampling use a
    running average of sigma*^2. It is a fixed number like a weight, so they report a proper bound.

    Raw output: the mean.

    Reference: Rybkin et al. 2021, Simple and Effective VAE Training with Calibrated Decoders,
    https://arxiv.org/abs/2006.13202.

    Args:
        momentum: weight of the newest batch in the running average; in (0, 1]. The first 1 / momentum batches have
            equal weights, so the initial value has none.
        min_scale: the smallest sigma*, in the units of the data; > 0. It bounds the gradient of the error.
    """

    is_batch_coupled = True
    mean_square: Tensor
    num_batches: Tensor

    def __init__(self, momentum: float = 0.1, min_scale: float = 1e-3):
        super().__init__()
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must be in (0, 1], got {momentum}")
        if not 0 < min_scale < math.inf:
            raise ValueError(f"min_scale must be > 0 and finite, got {min_scale}")
        self.momentum, self.min_scale = momentum, min_scale
        self.register_buffer("mean_square", torch.tensor(1.0))
        self.register_buffer("num_batches", torch.tensor(0))

    def fit_scale(self, mean_square: Tensor) -> Tensor:
        """Return the best sigma for data with this mean squared error, and update the running average with it."""
        with torch.no_grad():
            self.num_batches += 1
            weight = (1 / self.num_batches.to(self.mean_square)).clamp(min=self.momentum)
            self.mean_square.lerp_(mean_square.to(self.mean_square), weight)
        return self.floor(mean_square)

    def floor(self, mean_square: Tensor) -> Tensor:
        """Return sigma for this mean squared error: the best one that is at least ``min_scale``."""
        return mean_square.clamp(min=self.min_scale**2).sqrt()

    def forward(self, *params: Tensor) -> OptimalScaleNormalDistribution:
        (loc,) = params
        scale = self.floor(self.mean_square).to(loc.dtype)
        return OptimalScaleNormalDistribution(loc, scale, self.fit_scale if self.training else None)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return (mean,)
