"""Priors p(z). A prior is made from the latent's shape and returns a distribution when called."""

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from vaezoo.conditional import Shape


class StandardNormal(nn.Module):
    """p(z) = N(0, I).

    Args:
        shape: shape of one z.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, shape: Shape):
        super().__init__()
        self.register_buffer("loc", torch.zeros(*shape), persistent=False)
        self.register_buffer("scale", torch.ones(*shape), persistent=False)

    def forward(self, context: Tensor | None = None) -> Independent:
        """p(z), with batch shape ()."""
        normal = Normal(self.loc, self.scale, validate_args=False)
        return Independent(normal, self.loc.dim(), validate_args=False)
