"""Disentanglement scores, for data whose generating factors are known."""

from vaezoo.metrics.disentanglement.classifiers import explicitness, sap
from vaezoo.metrics.disentanglement.dci import dci, forest_importance
from vaezoo.metrics.disentanglement.interventions import beta_vae, factor_vae, group_by_label, irs, sample_same_label
from vaezoo.metrics.disentanglement.mutual_information import mig, modularity, mutual_information, top_two_gap
from vaezoo.metrics.disentanglement.protocol import QUANTITIES, Disentanglement
from vaezoo.metrics.disentanglement.udr import UDR, UDR_CEILING, lasso, one_to_one, spearman, udr

__all__ = [
    "QUANTITIES",
    "UDR",
    "UDR_CEILING",
    "Disentanglement",
    "beta_vae",
    "dci",
    "explicitness",
    "factor_vae",
    "forest_importance",
    "group_by_label",
    "irs",
    "lasso",
    "mig",
    "modularity",
    "mutual_information",
    "one_to_one",
    "sample_same_label",
    "sap",
    "spearman",
    "top_two_gap",
    "udr",
]
