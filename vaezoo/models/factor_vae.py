"""The FactorVAE."""

from collections.abc import Sequence

from vaezoo.models.vae import VAE
from vaezoo.objectives import AdversarialTotalCorrelation
from vaezoo.types import Shape


class FactorVAE(VAE):
    """The FactorVAE: Kim & Mnih 2018, https://arxiv.org/abs/1802.05983.

        loss = -ELBO + gamma E_{q(z)}[log D(z) / (1 - D(z))]

    The last term is the total correlation of the aggregate posterior as a critic D sees it, which is
    trained beside the model to tell codes from codes whose dimensions are permuted over the batch.

    Where we leave the paper: the permuted codes are those of the same batch and not of a second one,
    and model and critic step together, both from where they were before the step. The critic's leaky
    ReLU has the slope 0.01. The logged ``tc`` is the critic's opinion: while it lags it is too low, and
    it may be negative. Six layers of 1000 are most of a step's cost on a CPU.

    Args:
        latent_dim: D, the number of latent dimensions; >= 1.
        gamma: weight of the total correlation; >= 0. The paper's best on dSprites is 35.
        critic_hidden: width of each of the critic's hidden layers; the paper has six of 1000.
        critic_lr: learning rate of the critic; its Adam's betas are the paper's (0.5, 0.9).
        **kwargs: as ``VAE``.
    """

    def __init__(
        self,
        data_shape: Shape,
        *,
        latent_dim: int,
        gamma: float,
        critic_hidden: Sequence[int],
        critic_lr: float,
        **kwargs,
    ):
        objective = AdversarialTotalCorrelation((latent_dim,), gamma, critic_hidden, critic_lr)
        super().__init__(data_shape, latent_dim=latent_dim, objective=objective, **kwargs)
