"""The importance-weighted autoencoder."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import ImportanceWeighted
from vaezoo.types import Shape


class IWAE(VAE):
    """The importance-weighted autoencoder: Burda et al. 2016, https://arxiv.org/abs/1509.00519.

    loss = -L_K, with L_K = E[log 1/K sum_k w_k], w_k = p(x, z_k) / q(z_k | x) and z_1, ..., z_K ~ q(z | x)
    (eq. 8): ELBO = L_1 <= L_K <= log p(x). "loss" is the bound itself, in nats; ``elbo`` stays the ELBO.

    Args:
        num_samples: K; >= 1. The paper has 1, 5 and 50.
        gradient: of the encoder: "reparam" is the paper's; "dreg" (Tucker et al. 2019) has less noise once
            q is near the posterior, the more so the larger K; "stl" (Roeder et al. 2017) is biased for
            K > 1. The last two need the diagonal normal posterior.
        **kwargs: as ``VAE``.
    """

    def __init__(self, data_shape: Shape, *, num_samples: int, gradient: str = "reparam", **kwargs):
        super().__init__(data_shape, objective=ImportanceWeighted(gradient), num_samples=num_samples, **kwargs)
