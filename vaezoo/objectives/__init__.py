"""Objectives: each maps a ``Trace`` to the loss that is minimized and to the terms that are logged."""

from vaezoo.objectives.adversarial import AdversarialTotalCorrelation
from vaezoo.objectives.aggregate import CovariancePenalty, TotalCorrelation
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
from vaezoo.objectives.modalities import ModalityKL
from vaezoo.objectives.semi_supervised import SemiSupervised
from vaezoo.objectives.vq import Commitment

__all__ = [
    "ELBO",
    "MMD",
    "AdversarialTotalCorrelation",
    "Capacity",
    "CombinedImportanceWeighted",
    "Commitment",
    "CovariancePenalty",
    "ImportanceBound",
    "ImportanceWeighted",
    "InfoMMD",
    "ModalityKL",
    "Objective",
    "PartiallyImportanceWeighted",
    "SemiSupervised",
    "SlicedWasserstein",
    "TotalCorrelation",
]
