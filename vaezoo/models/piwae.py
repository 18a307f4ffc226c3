"""The partially importance-weighted autoencoder."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import PartiallyImportanceWeighted
from vaezoo.types import Shape


class PIWAE(VAE):
    """The partially importance-weighted autoencoder: decoder and encoder maximize different bounds.

        decoder and prior: log 1/(M K) sum_mk w_mk          (IWAE)
        encoder:           1/M sum_m log 1/K sum_k w_mk     (MIWAE)

    Both are computed from the same M K samples. So the decoder has a tight bound, and the encoder a gradient with
    little noise. The logged "loss" is the negative of the first bound.

    Reference: Rainforth et al. 2018, Tighter Variational Bounds are Not Necessarily Better,
    https://arxiv.org/abs/1802.04537.
    Differs from the paper: conf/model/piwae.yaml has K = M = 4 in place of 8, a quarter of the samples, to be faster.

    >>> import torch
    >>> model = PIWAE((1, 28, 28), latent_dim=10, num_samples=4, num_groups=4)
    >>> model(torch.zeros(5, 1, 28, 28)).log_w.shape
    torch.Size([16, 5])

    Args:
        num_samples: K, the number of samples in each group; >= 1.
        num_groups: M, the number of groups; >= 1. M = 1 is the IWAE.
        gradient: estimator of the encoder's gradient: "reparam" (as in the paper), "dreg" or "stl", see ``IWAE``. All
            three need the diagonal normal posterior.
        **kwargs: arguments of ``VAE``.
    """

    def __init__(self, data_shape: Shape, *, num_samples: int, num_groups: int, gradient: str = "reparam", **kwargs):
        objective = PartiallyImportanceWeighted(gradient, num_groups)
        super().__init__(data_shape, objective=objective, num_samples=num_groups * num_samples, **kwargs)
