"""Posteriors of several parts of x: a product of experts, or a mixture of products."""

from itertools import combinations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaezoo.distributions import ExpertMixture, ExpertProduct
from vaezoo.distributions.numerics import soft_floor
from vaezoo.families.posterior import Posterior

MISSING = torch.inf  # the raw log scale of an expert whose part of x is missing: it says nothing of z

AGGREGATES = ("product", "mixture", "mopoe")


def subsets(num: int, aggregate: str) -> list[tuple[int, ...]]:
    """Return the subsets of M parts that have a component each.

    >>> subsets(2, "product"), subsets(2, "mixture"), subsets(2, "mopoe")
    ([(0, 1)], [(0,), (1,)], [(0,), (1,), (0, 1)])

    Args:
        num: M.
        aggregate: ``product``: all parts together; ``mixture``: each part by itself; ``mopoe``: all subsets but the
            empty one.
    """
    sizes = {"product": [num], "mixture": [1], "mopoe": range(1, num + 1)}[aggregate]
    return [subset for size in sizes for subset in combinations(range(num), size)]


class GaussianExperts(Posterior):
    """q(z | x) of M parts of x, each of which gives one expert N(z; mu_m, diag sigma_m^2).

    The posterior of a subset S of the parts is the product of its experts and of the standard normal prior, which is in
    it once, whatever S is:

        q_S(z) ~ N(z; 0, I) prod_{m in S} N(z; mu_m, diag sigma_m^2) = N(z; loc, diag 1 / t),
        t = 1 + sum_{m in S} sigma_m^-2,  loc = sum_{m in S} sigma_m^-2 mu_m / t

    ``aggregate`` says which subsets q is made of:

    * ``product``: q = q_S of all observed parts (Wu & Goodman 2018, https://arxiv.org/abs/1802.05335);
    * ``mixture``: q = 1/M' sum_m q_{m} over the M' observed parts (Shi et al. 2019, https://arxiv.org/abs/1911.03393);
    * ``mopoe``: q is the mean of q_S over all subsets S of observed parts but the empty one (Sutter et al. 2021,
      https://arxiv.org/abs/2105.02470).

    An expert of a missing part has the raw log scale ``MISSING``; if all parts are missing, q is the prior. With M = 1
    the three are one normal. Raw outputs: mu_1, log sigma_1, mu_2, ..., with a soft floor of the log scales.

    Differs from Shi et al. and Sutter et al.: there, the posterior of one part is any normal; here it has the prior as
    a factor, so that its variance is at most 1 and that all subsets follow one rule.

    >>> family = GaussianExperts(2, "product")
    >>> zero = torch.zeros(5, 3)
    >>> q = family(zero + 1, zero, zero + 1, zero)
    >>> round(float(q.stddev[0, 0] ** -2), 2)  # 1 of the prior, and about 1 of each expert
    3.0

    Args:
        num_parts: M.
        aggregate: one of ``AGGREGATES``.
        min_log_scale: floor of log sigma_m.

    Raises:
        ValueError: ``aggregate`` is unknown.
    """

    members: Tensor

    def __init__(self, num_parts: int, aggregate: str, min_log_scale: float = -7.0):
        super().__init__()
        if aggregate not in AGGREGATES:
            raise ValueError(f"aggregate={aggregate} is not one of {', '.join(AGGREGATES)}")
        self.num_outputs, self.min_log_scale = 2 * num_parts, min_log_scale
        chosen = subsets(num_parts, aggregate)
        # A product has no component that is left out: a missing part drops out of it.
        self.is_product = len(chosen) == 1
        rows = [[float(part in subset) for part in range(num_parts)] for subset in chosen]
        self.register_buffer("members", torch.tensor(rows), persistent=False)  # (C, M)

    @property
    def limits(self) -> dict[str, str]:
        return {} if self.is_product else {"kl_per_dim": "a mixture does not factorize over dimensions"}

    def multiply(self, members: Tensor, loc: Tensor, precision: Tensor) -> Normal:
        """Return q_S of C subsets, (*batch, C, D).

        Args:
            members: which part is in which subset, (C, M).
            loc: mu, (*batch, M, D).
            precision: sigma^-2, (*batch, M, D); 0 if the part is missing.
        """
        weights = members.unsqueeze(-1) * precision.unsqueeze(-3)  # (*batch, C, M, D)
        total = 1 + weights.sum(-2)
        return Normal((weights * loc.unsqueeze(-3)).sum(-2) / total, total.rsqrt(), validate_args=False)

    def components(self, *params: Tensor) -> tuple[Normal, Tensor, Independent, Tensor]:
        """Return q_S of all subsets of the aggregate (*batch, C, D), and which of them are present, (*batch, C); q_S of
        each part (*batch, M, D), and which of them are observed, (*batch, M).
        """
        loc, log_scale = torch.stack(params[::2], -2), torch.stack(params[1::2], -2)
        observed = log_scale[..., 0] < MISSING
        precision = (-2 * soft_floor(log_scale, self.min_log_scale)).exp()
        members = self.members.to(precision.dtype)
        complete = (observed.unsqueeze(-2) | (members == 0)).all(-1)
        # If no part is observed, all components are the prior.
        present = complete | ~observed.any(-1, keepdim=True)
        each = torch.eye(members.shape[1], dtype=members.dtype, device=members.device)
        singles = Independent(self.multiply(each, loc, precision), 1, validate_args=False)
        return self.multiply(members, loc, precision), present, singles, observed

    def forward(self, *params: Tensor) -> Distribution:
        normals, present, singles, observed = self.components(*params)
        if self.is_product:
            return ExpertProduct.make(normals.loc[..., 0, :], normals.scale[..., 0, :], singles, observed)
        return ExpertMixture(normals.loc, normals.scale, present)
