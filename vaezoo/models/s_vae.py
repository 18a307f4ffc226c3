"""The hyperspherical VAE."""

from vaezoo.families import VonMisesFisher
from vaezoo.models.vae import VAE
from vaezoo.priors import HypersphericalUniform
from vaezoo.types import Shape


class SVAE(VAE):
    """The hyperspherical VAE: Davidson et al. 2018, https://arxiv.org/abs/1804.00891.

    z lies on the unit sphere of R^D; q(z | x) = vMF(mu(x), kappa(x)), p(z) is uniform, and

        ELBO = E_q[log p(x | z)] - [kappa A(kappa) + ln C(kappa) + ln area], A = I_{D/2} / I_{D/2-1},

    with C the normaliser of exp(kappa mu'z). The rate is 0 for kappa = 0 alone, and kappa does not
    depend on where z lies, so the prior pulls nothing to a centre.

    ``latent_dim`` is D, the dimension of the space around: the sphere S^(D-1) has one less, which is
    the number the paper counts. The gradient for kappa is the exact one (``VonMisesFisherDistribution``).

    Args:
        latent_dim: D >= 2.
        **kwargs: as ``VAE``, without prior and posterior.
    """

    def __init__(self, data_shape: Shape, latent_dim: int, **kwargs):
        super().__init__(data_shape, latent_dim, prior=HypersphericalUniform, posterior=VonMisesFisher, **kwargs)
