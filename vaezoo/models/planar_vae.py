"""The VAE with planar flows."""

from functools import partial

from vaezoo.families import PlanarPosterior
from vaezoo.models.vae import VAE
from vaezoo.types import Shape


class PlanarVAE(VAE):
    """The VAE with planar flows as its posterior.

        z_0 ~ N(mu(x), diag sigma(x)^2),  z_t = z_{t-1} + u_t tanh(w_t'z_{t-1} + b_t) for t = 1, ..., T
        log q(z_T | x) = log q(z_0 | x) - sum_t log |1 + (1 - tanh^2(w_t'z_{t-1} + b_t)) w_t'u_t|

    The encoder returns mu, sigma and w_t, u_t, b_t of each layer. KL(q, p) has no closed form; it is estimated from the
    samples.

    Reference: Rezende & Mohamed 2015, Variational Inference with Normalizing Flows, https://arxiv.org/abs/1505.05770.
    Differs from the paper: u_t = 0 is the identity (``vaezoo.distributions.flow.PlanarLayer``). The paper anneals the
    loss by beta_t; here that is a callback, ``callbacks/anneal=linear``.

    >>> model = PlanarVAE((1, 28, 28), latent_dim=10, num_flows=10)
    >>> model.limits["active_units"]
    'the mean of a flow has no closed form'

    Args:
        num_flows: T, the number of layers; >= 0. T = 0 is the VAE.
        **kwargs: arguments of ``VAE``, without posterior.
    """

    def __init__(self, data_shape: Shape, *, num_flows: int, **kwargs):
        super().__init__(data_shape, posterior=partial(PlanarPosterior, num_flows=num_flows), **kwargs)
