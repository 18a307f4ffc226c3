"""The FactorVAE."""

from collections.abc import Sequence

from vaezoo.models.vae import VAE
from vaezoo.objectives import AdversarialTotalCorrelation
from vaezoo.types import Shape


class FactorVAE(VAE):
    """The FactorVAE: a discriminator (the critic) estimates the total correlation of q(z), which has a weight.

        loss = -ELBO + gamma E_{q(z)}[log D(z) / (1 - D(z))]

    The last term is the total correlation if the critic D is optimal. D is trained together with the model, to tell
    codes from codes in which each dimension is permuted over the batch.

    Reference: Kim & Mnih 2018, Disentangling by Factorising, https://arxiv.org/abs/1802.05983.
    Differs from the paper: the permuted codes come from the same batch, not from a second one; model and critic are
    updated in one step, both from their state before it; the critic's leaky ReLU has the slope 0.01. gamma = 35 was the
    paper's best value on dSprites.

    The logged ``tc`` is the critic's estimate. It is too low while the critic is undertrained, and it can be negative.
    On a CPU, the critic with six layers of 1000 takes most of a step's time.

    >>> import torch
    >>> settings = {"gamma": 10.0, "critic_hidden": [1000] * 6, "critic_lr": 1e-4}
    >>> model = FactorVAE((1, 28, 28), latent_dim=10, **settings)
    >>> sorted(model.objective(model(torch.zeros(5, 1, 28, 28))))
    ['critic_loss', 'loss', 'tc']

    Args:
        latent_dim: D, the number of latent dimensions; >= 1.
        gamma: weight of the total correlation; >= 0.
        critic_hidden: width of each hidden layer of the critic; the paper has six layers of 1000.
        critic_lr: learning rate of the critic; its Adam has the paper's betas, (0.5, 0.9).
        **kwargs: arguments of ``VAE``.
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
