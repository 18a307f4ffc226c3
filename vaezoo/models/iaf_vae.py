"""The VAE with inverse autoregressive flows."""

from collections.abc import Sequence
from functools import partial

from vaezoo.families import IAFPosterior
from vaezoo.models.vae import VAE
from vaezoo.types import Shape


class IAFVAE(VAE):
    """The VAE with inverse autoregressive flows as its posterior.

        z_0 ~ N(mu(x), diag sigma(x)^2), and for t = 1, ..., T
        m_t, s_t = MADE_t(z_{t-1}, h(x)),  sigma_t = sigmoid(s_t),  z_t = sigma_t z_{t-1} + (1 - sigma_t) m_t
        log q(z_T | x) = log q(z_0 | x) - sum_t sum_d log sigma_{t,d}

    m and sigma of a dimension depend on the dimensions before it. Their order is reversed from each layer to the next.
    KL(q, p) has no closed form; it is estimated from the samples.

    Reference: Kingma et al. 2016, Improved Variational Inference with Inverse Autoregressive Flow,
    https://arxiv.org/abs/1606.04934, algorithm 1 in its numerically stable form.
    Differs from the paper: this is its model for MNIST, with one stochastic layer and any network; its ResNet VAE has
    several stochastic layers.

    >>> settings = {"num_flows": 4, "flow_hidden": [320], "flow_activation": "elu", "context_planes": 1}
    >>> model = IAFVAE((1, 28, 28), latent_dim=10, **settings)
    >>> model.limits["kl_per_dim"]
    'a flow does not factorize over dimensions'

    Args:
        num_flows: T, the number of layers; >= 0. T = 0 is the VAE.
        flow_hidden: width of each hidden layer of each MADE.
        flow_activation: activation of each MADE, a function of ``torch.nn.functional``.
        context_planes: size of h(x), which the encoder returns, in multiples of latent_dim; >= 1.
        **kwargs: arguments of ``VAE``, without posterior.
    """

    def __init__(
        self,
        data_shape: Shape,
        *,
        num_flows: int,
        flow_hidden: Sequence[int],
        flow_activation: str,
        context_planes: int,
        **kwargs,
    ):
        posterior = partial(
            IAFPosterior,
            num_flows=num_flows,
            hidden=flow_hidden,
            activation=flow_activation,
            context_planes=context_planes,
        )
        super().__init__(data_shape, posterior=posterior, **kwargs)
