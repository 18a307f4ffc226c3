"""Objectives: from a ``Trace`` to the scalar that is minimised, and the terms behind it."""

from vaezoo.objectives.adversarial import DensityRatio
from vaezoo.objectives.aggregate import MomentPenalty, TotalCorrelation
from vaezoo.objectives.base import Objective
from vaezoo.objectives.capacity import Capacity
from vaezoo.objectives.discrepancy import MMD, InfoMMD, SlicedWasserstein
from vaezoo.objectives.elbo import ELBO
from vaezoo.objectives.importance import (
    CombinedImportanceWeighted,
    ImportanceBound,
    ImportanceWeighted,
    PartiallyImportanceWeighted,
)
from vaezoo.objectives.vq import Commitment

__all__ = [
    "ELBO",
    "MMD",
    "Capacity",
    "CombinedImportanceWeighted",
    "Commitment",
    "DensityRatio",
    "ImportanceBound",
    "ImportanceWeighted",
    "InfoMMD",
    "MomentPenalty",
    "Objective",
    "PartiallyImportanceWeighted",
    "SlicedWasserstein",
    "TotalCorrelation",
]
