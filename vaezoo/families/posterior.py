"""Families over a whole latent, for posteriors q(z | x)."""

from collections.abc import Callable

from torch import Tensor

from vaezoo.families.base import Family
from vaezoo.families.normal import Normal
from vaezoo.types import Shape

PosteriorFactory = Callable[[Shape], Family]


def diagonal_normal(shape: Shape) -> Normal:
    """Return the family N(mu(x), diag sigma(x)^2), for a latent of any shape."""
    return Normal()


class Posterior(Family):
    """The base class of families over a whole latent, whose dimensions may depend on each other.

    ``forward`` takes ``num_outputs`` raw tensors, each (*batch, *latent_shape). A family that needs another number of
    values concatenates the tensors and takes the first values.

    A new posterior also says which tensors its distribution is made of: ``vaezoo.distributions.get_parameters``.
    """

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError("only a likelihood can start from the mean of the data, not a posterior")
