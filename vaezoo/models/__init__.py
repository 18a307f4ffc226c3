"""The zoo: one class per paper, each a LightningModule made of parts."""

from vaezoo.models.base import LatentVariableModel
from vaezoo.models.beta_vae import BetaVAE
from vaezoo.models.vae import VAE

__all__ = ["VAE", "BetaVAE", "LatentVariableModel"]
