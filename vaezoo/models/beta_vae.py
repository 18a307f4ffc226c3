"""The beta-VAE."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import ELBO
from vaezoo.types import Shape


class BetaVAE(VAE):
    """The beta-VAE: Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl.

    loss = -E_q[log p(x | z)] + beta KL(q(z | x), p(z)). The ELBO it reports has no beta in it, and
    log p(x | z) is summed over pixels, so beta means what the paper's beta means; the paper's
    normalised beta is beta * latent_dim / number of pixels.

    Args:
        beta: weight of the rate; >= 0. beta = 1 is the VAE.
        **kwargs: as ``VAE``.
    """

    def __init__(self, data_shape: Shape, *, beta: float, **kwargs):
        super().__init__(data_shape, objective=ELBO(beta), **kwargs)
