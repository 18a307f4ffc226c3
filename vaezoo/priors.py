"""Priors p(z). A prior is made from the latent's shape and returns a distribution when called."""

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from vaezoo.conditional import Conditional, Shape


class Prior(nn.Module):
    """p(z), with batch shape ().

    Args:
        shape: shape of one z.
        posterior: q(z | x), for priors that are made from it; its parameters stay its own.

    Attributes:
        space: where z lies: "real" or "sphere".
    """

    space: str = "real"

    def __init__(self, shape: Shape, posterior: Conditional | None = None):
        super().__init__()

    @abstractmethod
    def forward(self, context: Tensor | None = None) -> Distribution:
        """p(z), with batch shape () and event shape ``shape``."""

    def start(self, x: Tensor) -> None:
        """Adapt to training examples x (N, *data_shape) before the first step; most have no need to."""


PriorFactory = Callable[[Shape, Conditional], Prior]


class StandardNormal(Prior):
    """p(z) = N(0, I)."""

    loc: Tensor
    scale: Tensor

    def __init__(self, shape: Shape, posterior: Conditional | None = None):
        super().__init__(shape)
        self.register_buffer("loc", torch.zeros(*shape), persistent=False)
        self.register_buffer("scale", torch.ones(*shape), persistent=False)

    def forward(self, context: Tensor | None = None) -> Independent:
        normal = Normal(self.loc, self.scale, validate_args=False)
        return Independent(normal, self.loc.dim(), validate_args=False)


def check_components(num_components: int) -> None:
    """Raise a ValueError for a mixture of nothing."""
    if num_components < 1:
        raise ValueError(f"num_components must be >= 1, got {num_components}")


class MixtureOfNormals(Prior):
    """p(z) = sum_c pi_c N(z; mu_c, diag sigma_c^2), with pi = softmax(logits): all learned.

    It starts with equal weights, unit scales and means drawn from N(0, spread^2 I), so that the
    components can differ. log p(z) at z (K, B, *shape) holds (K, B, C, *shape) numbers.

    Args:
        shape: shape of one z.
        posterior: not used.
        num_components: C; >= 1.
        spread: standard deviation of the means at the start; >= 0. With 0, all components stay equal.
    """

    def __init__(
        self, shape: Shape, posterior: Conditional | None = None, num_components: int = 50, spread: float = 1.0
    ):
        super().__init__(shape)
        check_components(num_components)
        if not 0 <= spread < math.inf:
            raise ValueError(f"spread must be a finite number >= 0, got {spread}")
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.loc = nn.Parameter(spread * torch.randn(num_components, *shape))
        self.log_scale = nn.Parameter(torch.zeros(num_components, *shape))

    def forward(self, context: Tensor | None = None) -> MixtureSameFamily:
        normal = Normal(self.loc, self.log_scale.exp(), validate_args=False)
        components = Independent(normal, self.loc.dim() - 1, validate_args=False)
        return MixtureSameFamily(Categorical(logits=self.logits, validate_args=False), components, validate_args=False)


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
        self.pixels = nn.Parameter(torch.randn(num_components, *posterior.in_shape))  # v: grey noise until ``start``
        self.posterior = (posterior,)  # a tuple, so that the encoder is not a part of two modules

    @property
    def pseudo_inputs(self) -> Tensor:
        """u, (C, *data_shape)."""
        return self.pixels.sigmoid()

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        index = torch.arange(len(self.pixels), device=x.device) % len(x)
        examples = torch.logit(x[index].to(self.pixels), eps=self.margin)
        self.pixels.copy_(examples + self.noise * torch.randn_like(examples))

    def forward(self, context: Tensor | None = None) -> MixtureSameFamily:
        (posterior,) = self.posterior
        components = posterior(self.pseudo_inputs)
        uniform = Categorical(logits=self.pixels.new_zeros(len(self.pixels)), validate_args=False)
        return MixtureSameFamily(uniform, components, validate_args=False)
