"""The partially importance-weighted autoencoder."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import PartiallyImportanceWeighted
from vaezoo.types import Shape


class PIWAE(VAE):
    """The partially importance-weighted autoencoder: Rainforth et al. 2018, https://arxiv.org/abs/1802.04537.

    The decoder and the prior follow IWAE's bound log 1/(M K) sum_mk w_mk, the encoder MIWAE's
    1/M sum_m log 1/K sum_k w_mk, on the same M K samples: a tight bound for the one, a gradient with
    little noise for the other. "loss" is -IWAE's bound.

    Args:
        num_samples: K, samples in each group; >= 1. The paper has K = M = 8, four times our work.
        num_groups: M; >= 1. M = 1 is IWAE.
        gradient: of the encoder: "reparam" is the paper's; "dreg" and "stl" as in ``IWAE``. All three
            need the diagonal normal posterior.
        **kwargs: as ``VAE``.
    """

    def __init__(
        self, data_shape: Shape, *, num_samples: int, num_groups: int, gradient: str = "reparam", **kwargs
    ):
        objective = PartiallyImportanceWeighted(gradient, num_groups)
        super().__init__(data_shape, objective=objective, num_samples=num_groups * num_samples, **kwargs)
