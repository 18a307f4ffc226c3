"""The VampPrior."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily

from vaezoo.conditional import Conditional
from vaezoo.missing import fill_missing, is_observed, to_float
from vaezoo.priors.base import Prior
from vaezoo.priors.mixture import check_components
from vaezoo.types import Shape


class VampPrior(Prior):
    """The variational mixture of posteriors p(z) = 1/C sum_c q(z | u_c), with learned pseudo-inputs u_c.

    q is the encoder of the model; it also receives gradients through the prior. To sample, a component is drawn
    uniformly, then z.

    The pseudo-inputs are u = sigmoid(v), in [0, 1] like pixels, or u = v if they are not ``bounded``, for other data
    such as the columns of a table. ``init_from_data`` sets u to training examples, which are clipped to
    [margin, 1 - margin] if u is bounded, and adds noise to v. A missing entry starts at the mean of the observed ones.
    If there are fewer than C examples, they are repeated with other noise. log p(z) for z (K, B, D) needs memory
    for (K, B, C, D) numbers: 80 MB in float32 for K = 1, B = 1000, C = 500, D = 40.

    Reference: Tomczak & Welling 2018, VAE with a VampPrior, https://arxiv.org/abs/1705.07120. Differs from the paper:
    there, u is clipped to [0, 1]. A clipped pixel has no gradient, and every pixel of a binary example would start
    clipped.

    >>> from vaezoo.conditional import Conditional
    >>> from vaezoo.families import Normal
    >>> from vaezoo.nets import MLP
    >>> encoder = Conditional((1, 28, 28), (8,), MLP, Normal())
    >>> prior = VampPrior((8,), encoder, num_components=10)
    >>> prior.init_from_data(torch.rand(100, 1, 28, 28))
    >>> prior().log_prob(torch.zeros(4, 5, 8)).shape
    torch.Size([4, 5])

    Args:
        shape: shape of one z.
        posterior: the encoder q(z | x). Its parameters are not parameters of the prior.
        num_components: C, the number of components; >= 1.
        noise: standard deviation of the noise in v; > 0.
        bounded: whether u is in [0, 1]. None: it is, unless the data of a run are of a kind that is not
            (``vaezoo.runs.setup.match_data``).
    """

    margin = 0.05  # training examples are clipped to [margin, 1 - margin], because their logits must be finite

    def __init__(
        self,
        shape: Shape,
        posterior: Conditional,
        num_components: int = 500,
        noise: float = 0.1,
        bounded: bool | None = None,
    ):
        super().__init__(shape)
        check_components(num_components)
        if not 0 < noise < math.inf:
            raise ValueError(f"noise must be a finite number > 0, got {noise}")
        self.noise, self.bounded = noise, bounded is not False
        # v. Until ``init_from_data`` is called, it is noise around grey, or around 0.
        self.pixels = nn.Parameter(torch.randn(num_components, *posterior.in_shape))
        self.posterior = (posterior,)  # in a tuple, so that the encoder is not registered as a submodule of the prior

    @property
    def pseudo_inputs(self) -> Tensor:
        """The pseudo-inputs u, (C, *data_shape)."""
        return self.pixels.sigmoid() if self.bounded else self.pixels

    @torch.no_grad()
    def init_from_data(self, x: Tensor) -> None:
        index = torch.arange(len(self.pixels), device=x.device) % len(x)
        x = to_float(x, self.pixels.dtype)
        never_observed = 0.5 if self.bounded else 0.0
        x = fill_missing(torch.where(is_observed(x), x, x.nanmean(0)), never_observed)
        examples = x[index].to(self.pixels)
        if self.bounded:
            examples = torch.logit(examples, eps=self.margin)
        self.pixels.copy_(examples + self.noise * torch.randn_like(examples))

    @property
    def limits(self) -> dict[str, str]:
        return {"kl_per_dim": "a mixture does not factorize over dimensions"}

    def forward(self, context: Tensor | None = None) -> MixtureSameFamily:
        (posterior,) = self.posterior
        components = posterior(self.pseudo_inputs)
        uniform = Categorical(logits=self.pixels.new_zeros(len(self.pixels)), validate_args=False)
        return MixtureSameFamily(uniform, components, validate_args=False)
