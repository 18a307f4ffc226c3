"""The VAE with a flow for its prior."""

from collections.abc import Sequence
from functools import partial

from vaezoo.models.vae import VAE
from vaezoo.priors import FlowPrior
from vaezoo.types import Shape


class FlowPriorVAE(VAE):
    """The VAE with a learned prior: the affine couplings of RealNVP (Dinh et al. 2017,
    https://arxiv.org/abs/1605.08803), put where Chen et al. 2017 (https://arxiv.org/abs/1611.02731) put
    autoregressive flows.

    u ~ N(0, I), z = f_T(... f_1(u)), where f_t keeps one half a of its input and moves the other, b:

        b -> b exp(s_t(a)) + t_t(a),  log p(z) = log N(u; 0, I) - sum_t sum s_t

    q(z | x) stays the diagonal normal. KL(q, p) has no closed form: it is estimated at the samples.
    |s| is bounded by 2. Chen et al. use autoregressive flows, whose samples cost D passes; couplings
    cost one both ways.

    Args:
        num_flows: T, number of couplings; >= 0. T = 0 is the VAE.
        flow_hidden: width of each hidden layer of each coupling's network.
        flow_activation: name of a function in ``torch.nn.functional``.
        **kwargs: as ``VAE``; latent_dim >= 2.
    """

    def __init__(
        self,
        data_shape: Shape,
        *,
        num_flows: int,
        flow_hidden: Sequence[int],
        flow_activation: str,
        **kwargs,
    ):
        prior = partial(FlowPrior, num_flows=num_flows, hidden=flow_hidden, activation=flow_activation)
        super().__init__(data_shape, prior=prior, **kwargs)
