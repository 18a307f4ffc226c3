"""The base class of all priors p(z), and the standard normal."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaezoo.conditional import Conditional
from vaezoo.types import Shape


class Prior(nn.Module):
    """The base class of priors p(z).

    Args:
        shape: shape of one z.
        posterior: the encoder q(z | x), for priors that use it. Its parameters are not parameters of the prior.

    Attributes:
        space: the space of z, "real" or "sphere".
        conditional: whether p(z) depends on the context.
    """

    space: str = "real"
    conditional: bool = False

    def __init__(self, shape: Shape, posterior: Conditional | None = None):
        super().__init__()

    @property
    def limits(self) -> dict[str, str]:
        """Capabilities (``vaezoo.models.base.CAPABILITIES``) that a model with this prior lacks, and why."""
        return {}

    @abstractmethod
    def forward(self, context: Tensor | None = None) -> Distribution:
        """Return p(z), with batch shape () and event shape ``shape``; batch shape (B,) if it is conditional.

        Args:
            context: labels or another condition, (B, *shape); priors that are not conditional ignore it.
        """

    def sample(self, num: int, context: Tensor | None = None) -> Tensor:
        """Draw ``num`` samples, (num, *shape).

        Args:
            num: number of samples.
            context: labels or another condition, (num, *shape): one for each sample of a conditional prior.
        """
        p = self(context)
        if not p.batch_shape:
            return p.sample(torch.Size([num]))
        if p.batch_shape != (num,):
            raise ValueError(f"{num} samples need as many labels, got {p.batch_shape[0]}: pass one for each sample")
        return p.sample()

    def check_labels(self, labels: Tensor) -> None:
        """Raise a ValueError for labels that the prior cannot take. Only a conditional prior looks at them."""

    def init_from_data(self, x: Tensor) -> None:
        """Initialize the prior from training examples x, (N, *data_shape). Does nothing by default."""


PriorFactory = Callable[[Shape, Conditional], Prior]


class StandardNormal(Prior):
    """The standard normal prior p(z) = N(0, I).

    Args:
        shape: shape of one z.
        posterior: not used.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, shape: Shape, posterior: Conditional | None = None):
        super().__init__(shape)
        self.register_buffer("loc", torch.zeros(*shape), persistent=False)
        self.register_buffer("scale", torch.ones(*shape), persistent=False)

    def forward(self, context: Tensor | None = None) -> Independent:
        normal = Normal(self.loc, self.scale, validate_args=False)
        return Independent(normal, self.loc.dim(), validate_args=False)
