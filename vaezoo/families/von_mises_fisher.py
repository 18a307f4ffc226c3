"""The von Mises-Fisher posterior on the unit sphere."""

import torch.nn.functional as F
from torch import Tensor

from vaezoo.distributions import VonMisesFisherDistribution
from vaezoo.families.posterior import Posterior
from vaezoo.types import Shape


class VonMisesFisher(Posterior):
    """The von Mises-Fisher posterior on the unit sphere of R^D.

    Two planes: mu is the first, normalised; kappa = 1 + D softplus(mean of the second), 1 at least as in
    the code of Davidson et al. 2018, which lacks the D. But E[mu'z] is about kappa / D at first, so that
    without it samples begin as all but uniform. The code of x is mu, a point of the sphere.

    Args:
        shape: (D,), D >= 2.
    """

    num_outputs = 2
    space = "sphere"

    def __init__(self, shape: Shape):
        super().__init__()
        if len(shape) != 1 or shape[0] < 2:
            raise ValueError(f"a sphere needs a vector z of latent_dim >= 2, got the latent's shape {tuple(shape)}")

    @property
    def limits(self) -> dict[str, str]:
        return {"kl_per_dim": "a density on the sphere does not factorize over dimensions"}

    def forward(self, *params: Tensor) -> VonMisesFisherDistribution:
        direction, raw = params
        concentration = 1 + direction.shape[-1] * F.softplus(raw.mean(-1))
        return VonMisesFisherDistribution(F.normalize(direction, dim=-1), concentration)

    def point_estimate(self, *params: Tensor) -> Tensor:
        return F.normalize(params[0], dim=-1)
