"""The multiply importance-weighted autoencoder."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import ImportanceWeighted
from vaezoo.types import Shape


class MIWAE(VAE):
    """The multiply importance-weighted autoencoder: the mean of M bounds of the IWAE.

        loss = -1/M sum_m log 1/K sum_k w_mk,  w_mk = p(x, z_mk) / q(z_mk | x)

    with M K samples z_mk ~ q(z | x). A larger K makes the bound tighter, but the encoder's gradient noisier; a larger M
    makes the gradient less noisy. M = 1 is the IWAE; K = 1 is, in expectation, the VAE with M samples.

    Reference: Rainforth et al. 2018, Tighter Variational Bounds are Not Necessarily Better,
    https://arxiv.org/abs/1802.04537.
    Differs from the paper: conf/model/miwae.yaml has K = M = 4 in place of 8, a quarter of the samples, to be faster.

    >>> import torch
    >>> model = MIWAE((1, 28, 28), latent_dim=10, num_samples=4, num_groups=4)
    >>> model(torch.zeros(5, 1, 28, 28)).log_w.shape
    torch.Size([16, 5])

    Args:
        num_samples: K, the number of samples in each group; >= 1.
        num_groups: M, the number of groups; >= 1.
        gradient: estimator of the encoder's gradient: "reparam" (as in the paper), "dreg" or "stl", see ``IWAE``.
        **kwargs: arguments of ``VAE``.
    """

    def __init__(self, data_shape: Shape, *, num_samples: int, num_groups: int, gradient: str = "reparam", **kwargs):
        objective = ImportanceWeighted(gradient, num_groups)
        super().__init__(data_shape, objective=objective, num_samples=num_groups * num_samples, **kwargs)
