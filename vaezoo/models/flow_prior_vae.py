"""The VAE with a flow as its prior."""

from collections.abc import Sequence
from functools import partial

from vaezoo.models.vae import VAE
from vaezoo.priors import FlowPrior
from vaezoo.types import Shape


class FlowPriorVAE(VAE):
    """The VAE with a flow of affine couplings as its prior.

        z = f_T(... f_1(u)),  u ~ N(0, I),  log p(z) = log N(u; 0, I) - sum_t sum s_t
        f_t: (a, b) -> (a, b exp(s_t(a)) + t_t(a))

    Each f_t splits its input in two halves, keeps a and changes b. q(z | x) is the diagonal normal. KL(q, p) has no
    closed form; it is estimated from the samples.

    Reference: Dinh et al. 2017, Density Estimation Using Real NVP, https://arxiv.org/abs/1605.08803, for the couplings;
    Chen et al. 2017, Variational Lossy Autoencoder, https://arxiv.org/abs/1611.02731, for a flow as the prior.
    Differs from the papers: Chen et al. have autoregressive flows, which need D passes to sample; couplings need one
    pass for a sample and one for a density. |s| is at most 2.

    >>> import torch
    >>> model = FlowPriorVAE((1, 28, 28), latent_dim=10, num_flows=8, flow_hidden=[128], flow_activation="relu")
    >>> model.prior().log_prob(torch.zeros(5, 10)).shape
    torch.Size([5])

    Args:
        num_flows: T, the number of couplings; >= 0. T = 0 is the VAE.
        flow_hidden: width of each hidden layer of the network of a coupling.
        flow_activation: activation of these networks, a function of ``torch.nn.functional``.
        **kwargs: arguments of ``VAE``; latent_dim must be >= 2.
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
