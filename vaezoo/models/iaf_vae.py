"""The VAE with inverse autoregressive flows."""

from collections.abc import Sequence
from functools import partial

from vaezoo.families import IAFPosterior
from vaezoo.models.vae import VAE
from vaezoo.types import Shape


class IAFVAE(VAE):
    """The VAE with inverse autoregressive flows: Kingma et al. 2016, https://arxiv.org/abs/1606.04934.

    z_0 ~ N(mu(x), diag sigma(x)^2), and for t = 1 ... T (algorithm 1, the numerically stable form)

        m_t, s_t = MADE_t(z_{t-1}, h(x)),  sigma_t = sigmoid(s_t),  z_t = sigma_t z_{t-1} + (1 - sigma_t) m_t
        log q(z_T | x) = log q(z_0 | x) - sum_t sum_d log sigma_{t,d}

    m and sigma of a dimension depend on the dimensions before it, in an order that is reversed from
    each layer to the next. KL(q, p) has no closed form: it is estimated at the samples. The paper's
    ResNet VAE, which has several stochastic layers, is not this model; this is its MNIST one on any
    network, with one stochastic layer.

    Args:
        num_flows: T, number of layers; >= 0. T = 0 is the VAE.
        flow_hidden: width of each hidden layer of each MADE.
        flow_activation: name of a function in ``torch.nn.functional``.
        context_planes: size of the encoder's context h, in multiples of latent_dim; >= 1.
        **kwargs: as ``VAE``.
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
