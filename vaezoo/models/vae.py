"""The variational autoencoder."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo.conditional import Conditional
from vaezoo.families import Bernoulli, Family, PosteriorFactory, diagonal_normal
from vaezoo.models.base import LatentVariableModel
from vaezoo.nets import MLP
from vaezoo.objectives import ELBO, Objective
from vaezoo.priors import PriorFactory, StandardNormal
from vaezoo.trace import Latent, Trace
from vaezoo.types import NetFactory, Shape


class VAE(LatentVariableModel):
    """The variational autoencoder: Kingma & Welling 2013, https://arxiv.org/abs/1312.6114.

    q(z | x) = N(mu(x), diag sigma(x)^2), p(z) = N(0, I), and the bound

        ELBO = E_q[log p(x | z)] - KL(q(z | x), p(z))

    is maximised by gradients through z = mu + sigma eps, eps ~ N(0, I).

    Args:
        data_shape: shape of one example, (C, H, W).
        latent_dim: D, the number of latent dimensions; >= 1.
        encoder: makes q's network; ``vaezoo.nets.MLP`` where None.
        decoder: makes p's network; ``vaezoo.nets.MLP`` where None.
        likelihood: family of p(x | z); Bernoulli where None.
        prior: makes p(z) from the latent's shape and the encoder; ``StandardNormal`` where None.
        posterior: makes q's family from the latent's shape; the diagonal normal where None.
        objective: what is minimised; the negative ELBO where None.
        num_samples: K, posterior samples per example; >= 1.
        **kwargs: free_bits, free_bits_per, optimizer, scheduler, seed (``LatentVariableModel``).
    """

    def __init__(
        self,
        data_shape: Shape,
        latent_dim: int,
        encoder: NetFactory | None = None,
        decoder: NetFactory | None = None,
        likelihood: Family | None = None,
        prior: PriorFactory | None = None,
        posterior: PosteriorFactory | None = None,
        objective: Objective | None = None,
        num_samples: int = 1,
        **kwargs,
    ):
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be >= 1, got {latent_dim}")
        if num_samples < 1:
            raise ValueError(f"num_samples must be >= 1, got {num_samples}")
        super().__init__(data_shape, objective or ELBO(), **kwargs)
        self.latent_shape = (latent_dim,)
        self.num_samples = num_samples
        family = (posterior or diagonal_normal)(self.latent_shape)
        self.encoder = Conditional(self.data_shape, self.latent_shape, encoder or MLP, family)
        self.decoder = Conditional(self.latent_shape, self.data_shape, decoder or MLP, likelihood or Bernoulli())
        self.prior = (prior or StandardNormal)(self.latent_shape, self.encoder)
        if self.prior.space != family.space:
            raise ValueError(
                f"the prior {type(self.prior).__name__} lies in {self.prior.space} space and the posterior "
                f"{type(family).__name__} in {family.space} space: choose both in one"
            )
        self.latent_kind = "vector" if family.space == "real" else family.space

    @property
    def limits(self) -> dict[str, str]:
        return super().limits | self.prior.limits | self.encoder.family.limits

    def init_from_data(self, x: Tensor, context: Tensor | None = None) -> None:
        self.prior.init_from_data(x)

    def forward(self, x: Tensor, context: Tensor | None = None, num_samples: int | None = None) -> Trace:
        q = self.encoder(x, context)
        z = q.rsample(torch.Size([self.num_samples if num_samples is None else num_samples]))  # (K, B, D)
        return Trace(x, self.decoder(z, context), (Latent(q, self.prior(context), z),))

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.encoder.point_estimate(x, context)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        return self.decoder(z, context)

    def sample(self, num: int, context: Tensor | None = None) -> Distribution:
        return self.decode(self.prior(context).sample(torch.Size([num])), context)
