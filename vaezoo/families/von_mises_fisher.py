"""The von Mises-Fisher posterior on the unit sphere."""

import torch.nn.functional as F
from torch import Tensor

from vaezoo.distributions import VonMisesFisherDistribution
from vaezoo.families.posterior import Posterior
from vaezoo.types import Shape


class VonMisesFisher(Posterior):
    """The von Mises-Fisher posterior on the unit sphere of R^D.

    Raw outputs: a direction, which is normalized to mu, and a tensor r with kappa = 1 + D softplus(mean(r)). The point
    estimate is mu, a point on the sphere.

    Reference: Davidson et al. 2018, Hyperspherical Variational Auto-Encoders, https://arxiv.org/abs/1804.00891. Differs
    from their code: there, kappa = 1 + softplus(.), without the factor D. Because E[mu'z] is about kappa / D for small
    kappa, samples would be nearly uniform at the start of training.

    Args:
        shape: shape of the latent, (D,) with D >= 2.
    """

    num_outputs = 2
    space = "sphere"

    def __init__(self, shape: Shape):
        super().__init__()
        if len(shape) != 1 or shape[0] < 2:
            raise ValueError(
                f"a sphere needs a latent of shape (D,) with D >= 2, got {tuple(shape)}: use model.latent_dim=2 or more"
            )

    @property
    def limits(self) -> dict[str, str]:
        return {"kl_per_dim": "a density on the sphere does not factorize over dimensions"}

    def forward(self, *params: Tensor) -> VonMisesFisherDistribution:
        direction, raw = params
        concentration = 1 + direction.shape[-1] * F.softplus(raw.mean(-1))
        return VonMisesFisherDistribution(F.normalize(direction, dim=-1), concentration)

    def point_estimate(self, *params: Tensor) -> Tensor:
        return F.normalize(params[0], dim=-1)
