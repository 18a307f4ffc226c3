"""A mixture of normals as the prior."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vaezoo.conditional import Conditional
from vaezoo.priors.base import Prior
from vaezoo.types import Shape


def check_components(num_components: int) -> None:
    """Raise a ValueError if the number of components is below 1."""
    if num_components < 1:
        raise ValueError(f"num_components must be >= 1, got {num_components}")


class MixtureOfNormals(Prior):
    """The mixture prior p(z) = sum_c pi_c N(z; mu_c, diag sigma_c^2), all parameters learned.

    Training starts with equal weights, unit scales and means drawn from N(0, spread^2 I), so that the components can
    become different. log p(z) for z (K, B, *shape) needs memory for (K, B, C, *shape) numbers.

    Args:
        shape: shape of one z.
        posterior: not used.
        num_components: C, the number of components; >= 1.
        spread: standard deviation of the means at the start; >= 0. If it is 0, all components stay equal.
    """

    def __init__(
        self, shape: Shape, posterior: Conditional | None = None, num_components: int = 50, spread: float = 1.0
    ):
        super().__init__(shape)
        check_components(num_components)
        if not 0 <= spread < math.inf:
            raise ValueError(f"spread must be a finite number >= 0, got {spread}")
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.loc = nn.Parameter(spread * torch.randn(num_components, *shape))
        self.log_scale = nn.Parameter(torch.zeros(num_components, *shape))

    @property
    def limits(self) -> dict[str, str]:
        return {"kl_per_dim": "a mixture does not factorize over dimensions"}

    def forward(self, context: Tensor | None = None) -> MixtureSameFamily:
        normal = Normal(self.loc, self.log_scale.exp(), validate_args=False)
        components = Independent(normal, self.loc.dim() - 1, validate_args=False)
        return MixtureSameFamily(Categorical(logits=self.logits, validate_args=False), components, validate_args=False)
