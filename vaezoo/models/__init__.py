"""The models: one class for each paper, a LightningModule that is made of parts."""

from vaezoo.models.annealed_vae import AnnealedVAE
from vaezoo.models.base import LatentVariableModel
from vaezoo.models.beta_tc_vae import BetaTCVAE
from vaezoo.models.beta_vae import BetaVAE
from vaezoo.models.ciwae import CIWAE
from vaezoo.models.conditional_prior_vae import ConditionalPriorVAE
from vaezoo.models.count_vae import CountVAE
from vaezoo.models.cvae import CVAE
from vaezoo.models.dip_vae import DIPVAE
from vaezoo.models.factor_vae import FactorVAE
from vaezoo.models.flow_prior_vae import FlowPriorVAE
from vaezoo.models.full_cov_vae import FullCovVAE
from vaezoo.models.hi_vae import HIVAE
from vaezoo.models.iaf_vae import IAFVAE
from vaezoo.models.info_vae import InfoVAE
from vaezoo.models.iwae import IWAE
from vaezoo.models.ladder_vae import LadderVAE
from vaezoo.models.m2_vae import M2VAE
from vaezoo.models.missing_iwae import MissingIWAE
from vaezoo.models.miwae import MIWAE
from vaezoo.models.mog_vae import MoGVAE
from vaezoo.models.mult_vae import MultVAE
from vaezoo.models.multimodal_vae import MultimodalVAE
from vaezoo.models.not_miwae import NotMIWAE
from vaezoo.models.piwae import PIWAE
from vaezoo.models.planar_vae import PlanarVAE
from vaezoo.models.prod_lda import ProdLDA
from vaezoo.models.s_vae import SVAE
from vaezoo.models.sigma_vae import SigmaVAE
from vaezoo.models.swae import SWAE
from vaezoo.models.text_cvae import TextCVAE
from vaezoo.models.text_vae import TextVAE
from vaezoo.models.vae import VAE
from vaezoo.models.vamp_vae import VampVAE
from vaezoo.models.vq_vae import VQVAE
from vaezoo.models.vrnn import VRNN
from vaezoo.models.wae import WAE

__all__ = [
    "CIWAE",
    "CVAE",
    "DIPVAE",
    "HIVAE",
    "IAFVAE",
    "IWAE",
    "M2VAE",
    "MIWAE",
    "PIWAE",
    "SVAE",
    "SWAE",
    "VAE",
    "VQVAE",
    "VRNN",
    "WAE",
    "AnnealedVAE",
    "BetaTCVAE",
    "BetaVAE",
    "ConditionalPriorVAE",
    "CountVAE",
    "FactorVAE",
    "FlowPriorVAE",
    "FullCovVAE",
    "InfoVAE",
    "LadderVAE",
    "LatentVariableModel",
    "MissingIWAE",
    "MoGVAE",
    "MultVAE",
    "MultimodalVAE",
    "NotMIWAE",
    "PlanarVAE",
    "ProdLDA",
    "SigmaVAE",
    "TextCVAE",
    "TextVAE",
    "VampVAE",
]
