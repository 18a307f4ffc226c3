"""The sliced-Wasserstein auto-encoder."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import SlicedWasserstein
from vaezoo.types import Shape


class SWAE(VAE):
    """The sliced-Wasserstein auto-encoder: Kolouri et al. 2018, https://arxiv.org/abs/1804.01947.

        loss = -E_q[log p(x | z)] + lambda SW_2^2(q(z), p(z))

    with the mean squared distance of sorted projections on random directions, which are new each step.

    Where we leave the paper: its cost is -log p(x | z) here, and its deterministic encoder is the Gaussian
    one, so that there is an ELBO. No term of the loss rewards its scale, which shrinks: the ELBO is a true
    bound, but far below a VAE's, and the rate is large.
    The prior learns from its draws alone: a mixture of normals stays where it starts.

    Args:
        lambda_sw: lambda, nats; >= 0.
        num_projections: random directions of each step; >= 1.
        **kwargs: as ``VAE``.
    """

    def __init__(self, data_shape: Shape, *, lambda_sw: float, num_projections: int, **kwargs):
        super().__init__(data_shape, objective=SlicedWasserstein(lambda_sw, num_projections), **kwargs)
