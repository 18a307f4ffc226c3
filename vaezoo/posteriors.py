"""Posteriors q(z | x): families over a whole latent, made from its shape."""

from collections.abc import Callable

from vaezoo.conditional import Shape
from vaezoo.families import Family, Normal

PosteriorFactory = Callable[[Shape], Family]


def diagonal_normal(shape: Shape) -> Normal:
    """N(mu(x), diag sigma(x)^2), for a latent of any shape."""
    return Normal()
