"""Families of a vector of counts given their sum, the total."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo.distributions import CountsGivenTotal, MultinomialGivenTotal, NegativeBinomialGivenTotal
from vaezoo.distributions.numerics import inverse_soft_floor, soft_floor
from vaezoo.families.base import Family
from vaezoo.missing import is_observed
from vaezoo.types import Shape

NUM_TOTALS = 1001  # quantiles of the training examples' totals
LEAST = 0.5  # the count at which a dimension without any count starts, in all training examples together


class SharesOfTotal(Family):
    """The base class: p(x | z, l) of a vector of counts x (D,) with the expected counts l * softmax(raw outputs).

    l = sum_d x_d, the total (of a cell, its library size; of a text, its length), is taken from x and not scored. For
    each l, the probabilities of the x with this sum add up to at most 1, so bounds of log p(x | l) can be compared with
    each other, but not with bounds of log p(x).

    What has no x, such as a sample, has the total of a training example, and a mean has the mean total.

    Attributes:
        totals: quantiles of the totals of the training examples, (1001,).
    """

    supported_data = frozenset({"count"})
    measure = "given their sum"
    totals: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("totals", torch.ones(NUM_TOTALS))

    def raw_shape(self, shape: Shape) -> tuple[int, ...]:
        if len(shape) != 1:
            raise ValueError(
                f"{type(self).__name__} takes vectors of counts (D,), but x has the shape {tuple(shape)}: give an "
                f"array of shape (N, D), or a table of counts"
            )
        return super().raw_shape(shape)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        shares = mean / mean.sum().clamp(min=1e-12)
        return (shares.clamp(min=1e-8).log(),)

    def params_for_data(self, mean: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """Return the raw parameters with the shares of all training examples together, and keep their totals."""
        levels = torch.linspace(0, 1, NUM_TOTALS, dtype=torch.float64, device=x.device)
        self.totals.copy_(torch.quantile(x.sum(1).double(), levels, interpolation="nearest"))
        return self.params_for_mean(mean.clamp(min=LEAST / len(x)))

    def given(self, px: Distribution, x: Tensor) -> Distribution:
        assert isinstance(px, CountsGivenTotal)
        return px.with_total(x.sum(-1))

    def check(self, x: Tensor) -> None:
        if not x.is_floating_point() and not is_observed(x).all():
            raise ValueError(
                f"{type(self).__name__} needs all counts of an example, because it takes their sum, but some are "
                f"missing (-1): leave such examples out, or choose a likelihood of single counts, such as "
                f"NegativeBinomial"
            )
        super().check(x)


class Multinomial(SharesOfTotal):
    """The multinomial distribution of counts given their sum, with its coefficient. Raw outputs: logits of the shares.

        log p(x | z, l) = ln l! - sum_d ln x_d! + sum_d x_d ln softmax(raw)_d

    Used by Liang et al. 2018, Variational Autoencoders for Collaborative Filtering, https://arxiv.org/abs/1802.05814,
    without the coefficient, which does not depend on parameters.

    >>> Multinomial()(torch.zeros(3)).log_prob(torch.tensor([1, 0, 0]))  # the categorical distribution
    tensor(-1.0986)
    """

    def forward(self, *params: Tensor) -> MultinomialGivenTotal:
        (logits,) = params
        return MultinomialGivenTotal(logits.log_softmax(-1), self.totals)


class ScaledNegativeBinomial(SharesOfTotal):
    """Negative binomials with the means l * softmax(raw)_d and a learned dispersion of each dimension.

        x_d ~ NB(mean = l softmax(raw)_d, variance = mean + mean^2 / theta_d)

    With ``zero_inflated``, a count is 0 with the probability sigmoid(raw outputs of a second block) for another reason.

    Reference: Lopez et al. 2018, Deep generative modeling for single-cell transcriptomics,
    https://doi.org/10.1038/s41592-018-0229-2. Differs from the paper: nothing is added inside of logarithms, which
    would change the probability of a dimension with a mean near 0.

    Args:
        num_dims: D.
        zero_inflated: whether there are additional zeros.
        max_log_dispersion: soft ceiling of ln theta. Near it, the distribution is a Poisson.
    """

    start = (-4.0, 4.0)  # the range of ln theta at the start of training
    rare = -4.0  # logit of an additional zero at the start of training

    def __init__(self, num_dims: int, zero_inflated: bool = False, max_log_dispersion: float = 10.0):
        super().__init__()
        if num_dims < 1:
            raise ValueError(f"num_dims must be >= 1, got {num_dims}")
        self.num_outputs, self.max_log_dispersion = 1 + zero_inflated, max_log_dispersion
        self.log_dispersion = nn.Parameter(torch.zeros(num_dims))

    def raw_shape(self, shape: Shape) -> tuple[int, ...]:
        raw_shape = super().raw_shape(shape)
        if tuple(shape) != self.log_dispersion.shape:
            raise ValueError(
                f"ScaledNegativeBinomial has dispersions of {len(self.log_dispersion)} dimensions, but x has the shape "
                f"{tuple(shape)}: use num_dims={shape[0]}"
            )
        return raw_shape

    def forward(self, *params: Tensor) -> NegativeBinomialGivenTotal:
        logits, *zero_logits = params
        log_dispersion = -soft_floor(-self.log_dispersion, -self.max_log_dispersion)
        return NegativeBinomialGivenTotal(logits.log_softmax(-1), self.totals, log_dispersion, *zero_logits)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        more = [torch.full_like(mean, self.rare)] * (self.num_outputs - 1)
        return (*super().params_for_mean(mean), *more)

    @torch.no_grad()
    def params_for_data(self, mean: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """Return the raw parameters with the shares of all training examples, and set the dispersions by moments."""
        counts = x.double()
        expected = counts.sum(1, keepdim=True) * counts.mean(0) / counts.sum(1).mean().clamp(min=1e-12)
        excess = ((counts - expected).square() - expected).sum(0)
        theta = expected.square().sum(0) / excess.clamp(min=1e-12)
        log_theta = theta.clamp(min=1e-12).log().clamp(*self.start)
        self.log_dispersion.copy_(-inverse_soft_floor(-log_theta, -self.max_log_dispersion))
        return super().params_for_data(mean, x)
