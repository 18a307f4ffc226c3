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
from vaezoo.nets import MLP
from vaezoo.objectives import ELBO, Objective
from vaezoo.priors import StandardNormal
from vaezoo.trace import Latent, Trace
from vaezoo.types import NetFactory, Shape


def product_of_normals(a: Normal, b: Normal) -> Normal:
    """The normalised product of two normal densities: precisions add, means are weighted by them."""
    share = torch.sigmoid(2 * (b.scale.log() - a.scale.log()))  # of a's precision in their sum
    return Normal(share * a.loc + (1 - share) * b.loc, a.scale * share.sqrt(), validate_args=False)


class LadderVAE(LatentVariableModel):
    """The ladder VAE: Sonderby et al. 2016, https://arxiv.org/abs/1602.02282.

    L layers, z_L at the top. A network upwards reads x and emits a normal qhat(z_i | x) for each layer;
    downwards, the prior p(z_i | z_{i+1}) is merged with it, weighted by precision:

        q(z_i | z_{i+1}, x) = N with 1/sigma^2 = 1/sigmahat^2 + 1/sigma_p^2,
                                     mu = sigma^2 (muhat / sigmahat^2 + mu_p / sigma_p^2)
        ELBO = E_q[log p(x | z_1)] - KL(q(z_L | x), N(0, I)) - sum_i E_q KL(q(z_i | z_{i+1}, x), p(z_i | z_{i+1})).

    With L = 1 it is the VAE. The paper's batch normalisation is left out (it would make the bound
    depend on the batch); its warm-up is ``callbacks/anneal=linear``. Without that, or free bits per
    layer, the upper layers often stay unused: see ``kl_dim``.

    Codes are of the lowest layer, z_1, on which alone x depends: ``encode`` follows the means down to
    it, ``decode`` starts from it.

    Args:
        data_shape: shape of one example, (C, H, W).
        latent_dim: D of the lowest layer; each layer above has half as many, rounded up.
        num_layers: L; >= 1.
        hidden: width of the networks between layers.
        encoder: makes the network from x to the lowest layer; ``vaezoo.nets.MLP`` where None.
        decoder: makes p(x | z_1)'s network; ``vaezoo.nets.MLP`` where None.
        likelihood: family of p(x | z_1); Bernoulli where None.
        objective: what is minimised; the negative ELBO where None.
        num_samples: K, posterior samples per example; >= 1.
        **kwargs: as ``LatentVariableModel``.
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
        self.dims = [-(-latent_dim // 2**i) for i in range(num_layers)]  # from the lowest layer upwards
        # Each step up emits the two planes of its layer and, below the top, features for the next.
        emitted = [2 * dim + hidden for dim in self.dims]
        emitted[-1] -= hidden
        between = partial(MLP, hidden=[hidden], activation="silu")
        first = Network(self.data_shape, (emitted[0],), encoder or MLP)
        self.upwards = nn.ModuleList([first, *(Network((hidden,), (size,), between) for size in emitted[1:])])
        self.decoder = Conditional(self.latent_shape, self.data_shape, decoder or MLP, likelihood or Bernoulli())
        self.family = NormalFamily()
        self.top = StandardNormal((self.dims[-1],))
        self.downwards = nn.ModuleList(  # p(z_i | z_{i+1}), from the lowest upwards
            Conditional((above,), (below,), between, NormalFamily()) for below, above in pairwise(self.dims)
        )

    def bottom_up(self, x: Tensor, context: Tensor | None = None) -> list[Normal]:
        """qhat(z_i | x) of each layer, (B, D_i), from the lowest upwards."""
        normals, features = [], x
        for net, dim in zip(self.upwards, self.dims, strict=True):
            planes = net(features, context)
            planes, features = planes[:, : 2 * dim], F.silu(planes[:, 2 * dim :])
            normals.append(self.family(*planes.chunk(2, dim=1)))
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
        return Trace(x, self.decoder(z, context), tuple(latents))

    def top_down_means(self, x: Tensor, context: Tensor | None = None) -> list[Tensor]:
        """The mean of each layer at the means of those above it, (B, D_i), top to bottom."""
        *lower, highest = self.bottom_up(x, context)
        means = [highest.mean]
        for qhat, down in zip(reversed(lower), reversed(self.downwards), strict=True):
            means.append(product_of_normals(qhat, down(means[-1], context).base_dist).mean)
        return means

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.top_down_means(x, context)[-1]

    def posterior_means(self, trace: Trace) -> list[Tensor]:
        """As ``top_down_means``: q of a lower layer hangs on the samples above it, whose noise would be in its mean."""
        return self.top_down_means(trace.x)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        return self.decoder(z, context)

    def sample(self, num: int, context: Tensor | None = None) -> Distribution:
        z = self.top(context).sample(torch.Size([num]))
        for down in reversed(self.downwards):
            z = down(z, context).sample()
        return self.decode(z, context)
