"""The VAE with controlled capacity."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import Capacity
from vaezoo.types import Shape


class AnnealedVAE(VAE):
    """The VAE with controlled capacity: KL(q, p) is kept near a capacity C that rises during training.

        loss = -E_q[log p(x | z)] + gamma |KL(q(z | x), p(z)) - C|

    C rises linearly from 0 to ``capacity``. KL is the mean over the batch. Validation uses the C of the last step
    and the test uses ``capacity``, which changes the loss but not the ELBO.

    Reference: Burgess et al. 2018, Understanding disentangling in beta-VAE, https://arxiv.org/abs/1804.03599.
    Differs from the paper: conf/model/annealed_vae.yaml has 2,000 steps (5 epochs of MNIST) and gamma = 100 in place of
    100,000 steps and 1000 (dSprites), because with a larger gamma the noise of the batch's KL dominates the gradient.
    A training with fewer steps than ``capacity_steps`` reaches only a part of the capacity.

    >>> model = AnnealedVAE((1, 28, 28), latent_dim=10, capacity=25.0, gamma=100.0, capacity_steps=2000)
    >>> model.objective.apply_schedules(step=1000)
    >>> model.objective.weights()["capacity"]
    tensor(12.5000)

    Args:
        capacity: final value of C, in nats; >= 0.
        gamma: weight of the distance between KL and C; >= 0.
        capacity_steps: number of optimizer steps until C reaches ``capacity``; >= 1.
        **kwargs: arguments of ``VAE``.
    """

    def __init__(
        self,
        data_shape: Shape,
        *,
        capacity: float,
        gamma: float,
        capacity_steps: int,
        **kwargs,
    ):
        super().__init__(data_shape, objective=Capacity(capacity, gamma, capacity_steps), **kwargs)
