"""The VAE with a mixture of Gaussians for its prior."""

from functools import partial

from vaezoo.models.vae import VAE
from vaezoo.priors import MixtureOfNormals
from vaezoo.types import Shape


class MoGVAE(VAE):
    """The VAE with a learned mixture of Gaussians for its prior: the baseline "MoG" of Tomczak & Welling
    2018, https://arxiv.org/abs/1705.07120.

    ELBO with p(z) = sum_c pi_c N(z; mu_c, diag sigma_c^2); the KL has no closed form and is estimated at
    the samples. The weights pi_c are learned; the paper's are 1/C.

    Args:
        num_components: C; >= 1.
        **kwargs: as ``VAE``.
    """

    def __init__(self, data_shape: Shape, *, num_components: int, **kwargs):
        super().__init__(data_shape, prior=partial(MixtureOfNormals, num_components=num_components), **kwargs)
