"""Families that wrap another family: missing entries are left out or explained, or the unit is another one."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo.distributions import MaskedDistribution, RescaledDistribution, SelfMaskedDistribution
from vaezoo.families.base import Family
from vaezoo.missing import fill_missing, is_observed
from vaezoo.types import Shape


class WrappedFamily(Family):
    """The base class: raw outputs, kinds of data and point estimates are those of the wrapped family.

    Args:
        family: the wrapped family.
    """

    def __init__(self, family: Family):
        super().__init__()
        self.family = family
        self.num_outputs, self.supported_data = family.num_outputs, family.supported_data
        self.is_batch_coupled, self.supports_missing = family.is_batch_coupled, family.supports_missing
        self.space, self.fill_value, self.measure = family.space, family.fill_value, family.measure

    @property
    def limits(self) -> dict[str, str]:
        return self.family.limits

    def raw_shape(self, shape: Shape) -> tuple[int, ...]:
        return self.family.raw_shape(shape)

    def split(self, raw: Tensor, shape: Shape) -> tuple[Tensor, ...]:
        return self.family.split(raw, shape)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return self.family.params_for_mean(mean)

    def params_for_data(self, mean: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        return self.family.params_for_data(mean, x)

    def point_estimate(self, *params: Tensor) -> Tensor:
        return self.family.point_estimate(*params)

    def given(self, px: Distribution, x: Tensor) -> Distribution:
        return self.family.given(px, x)

    def check(self, x: Tensor) -> None:
        self.family.check(x)


class Masked(WrappedFamily):
    """A family that leaves missing entries out: log p(x_o | z) of the observed entries x_o.

        log p(x_o | z) = sum_{d observed} log p(x_d | z)

    It is exact if the dimensions of x are independent given z. The ELBO and the importance-weighted bound are then
    bounds of log p(x_o). NaN marks a missing float, -1 a missing whole number (``vaezoo.missing``).

    Reference: Mattei & Frellsen 2019, MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets,
    https://arxiv.org/abs/1812.02633.

    >>> from vaezoo.families import FixedScaleNormal
    >>> px = Masked(FixedScaleNormal(1.0))(torch.zeros(2))
    >>> px.log_prob(torch.tensor([0.0, float("nan")]))
    tensor([-0.9189,  0.0000])

    Args:
        family: the family of complete data. If it scores several dimensions together, examples must be complete in
            them or lack all of them.

    Raises:
        ValueError: the family fits its parameters to all entries of a batch.
    """

    def __init__(self, family: Family):
        super().__init__(family)
        if family.is_batch_coupled:
            raise ValueError(
                f"Masked cannot leave missing entries out of {type(family).__name__}, which is fitted to all entries "
                f"of a batch: use SharedScaleNormal"
            )
        if family.measure:
            raise ValueError(
                f"Masked cannot leave missing entries out of {type(family).__name__}, which needs all of them: leave "
                f"such examples out, or use another family"
            )
        self.supports_missing = True

    def forward(self, *params: Tensor) -> MaskedDistribution:
        return MaskedDistribution(self.family(*params), self.fill_value)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return self.family.params_for_mean(fill_missing(mean, self.fill_value))

    def params_for_data(self, mean: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        # The mean of a dimension that is never observed is NaN.
        return self.family.params_for_data(fill_missing(mean, self.fill_value), x)

    def check(self, x: Tensor) -> None:
        super().check(fill_missing(x, self.fill_value))


def leave_out_missing(family: Family) -> Family:
    """Return the family if it leaves missing entries out, else ``Masked(family)``."""
    return family if family.supports_missing else Masked(family)


class Rescaled(WrappedFamily):
    """A family of standardized data x = (u - loc) / scale that reports log p(u), in the user's unit.

        log p(u | z) = log p(x | z) - ln |scale|

    The gradients of all parameters stay the same. To leave missing entries out, use ``Masked(Rescaled(...))``.

    Args:
        family: the elementwise family of x.
        scale: the scale by which u was divided, one number for all dimensions or one for each; not 0.

    Raises:
        ValueError: a scale is 0 or not finite, or the family leaves missing entries out itself.
    """

    log_scale: Tensor

    def __init__(self, family: Family, scale: float | Sequence[float]):
        super().__init__(family)
        scales = [scale] if isinstance(scale, int | float) else list(scale)
        if not all(isinstance(s, int | float) and s != 0 and math.isfinite(s) for s in scales):
            raise ValueError(f"scale must hold finite numbers that are not 0, got {scale}")
        if isinstance(family, Masked):
            raise ValueError("a missing entry has no unit: use Masked(Rescaled(family)), not Rescaled(Masked(family))")
        log_scale = torch.tensor([math.log(abs(s)) for s in scales])
        self.register_buffer("log_scale", log_scale, persistent=False)

    def forward(self, *params: Tensor) -> RescaledDistribution:
        return RescaledDistribution(self.family(*params), self.log_scale)


class SelfMasking(WrappedFamily):
    """A family of real numbers and of which of them are observed, s: whether x_d is missing depends on x_d.

        log p(x_o, s | z) with p(s_d = 1 | x_d) = sigmoid(intercept_d + slope_d x_d)

    Missing values are drawn from p(x_m | z), and the draw has a gradient (``SelfMaskedDistribution``). Intercept and
    slope are learned for each dimension. log p is of x_o and s, so it compares only with values of this kind.

    Reference: Ipsen et al. 2021, not-MIWAE: Deep Generative Modelling with Missing not at Random Data,
    https://arxiv.org/abs/2006.12871, eq. 7 and 12, "self-masking".

    Args:
        family: the elementwise family of the values; real numbers.
        num_dims: number of dimensions of x with shape (D,).

    Raises:
        ValueError: the family is not one of real numbers, or fits its parameters to all entries of a batch.
    """

    measure = "and which entries are missing"

    def __init__(self, family: Family, num_dims: int):
        super().__init__(family)
        if not family.supported_data & {"real"} or family.is_batch_coupled:
            raise ValueError(
                f"SelfMasking draws missing real numbers from an elementwise distribution, which "
                f"{type(family).__name__} does not have: make all columns real by data.types, or use model=missing_iwae"
            )
        self.supports_missing, self.measure = True, type(self).measure
        self.intercept = nn.Parameter(torch.zeros(num_dims))
        self.slope = nn.Parameter(torch.zeros(num_dims))

    def forward(self, *params: Tensor) -> SelfMaskedDistribution:
        return SelfMaskedDistribution(self.family(*params), self.intercept, self.slope, self.fill_value)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return self.family.params_for_mean(fill_missing(mean, self.fill_value))

    @torch.no_grad()
    def params_for_data(self, mean: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """Return the raw parameters of the wrapped family, and set the intercepts to the shares of observed entries."""
        share = is_observed(x).to(self.intercept.dtype).mean(0)
        self.intercept.copy_(torch.logit(share, eps=0.01))
        return self.family.params_for_data(fill_missing(mean, self.fill_value), x)

    def check(self, x: Tensor) -> None:
        super().check(fill_missing(x, self.fill_value))
