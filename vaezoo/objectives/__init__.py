"""Objectives: from a ``Trace`` to the scalar that is minimised, and the terms behind it."""

from vaezoo.objectives.base import Objective
from vaezoo.objectives.elbo import ELBO
from vaezoo.objectives.importance import (
    CombinedImportanceWeighted,
    ImportanceBound,
    ImportanceWeighted,
    PartiallyImportanceWeighted,
)

__all__ = [
    "ELBO",
    "CombinedImportanceWeighted",
    "ImportanceBound",
    "ImportanceWeighted",
    "Objective",
    "PartiallyImportanceWeighted",
]
