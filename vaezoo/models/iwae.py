"""The importance-weighted autoencoder."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import ImportanceWeighted
from vaezoo.types import Shape


class IWAE(VAE):
    """The importance-weighted autoencoder: a bound on log p(x) that is tighter than the ELBO.

        loss = -L_K,  L_K = E[log 1/K sum_k w_k],  w_k = p(x, z_k) / q(z_k | x),  z_1, ..., z_K ~ q(z | x)

    ELBO = L_1 <= L_K <= log p(x). The logged "loss" is -L_K in nats; the logged ``elbo`` is the ELBO, as for all
    models.

    Reference: Burda et al. 2016, Importance Weighted Autoencoders, https://arxiv.org/abs/1509.00519, eq. 8. The paper
    has K = 1, 5 and 50.

    >>> import torch
    >>> model = IWAE((1, 28, 28), latent_dim=10, num_samples=5)
    >>> model(torch.zeros(3, 1, 28, 28)).log_w.shape
    torch.Size([5, 3])

    Args:
        num_samples: K; >= 1.
        gradient: estimator of the encoder's gradient. "reparam" is the paper's. "dreg" (Tucker et al. 2019) has less
            noise if q is near the exact posterior, the more so the larger K is. "stl" (Roeder et al. 2017) is biased
            for K > 1. "dreg" and "stl" need the diagonal normal posterior; see ``vaezoo.objectives.ImportanceBound``.
        **kwargs: arguments of ``VAE``.
    """

    def __init__(self, data_shape: Shape, *, num_samples: int, gradient: str = "reparam", **kwargs):
        super().__init__(data_shape, objective=ImportanceWeighted(gradient), num_samples=num_samples, **kwargs)
