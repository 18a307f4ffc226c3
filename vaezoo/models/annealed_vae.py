"""The VAE with an annealed capacity."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import Capacity
from vaezoo.types import Shape


class AnnealedVAE(VAE):
    """The beta-VAE with controlled capacity: Burgess et al. 2018, https://arxiv.org/abs/1804.03599.

        loss = -E_q[log p(x | z)] + gamma |KL(q(z | x), p(z)) - C|

    C rises linearly from 0 to ``capacity``, and the rate follows it. KL is the batch's mean.

    Where we leave the paper: it takes 100,000 steps and gamma = 1000 on dSprites; the defaults here are
    2,000, 5 epochs of MNIST, and 100, because a larger gamma drowns the reconstruction in the noise of
    the batch's rate. A run of fewer steps has a part of the capacity. Testing takes the whole: that moves
    the loss, not the ELBO.

    Args:
        capacity: C at the end, nats; >= 0.
        gamma: weight of the distance from C; >= 0.
        capacity_steps: optimizer steps until C is ``capacity``; >= 1.
        **kwargs: as ``VAE``.
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
