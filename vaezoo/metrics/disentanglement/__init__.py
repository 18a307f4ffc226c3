"""Disentanglement metrics, for data with known generating factors.

Does each latent dimension follow one factor of the data, and each factor one dimension? ``Disentanglement`` computes
all scores; each score is also a function of codes and factors; ``udr`` compares models without known factors.
"""

from vaezoo.metrics.disentanglement.classifiers import explicitness, sap
from vaezoo.metrics.disentanglement.dci import dci, forest_importance
from vaezoo.metrics.disentanglement.interventions import beta_vae, factor_vae, irs
from vaezoo.metrics.disentanglement.mutual_information import mig, modularity, mutual_information
from vaezoo.metrics.disentanglement.protocol import QUANTITIES, Disentanglement
from vaezoo.metrics.disentanglement.udr import UDR, UDR_CEILING, lasso, spearman, udr

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
    "irs",
    "lasso",
    "mig",
    "modularity",
    "mutual_information",
    "sap",
    "spearman",
    "udr",
]
