"""The VAE with a mixture of Gaussians as its prior."""

from functools import partial

from vaezoo.models.vae import VAE
from vaezoo.priors import MixtureOfNormals
from vaezoo.types import Shape


class MoGVAE(VAE):
    """The VAE with a mixture of Gaussians as its prior.

        p(z) = sum_c pi_c N(z; mu_c, diag sigma_c^2)

    pi, mu and sigma are learned. KL(q, p) has no closed form; it is estimated from the samples.

    Reference: Tomczak & Welling 2018, VAE with a VampPrior, https://arxiv.org/abs/1705.07120, the baseline "MoG".
    Differs from the paper: there, the weights pi_c are 1/C.

    >>> import torch
    >>> model = MoGVAE((1, 28, 28), latent_dim=10, num_components=50)
    >>> model.prior().log_prob(torch.zeros(5, 10)).shape
    torch.Size([5])

    Args:
        num_components: C, the number of components; >= 1.
        **kwargs: arguments of ``VAE``.
    """

    def __init__(self, data_shape: Shape, *, num_components: int, **kwargs):
        super().__init__(data_shape, prior=partial(MixtureOfNormals, num_components=num_components), **kwargs)
