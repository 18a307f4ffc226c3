"""The variational autoencoder."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo.conditional import Conditional
from vaezoo.families import Bernoulli, Family, PosteriorFactory, diagonal_normal
from vaezoo.models.base import LatentVariableModel
from vaezoo.models.inference import inference
from vaezoo.nets import MLP
from vaezoo.objectives import ELBO, Objective
from vaezoo.priors import PriorFactory, StandardNormal
from vaezoo.trace import Latent, Trace
from vaezoo.types import NetFactory, Shape


class VAE(LatentVariableModel):
    """The variational autoencoder.

        q(z | x) = N(mu(x), diag sigma(x)^2),  p(z) = N(0, I)
        ELBO = E_q[log p(x | z)] - KL(q(z | x), p(z))

    The ELBO is maximized by gradients through z = mu + sigma eps, eps ~ N(0, I). Encoder, decoder, likelihood, prior,
    posterior and objective can be replaced.

    Reference: Kingma & Welling 2013, Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114.

    >>> model = VAE((1, 28, 28), latent_dim=10)
    >>> trace = model(torch.zeros(5, 1, 28, 28))
    >>> trace.elbo.shape, trace.latent.z.shape  # B = 5, K = 1
    (torch.Size([5]), torch.Size([1, 5, 10]))
    >>> model.sample(3).mean.shape
    torch.Size([3, 1, 28, 28])

    Args:
        data_shape: shape of one example, (C, H, W).
        latent_dim: D, the number of latent dimensions, >= 1; or the shape of one z, such as (C, H, W) for a map.
        encoder: makes the network of q(z | x); ``vaezoo.nets.MLP`` if None.
        decoder: makes the network of p(x | z); ``vaezoo.nets.MLP`` if None.
        likelihood: family of p(x | z); Bernoulli if None.
        prior: makes p(z) from the shape of z and the encoder; ``StandardNormal`` if None.
        posterior: makes the family of q(z | x) from the shape of z; the diagonal normal if None.
        objective: computes the loss; the negative ELBO if None.
        num_samples: K, the number of posterior samples per example; >= 1.
        **kwargs: arguments of ``LatentVariableModel``: free_bits, free_bits_per, seed, optimizer, scheduler, ...

    Raises:
        ValueError: a number is out of range, or z has another space in the prior than in the posterior.
    """

    def __init__(
        self,
        data_shape: Shape,
        latent_dim: int | Shape,
        encoder: NetFactory | None = None,
        decoder: NetFactory | None = None,
        likelihood: Family | None = None,
        prior: PriorFactory | None = None,
        posterior: PosteriorFactory | None = None,
        objective: Objective | None = None,
        num_samples: int = 1,
        **kwargs,
    ):
        latent_shape = tuple(latent_dim) if isinstance(latent_dim, list | tuple) else (latent_dim,)
        if not latent_shape or not all(type(size) is int for size in latent_shape):
            raise ValueError(f"latent_dim should be an integer, or a list of integers, got {latent_dim}")
        if min(latent_shape) < 1:
            raise ValueError(f"latent_dim must be >= 1, got {latent_dim}")
        if num_samples < 1:
            raise ValueError(f"num_samples must be >= 1, got {num_samples}")
        super().__init__(data_shape, objective or ELBO(), **kwargs)
        self.latent_shape = latent_shape
        self.num_samples = num_samples
        family = (posterior or diagonal_normal)(self.latent_shape)
        self.encoder = Conditional(self.data_shape, self.latent_shape, encoder or MLP, family)
        self.decoder = Conditional(self.latent_shape, self.data_shape, decoder or MLP, likelihood or Bernoulli())
        self.prior = (prior or StandardNormal)(self.latent_shape, self.encoder)
        if self.prior.space != family.space:
            raise ValueError(
                f"the prior {type(self.prior).__name__} is in {self.prior.space} space, but the posterior "
                f"{type(family).__name__} in {family.space} space: choose both in the same space"
            )
        self.conditional = self.conditional or self.prior.conditional
        self.latent_kind = family.space if family.space != "real" else "vector" if len(latent_shape) == 1 else "map"

    @property
    def limits(self) -> dict[str, str]:
        return super().limits | self.prior.limits | self.encoder.family.limits | self.likelihood.limits

    def init_from_data(self, x: Tensor, context: Tensor | None = None) -> None:
        self.prior.init_from_data(x)

    def check_labels(self, labels: Tensor) -> None:
        self.prior.check_labels(labels)

    def forward(self, x: Tensor, context: Tensor | None = None, num_samples: int | None = None) -> Trace:
        q = self.encoder(x, context)
        z = q.rsample(torch.Size([self.num_samples if num_samples is None else num_samples]))  # (K, B, D)
        return Trace(x, self.decoder(z, context), (Latent(q, self.prior(context), z),), context)

    @inference
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.encoder.point_estimate(x, context)

    @inference
    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        return self.decoder(z, context)

    @inference
    def sample(self, num: int, context: Tensor | None = None) -> Distribution:
        return self.decode(self.prior.sample(num, context), context)
