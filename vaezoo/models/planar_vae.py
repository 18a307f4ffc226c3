"""The VAE with planar flows."""

from functools import partial

from vaezoo.families import PlanarPosterior
from vaezoo.models.vae import VAE
from vaezoo.types import Shape


class PlanarVAE(VAE):
    """The VAE with planar flows: Rezende & Mohamed 2015, https://arxiv.org/abs/1505.05770.

    z_0 ~ N(mu(x), diag sigma(x)^2), z_t = z_{t-1} + u_t tanh(w_t'z_{t-1} + b_t) for t = 1 ... T, and

        log q(z_T | x) = log q(z_0 | x) - sum_t log |1 + (1 - tanh^2(w_t'z_{t-1} + b_t)) w_t'u_t|

    The encoder gives w_t, u_t and b_t of every layer, as well as mu and sigma. KL(q, p) has no closed
    form: it is estimated at the samples. Unlike the paper's, u_t = 0 is the identity
    (``vaezoo.distributions.flow.PlanarLayer``), and beta_t, their annealing of the loss, is a callback's matter.

    Args:
        num_flows: T, number of layers; >= 0. T = 0 is the VAE.
        **kwargs: as ``VAE``.
    """

    def __init__(self, data_shape: Shape, *, num_flows: int, **kwargs):
        super().__init__(data_shape, posterior=partial(PlanarPosterior, num_flows=num_flows), **kwargs)
