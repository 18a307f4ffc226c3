"""The combination importance-weighted autoencoder."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import CombinedImportanceWeighted
from vaezoo.types import Shape


class CIWAE(VAE):
    """The combination importance-weighted autoencoder: Rainforth et al. 2018, https://arxiv.org/abs/1802.04537.

    loss = -(beta/K sum_k log w_k + (1 - beta) log 1/K sum_k w_k): beta = 1 is in
    expectation the VAE with K samples, beta = 0 is IWAE. The first term keeps a signal for the encoder when K is large.

    Args:
        num_samples: K; >= 1. The paper has 64.
        beta: share of the ELBO; in [0, 1].
        gradient: of the encoder: "reparam" is the paper's; "dreg" and "stl" as in ``IWAE``.
        **kwargs: as ``VAE``.
    """

    def __init__(
        self, data_shape: Shape, *, num_samples: int, beta: float, gradient: str = "reparam", **kwargs
    ):
        objective = CombinedImportanceWeighted(beta, gradient)
        super().__init__(data_shape, objective=objective, num_samples=num_samples, **kwargs)
