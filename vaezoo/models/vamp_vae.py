"""The VAE with a variational mixture of posteriors for its prior."""

from functools import partial

from vaezoo.models.vae import VAE
from vaezoo.priors import VampPrior
from vaezoo.types import Shape


class VampVAE(VAE):
    """The VAE with a VampPrior: Tomczak & Welling 2018, https://arxiv.org/abs/1705.07120.

    ELBO with p(z) = 1/C sum_c q(z | u_c), u_1, ..., u_C learned: the KL has no closed form and
    is estimated at the samples. Details, and where we deviate, are in ``vaezoo.priors.VampPrior``.

    Args:
        num_components: C, the number of pseudo-inputs; >= 1. The encoder sees them in every step
            beside the batch.
        **kwargs: as ``VAE``.
    """

    def __init__(self, data_shape: Shape, *, num_components: int, **kwargs):
        super().__init__(data_shape, prior=partial(VampPrior, num_components=num_components), **kwargs)
