"""The VampPrior."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily

from vaezoo.conditional import Conditional
from vaezoo.priors.base import Prior
from vaezoo.priors.mixture import check_components
from vaezoo.types import Shape


class VampPrior(Prior):
    """The variational mixture of posteriors: Tomczak & Welling 2018, https://arxiv.org/abs/1705.07120.

    p(z) = 1/C sum_c q(z | u_c), where the pseudo-inputs u_c are learned and q is the encoder, which
    learns from here too. A sample is a component drawn uniformly, then z.

    u = sigmoid(v) lies within [0, 1] as images do. The paper clips u instead: a clipped pixel has no
    gradient, and pixels of binary examples would start at the clip. v starts at training examples,
    drawn in to [margin, 1 - margin], plus noise; examples are repeated, each time with other noise,
    where there are fewer than C.

    log p(z) at z (K, B, D) holds (K, B, C, D) numbers: 80 MB in float32 at K = 1, B = 1000, C = 500, D = 40.

    Args:
        shape: shape of one z.
        posterior: q(z | x). Its parameters stay its own.
        num_components: C; >= 1.
        noise: standard deviation of the noise in v; > 0.
    """

    margin = 0.05

    def __init__(self, shape: Shape, posterior: Conditional, num_components: int = 500, noise: float = 0.1):
        super().__init__(shape)
        check_components(num_components)
        if not 0 < noise < math.inf:
            raise ValueError(f"noise must be a finite number > 0, got {noise}")
        self.noise = noise
        # v: grey noise until ``init_from_data``.
        self.pixels = nn.Parameter(torch.randn(num_components, *posterior.in_shape))
        self.posterior = (posterior,)  # a tuple, so that the encoder is not a part of two modules

    @property
    def pseudo_inputs(self) -> Tensor:
        """u, (C, *data_shape)."""
        return self.pixels.sigmoid()

    @torch.no_grad()
    def init_from_data(self, x: Tensor) -> None:
        index = torch.arange(len(self.pixels), device=x.device) % len(x)
        examples = torch.logit(x[index].to(self.pixels), eps=self.margin)
        self.pixels.copy_(examples + self.noise * torch.randn_like(examples))

    @property
    def limits(self) -> dict[str, str]:
        return {"kl_per_dim": "a mixture does not factorize over dimensions"}

    def forward(self, context: Tensor | None = None) -> MixtureSameFamily:
        (posterior,) = self.posterior
        components = posterior(self.pseudo_inputs)
        uniform = Categorical(logits=self.pixels.new_zeros(len(self.pixels)), validate_args=False)
        return MixtureSameFamily(uniform, components, validate_args=False)
