"""The VAE with a full-covariance posterior."""

from functools import partial

from vaezoo.families import FullCovarianceNormal
from vaezoo.models.vae import VAE
from vaezoo.types import Shape


class FullCovVAE(VAE):
    """The VAE with a normal posterior that has a full covariance matrix.

        q(z | x) = N(mu(x), L(x) L(x)'),  z = mu + L eps,  eps ~ N(0, I)
        log q(z | x) = log N(eps; 0, I) - sum_d log L_dd

    The encoder returns mu and the lower triangular L, whose diagonal is positive. KL(q, p) has a closed form for the
    standard normal prior. A diagonal L is the VAE.

    Reference: Kingma & Welling 2019, An Introduction to Variational Autoencoders, https://arxiv.org/abs/1906.02691,
    section 2.5.1.

    >>> import torch
    >>> model = FullCovVAE((1, 28, 28), latent_dim=10, min_log_scale=-7.0)
    >>> model.encoder(torch.zeros(5, 1, 28, 28)).scale_tril.shape
    torch.Size([5, 10, 10])

    Args:
        min_log_scale: soft minimum of log L_dd.
        **kwargs: arguments of ``VAE``, without posterior.
    """

    def __init__(self, data_shape: Shape, *, min_log_scale: float, **kwargs):
        posterior = partial(FullCovarianceNormal, min_log_scale=min_log_scale)
        super().__init__(data_shape, posterior=posterior, **kwargs)
