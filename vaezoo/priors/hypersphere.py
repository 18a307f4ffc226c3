"""The uniform prior on the unit sphere."""

import torch
from torch import Tensor

from vaezoo.conditional import Conditional
from vaezoo.distributions import HypersphericalUniformDistribution
from vaezoo.priors.base import Prior
from vaezoo.types import Shape


class HypersphericalUniform(Prior):
    """The uniform prior p(z) on the unit sphere of R^D.

    Args:
        shape: shape of one z, (D,).
        posterior: not used.
    """

    space = "sphere"
    mean: Tensor

    def __init__(self, shape: Shape, posterior: Conditional | None = None):
        super().__init__(shape)
        self.register_buffer("mean", torch.zeros(*shape), persistent=False)

    @property
    def limits(self) -> dict[str, str]:
        return {"kl_per_dim": "a density on the sphere does not factorize over dimensions"}

    def forward(self, context: Tensor | None = None) -> HypersphericalUniformDistribution:
        return HypersphericalUniformDistribution(self.mean)
