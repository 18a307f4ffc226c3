"""The multiply importance-weighted autoencoder."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import ImportanceWeighted
from vaezoo.types import Shape


class MIWAE(VAE):
    """The multiply importance-weighted autoencoder: Rainforth et al. 2018, https://arxiv.org/abs/1802.04537.

    loss = -1/M sum_m log 1/K sum_k w_mk with M K samples z_mk ~ q(z | x): the mean of M estimates
    of IWAE's bound L_K. Raising K tightens the bound but drowns the encoder's gradient in noise;
    raising M does away with noise. K = 1 is in expectation the VAE with M samples,
    M = 1 is IWAE.

    Args:
        num_samples: K, samples in each group; >= 1. The paper has K = M = 8, four times our work.
        num_groups: M; >= 1.
        gradient: of the encoder: "reparam" is the paper's; "dreg" and "stl" as in ``IWAE``.
        **kwargs: as ``VAE``.
    """

    def __init__(
        self, data_shape: Shape, *, num_samples: int, num_groups: int, gradient: str = "reparam", **kwargs
    ):
        objective = ImportanceWeighted(gradient, num_groups)
        super().__init__(data_shape, objective=objective, num_samples=num_groups * num_samples, **kwargs)
