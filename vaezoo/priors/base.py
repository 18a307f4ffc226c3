"""What every prior p(z) has, and the standard normal."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaezoo.conditional import Conditional
from vaezoo.types import Shape


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

    @property
    def limits(self) -> dict[str, str]:
        """What a model with this prior cannot do (``vaezoo.models.base.CAPABILITIES``), with the reasons."""
        return {}

    @abstractmethod
    def forward(self, context: Tensor | None = None) -> Distribution:
        """p(z), with batch shape () and event shape ``shape``."""

    def init_from_data(self, x: Tensor) -> None:
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
