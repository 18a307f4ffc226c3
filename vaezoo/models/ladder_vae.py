"""The ladder VAE."""

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaezoo.conditional import Conditional, Network
from vaezoo.families import Bernoulli, Family
from vaezoo.families import Normal as NormalFamily
from vaezoo.models.base import LatentVariableModel
from vaezoo.models.inference import inference
from vaezoo.nets import MLP
from vaezoo.objectives import ELBO, Objective
from vaezoo.priors import StandardNormal
from vaezoo.trace import Latent, Trace
from vaezoo.types import NetFactory, Shape


def product_of_normals(a: Normal, b: Normal) -> Normal:
    """Return the normalized product of two normal densities.

    The precisions are summed; the mean is the mean of both, weighted by precision.
    """
    share = torch.sigmoid(2 * (b.scale.log() - a.scale.log()))  # the precision of a, divided by the sum of both
    return Normal(share * a.loc + (1 - share) * b.loc, a.scale * share.sqrt(), validate_args=False)


class LadderVAE(LatentVariableModel):
    """The ladder VAE: several stochastic layers, in which the posterior is merged with the prior.

        q(z_i | z_{i+1}, x) = N(mu, sigma^2),  1/sigma^2 = 1/sigmahat^2 + 1/sigma_p^2,
                              mu = sigma^2 (muhat / sigmahat^2 + mu_p / sigma_p^2)
        ELBO = E_q[log p(x | z_1)] - KL(q(z_L | x), N(0, I)) - sum_i E_q KL(q(z_i | z_{i+1}, x), p(z_i | z_{i+1}))

    z_L is the top layer. A bottom-up network reads x and returns a normal N(muhat, sigmahat^2) for each layer. On the
    way down, it is merged with the prior p(z_i | z_{i+1}) = N(mu_p, sigma_p^2): q is their normalized product. L = 1 is
    the VAE.

    z is that of the lowest layer, z_1, on which alone x depends: ``encode`` returns its mean, given the means of the
    layers above, and ``decode`` starts from it.

    Reference: Sonderby et al. 2016, Ladder Variational Autoencoders, https://arxiv.org/abs/1602.02282.
    Differs from the paper: there is no batch normalization, because the bound would depend on the batch. The paper's
    warm-up is ``callbacks/anneal=linear``; without it, or free bits per layer, the upper layers often stay unused: see
    the logged ``kl_dim``.

    >>> import torch
    >>> model = LadderVAE((1, 28, 28), latent_dim=20, num_layers=3, hidden=128)
    >>> [tuple(latent.z.shape) for latent in model(torch.zeros(5, 1, 28, 28)).latents]
    [(1, 5, 5), (1, 5, 10), (1, 5, 20)]

    Args:
        data_shape: shape of one example, (C, H, W).
        latent_dim: D, the number of dimensions of the lowest layer; >= 1. Each layer above has half as many, rounded
            up.
        num_layers: L, the number of stochastic layers; >= 1.
        hidden: width of the networks between layers; >= 1.
        encoder: makes the network from x to the lowest layer; ``vaezoo.nets.MLP`` if None.
        decoder: makes the network of p(x | z_1); ``vaezoo.nets.MLP`` if None.
        likelihood: family of p(x | z_1); Bernoulli if None.
        objective: computes the loss; the negative ELBO if None.
        num_samples: K, the number of posterior samples per example; >= 1.
        **kwargs: arguments of ``LatentVariableModel``.
    """

    def __init__(
        self,
        data_shape: Shape,
        latent_dim: int,
        num_layers: int,
        hidden: int,
        encoder: NetFactory | None = None,
        decoder: NetFactory | None = None,
        likelihood: Family | None = None,
        objective: Objective | None = None,
        num_samples: int = 1,
        **kwargs,
    ):
        sizes = {"latent_dim": latent_dim, "num_layers": num_layers, "hidden": hidden, "num_samples": num_samples}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        super().__init__(data_shape, objective or ELBO(), **kwargs)
        self.latent_shape = (latent_dim,)
        self.latent_kind = "layers" if num_layers > 1 else "vector"
        self.num_samples = num_samples
        self.dims = [-(-latent_dim // 2**i) for i in range(num_layers)]  # from the lowest layer to the top
        # Each network returns mean and log scale of its layer and, below the top, features for the next network.
        out_sizes = [2 * dim + hidden for dim in self.dims]
        out_sizes[-1] -= hidden
        mlp = partial(MLP, hidden=[hidden], activation="silu")
        first = Network(self.data_shape, (out_sizes[0],), encoder or MLP)
        self.upwards = nn.ModuleList([first, *(Network((hidden,), (size,), mlp) for size in out_sizes[1:])])
        self.decoder = Conditional(self.latent_shape, self.data_shape, decoder or MLP, likelihood or Bernoulli())
        self.family = NormalFamily()
        self.top = StandardNormal((self.dims[-1],))
        self.downwards = nn.ModuleList(  # p(z_i | z_{i+1}), from the lowest layer to the top
            Conditional((above,), (below,), mlp, NormalFamily()) for below, above in pairwise(self.dims)
        )

    def bottom_up(self, x: Tensor, context: Tensor | None = None) -> list[Normal]:
        """Return N(muhat, sigmahat^2) of each layer, with batch shape (B, D_i), from the lowest layer to the top."""
        normals, features = [], x
        for net, dim in zip(self.upwards, self.dims, strict=True):
            outputs = net(features, context)
            params, features = outputs[:, : 2 * dim], F.silu(outputs[:, 2 * dim :])
            normals.append(self.family(*params.chunk(2, dim=1)))
        return normals

    def forward(self, x: Tensor, context: Tensor | None = None, num_samples: int | None = None) -> Trace:
        *lower, highest = self.bottom_up(x, context)
        q, p = Independent(highest, 1, validate_args=False), self.top(context)
        z = q.rsample(torch.Size([self.num_samples if num_samples is None else num_samples]))  # (K, B, D_L)
        latents = [Latent(q, p, z)]
        for qhat, down in zip(reversed(lower), reversed(self.downwards), strict=True):
            p = down(z, context)
            q = Independent(product_of_normals(qhat, p.base_dist), 1, validate_args=False)  # batch shape (K, B)
            z = q.rsample()
            latents.append(Latent(q, p, z))
        return Trace(x, self.decoder(z, context), tuple(latents), context)

    def top_down(self, x: Tensor, context: Tensor | None = None) -> list[Normal]:
        """Return q of each layer, given the means of the layers above, batch shape (B, D_i), top to bottom."""
        *lower, highest = self.bottom_up(x, context)
        layers = [highest]
        for qhat, down in zip(reversed(lower), reversed(self.downwards), strict=True):
            layers.append(product_of_normals(qhat, down(layers[-1].mean, context).base_dist))
        return layers

    def top_down_means(self, x: Tensor, context: Tensor | None = None) -> list[Tensor]:
        """Return the mean of each layer, given the means of the layers above, (B, D_i), top to bottom."""
        return [q.mean for q in self.top_down(x, context)]

    @inference
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.top_down_means(x, context)[-1]

    def posterior_means(self, trace: Trace) -> list[Tensor]:
        """Return ``top_down_means``; the mean of a lower q is noisy, since it depends on samples from above."""
        return self.top_down_means(trace.x)

    @inference
    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        return self.decoder(z, context)

    @inference
    def sample(self, num: int, context: Tensor | None = None) -> Distribution:
        z = self.top(context).sample(torch.Size([num]))
        for down in reversed(self.downwards):
            z = down(z, context).sample()
        return self.decode(z, context)
