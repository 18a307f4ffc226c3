"""Families over a whole latent, for posteriors q(z | x)."""

from collections.abc import Callable

from torch import Tensor

from vaezoo.families.base import Family
from vaezoo.families.normal import Normal
from vaezoo.types import Shape

PosteriorFactory = Callable[[Shape], Family]


def diagonal_normal(shape: Shape) -> Normal:
    """N(mu(x), diag sigma(x)^2), for a latent of any shape."""
    return Normal()


class Posterior(Family):
    """A family over a whole latent, whose dimensions may depend on each other.

    ``forward`` takes ``num_outputs`` planes, each (*batch, *latent_shape); what needs fewer numbers than
    a multiple of the latent's takes them from the planes laid end to end.
    """

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError("training starts from the mean of the data: likelihoods alone know one")
