"""Objectives: from a ``Trace`` to the scalar that is minimised, and the terms behind it."""

from vaezoo.objectives.base import Objective
from vaezoo.objectives.elbo import ELBO

__all__ = [
    "ELBO",
    "Objective",
]
