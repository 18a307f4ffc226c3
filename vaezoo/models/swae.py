"""The sliced-Wasserstein auto-encoder."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import SlicedWasserstein
from vaezoo.types import Shape


class SWAE(VAE):
    """The sliced-Wasserstein auto-encoder: the sliced Wasserstein distance between q(z) and the prior replaces the KL.

        loss = -E_q[log p(x | z)] + lambda SW_2^2(q(z), p(z))

    SW_2^2 is the mean squared distance between sorted projections on random directions, which are new in each step.

    Reference: Kolouri et al. 2018, Sliced-Wasserstein Autoencoder: An Embarrassingly Simple Generative Model,
    https://arxiv.org/abs/1804.01947.
    Differs from the paper: the cost is -log p(x | z). The encoder is Gaussian, so that there is an ELBO; the paper's
    encoder is deterministic. Nothing in the loss keeps the encoder's scale from shrinking, so the KL is large and the
    ELBO, which is a true bound, is far below that of a VAE. The loss sees only samples of the prior: a mixture of
    normals is not trained, because its samples have no gradient.

    >>> import torch
    >>> model = SWAE((1, 28, 28), latent_dim=10, lambda_sw=10.0, num_projections=50)
    >>> sorted(model.objective(model(torch.zeros(5, 1, 28, 28))))
    ['loss', 'sw']

    Args:
        lambda_sw: lambda, in nats; >= 0.
        num_projections: number of random directions in each step; >= 1.
        **kwargs: arguments of ``VAE``.
    """

    def __init__(self, data_shape: Shape, *, lambda_sw: float, num_projections: int, **kwargs):
        super().__init__(data_shape, objective=SlicedWasserstein(lambda_sw, num_projections), **kwargs)
