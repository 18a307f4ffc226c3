"""The zoo: one class per paper, each a LightningModule made of parts."""

from vaezoo.models.base import LatentVariableModel
from vaezoo.models.beta_vae import BetaVAE
from vaezoo.models.flow_prior_vae import FlowPriorVAE
from vaezoo.models.full_cov_vae import FullCovVAE
from vaezoo.models.iaf_vae import IAFVAE
from vaezoo.models.planar_vae import PlanarVAE
from vaezoo.models.s_vae import SVAE
from vaezoo.models.sigma_vae import SigmaVAE
from vaezoo.models.vae import VAE

__all__ = [
    "IAFVAE",
    "SVAE",
    "VAE",
    "BetaVAE",
    "FlowPriorVAE",
    "FullCovVAE",
    "LatentVariableModel",
    "PlanarVAE",
    "SigmaVAE",
]
