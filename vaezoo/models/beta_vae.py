"""The beta-VAE."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import ELBO
from vaezoo.types import Shape


class BetaVAE(VAE):
    """The beta-VAE: the KL term has a weight.

        loss = -E_q[log p(x | z)] + beta KL(q(z | x), p(z))

    log p(x | z) is summed over pixels, so beta is the beta of the paper; the paper's normalized beta is
    beta * latent_dim / number of pixels. The logged ELBO does not contain beta.

    Reference: Higgins et al. 2017, beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework,
    https://openreview.net/forum?id=Sy2fzU9gl.

    >>> model = BetaVAE((1, 28, 28), latent_dim=10, beta=4.0)
    >>> model.objective.configured_weights["beta"]
    4.0

    Args:
        beta: weight of KL(q, p); >= 0. beta = 1 is the VAE.
        **kwargs: arguments of ``VAE``.
    """

    def __init__(self, data_shape: Shape, *, beta: float, **kwargs):
        super().__init__(data_shape, objective=ELBO(beta), **kwargs)
