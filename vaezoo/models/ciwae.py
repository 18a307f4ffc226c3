"""The combination importance-weighted autoencoder."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import CombinedImportanceWeighted
from vaezoo.types import Shape


class CIWAE(VAE):
    """The combination importance-weighted autoencoder: a convex combination of the ELBO and the bound of the IWAE.

        loss = -(beta/K sum_k log w_k + (1 - beta) log 1/K sum_k w_k),  w_k = p(x, z_k) / q(z_k | x)

    beta = 0 is the IWAE; beta = 1 is, in expectation, the VAE with K samples. The first term gives the encoder a
    gradient with little noise if K is large.

    Reference: Rainforth et al. 2018, Tighter Variational Bounds are Not Necessarily Better,
    https://arxiv.org/abs/1802.04537.
    Differs from the paper: conf/model/ciwae.yaml has K = 16 in place of 64, to be faster.

    >>> import torch
    >>> model = CIWAE((1, 28, 28), latent_dim=10, num_samples=16, beta=0.05)
    >>> model(torch.zeros(5, 1, 28, 28)).log_w.shape
    torch.Size([16, 5])

    Args:
        num_samples: K; >= 1.
        beta: weight of the ELBO; in [0, 1].
        gradient: estimator of the encoder's gradient: "reparam" (as in the paper), "dreg" or "stl", see ``IWAE``.
        **kwargs: arguments of ``VAE``.
    """

    def __init__(self, data_shape: Shape, *, num_samples: int, beta: float, gradient: str = "reparam", **kwargs):
        objective = CombinedImportanceWeighted(beta, gradient)
        super().__init__(data_shape, objective=objective, num_samples=num_samples, **kwargs)
