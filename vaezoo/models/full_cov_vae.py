"""The VAE with a full-covariance posterior."""

from functools import partial

from vaezoo.families import FullCovarianceNormal
from vaezoo.models.vae import VAE
from vaezoo.types import Shape


class FullCovVAE(VAE):
    """The VAE with a full-covariance Gaussian posterior: Kingma & Welling 2019,
    https://arxiv.org/abs/1906.02691, section 2.5.1.

    q(z | x) = N(mu(x), L(x) L(x)'), z = mu + L eps with eps ~ N(0, I), where L is lower triangular with
    a positive diagonal, all of it from the encoder; ln q(z | x) = ln N(eps; 0, I) - sum_d ln L_dd, and
    KL(q(z | x), p(z)) in closed form for the standard normal. L = diag sigma is the plain VAE.

    Args:
        min_log_scale: soft floor of ln L_dd; z has no unit.
        **kwargs: as ``VAE``, without posterior.
    """

    def __init__(self, data_shape: Shape, *, min_log_scale: float, **kwargs):
        posterior = partial(FullCovarianceNormal, min_log_scale=min_log_scale)
        super().__init__(data_shape, posterior=posterior, **kwargs)
