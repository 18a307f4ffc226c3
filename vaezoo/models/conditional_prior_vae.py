"""The conditional VAE with a learned prior, from an image to an image."""

from functools import partial

from vaezoo.models.vae import VAE
from vaezoo.nets import MLP, ContextConditioned
from vaezoo.priors import ContextNormal, PriorFactory
from vaezoo.types import NetFactory, Shape


class ConditionalPriorVAE(VAE):
    """The conditional VAE of Sohn et al. in full: from a condition c, such as a part of a picture, to x.

        ELBO = E_q[log p(x | z, c)] - KL(q(z | x, c), p(z | c)),  a bound of log p(x | c)

    z describes what c leaves open: several x for one c are samples z ~ p(z | c). c is an image of its own and no part
    of x; with ``data.condition=upper``, c is the upper half of a picture and x the lower half. If c and x are images,
    the encoder sees both as channels; the decoder sees z and numbers that a network of its own computes from c.

    log p(x | c) by importance sampling rises with the number of samples, K: a value without its K says nothing.

    Reference: Sohn et al. 2015, Learning Structured Output Representation using Deep Conditional Generative Models,
    https://papers.nips.cc/paper/5775.
    Differs from the paper: there is no deterministic prediction that the decoder starts from, and no term of the loss
    with z drawn from the prior (their hybrid objective, GSNN).

    >>> import torch
    >>> model = ConditionalPriorVAE((1, 4, 8), latent_dim=3, context_shape=(1, 4, 8), num_features=16)
    >>> x, c = torch.zeros(5, 1, 4, 8), torch.rand(5, 1, 4, 8)
    >>> model(x, c).elbo.shape, model.sample(5, context=c).mean.shape
    (torch.Size([5]), torch.Size([5, 1, 4, 8]))

    Args:
        context_shape: shape of one c, (C, H, W).
        num_features: number of outputs of the network from c to the decoder; >= 1.
        encoder: makes the networks of q(z | x, c), of p(z | c) and from c to the decoder; ``vaezoo.nets.MLP`` if None.
        decoder: makes the network of p(x | z, c), see ``VAE``.
        prior: makes p(z | c); ``ContextNormal`` if None. The standard normal gives a prior that does not depend on c.
        **kwargs: arguments of ``VAE``.
    """

    def __init__(
        self,
        data_shape: Shape,
        *,
        context_shape: Shape,
        num_features: int,
        encoder: NetFactory | None = None,
        decoder: NetFactory | None = None,
        prior: PriorFactory | None = None,
        **kwargs,
    ):
        if not context_shape:
            raise ValueError("context_shape must be the shape of a condition, got []: use data.condition=upper")
        net = encoder or MLP
        conditioned = partial(ContextConditioned, context_shape=context_shape)
        features = {"context_net": net, "num_features": num_features}
        super().__init__(
            data_shape,
            encoder=partial(conditioned, net=net),
            decoder=partial(conditioned, net=decoder or MLP, **features),
            prior=prior or partial(ContextNormal, context_shape=context_shape, net=net),
            **kwargs,
        )
        self.conditional = True  # also with a prior that does not depend on c
        self.context_shape = tuple(context_shape)
