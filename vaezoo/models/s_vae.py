"""The hyperspherical VAE."""

from vaezoo.families import VonMisesFisher
from vaezoo.models.vae import VAE
from vaezoo.priors import HypersphericalUniform
from vaezoo.types import Shape


class SVAE(VAE):
    """The hyperspherical VAE: z is a point on the unit sphere, with a von Mises-Fisher posterior and a uniform prior.

        q(z | x) = vMF(mu(x), kappa(x)),  p(z) uniform on the unit sphere of R^D
        ELBO = E_q[log p(x | z)] - [kappa A(kappa) + ln C(kappa) + ln area],  A = I_{D/2} / I_{D/2-1}

    C is the normalizing constant of exp(kappa mu'z). KL(q, p) depends on kappa alone and is 0 only for kappa = 0, so
    the prior does not pull the codes to a center.

    Reference: Davidson et al. 2018, Hyperspherical Variational Auto-Encoders, https://arxiv.org/abs/1804.00891.
    Differs from the paper: the paper counts the dimensions of the sphere, D - 1, and here ``latent_dim`` is D. The
    gradient with respect to kappa is exact (``vaezoo.distributions.VonMisesFisherDistribution``).

    >>> import torch
    >>> model = SVAE((1, 28, 28), latent_dim=11)
    >>> z = model.encode(torch.ones(5, 1, 28, 28))
    >>> torch.allclose(z.norm(dim=1), torch.ones(5))
    True

    Args:
        latent_dim: D, the number of dimensions of the space around the sphere; >= 2.
        **kwargs: arguments of ``VAE``, without prior and posterior.
    """

    def __init__(self, data_shape: Shape, latent_dim: int, **kwargs):
        super().__init__(data_shape, latent_dim, prior=HypersphericalUniform, posterior=VonMisesFisher, **kwargs)
