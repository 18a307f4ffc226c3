"""Disentanglement scores, for data whose generating factors are known."""

from vaezoo.metrics.disentanglement.classifiers import explicitness, sap
from vaezoo.metrics.disentanglement.dci import dci, forests
from vaezoo.metrics.disentanglement.interventions import beta_vae, factor_vae, groups, irs, mates
from vaezoo.metrics.disentanglement.mutual_information import gap, mig, modularity, mutual_information
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
    "forests",
    "gap",
    "groups",
    "irs",
    "lasso",
    "mates",
    "mig",
    "modularity",
    "mutual_information",
    "one_to_one",
    "sap",
    "spearman",
    "udr",
]
