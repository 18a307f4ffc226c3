"""The VAE with a VampPrior."""

from functools import partial

from vaezoo.models.vae import VAE
from vaezoo.priors import VampPrior
from vaezoo.types import Shape


class VampVAE(VAE):
    """The VAE with a VampPrior, a mixture of the posteriors of learned pseudo-inputs.

        p(z) = 1/C sum_c q(z | u_c),  u_1, ..., u_C learned

    KL(q, p) has no closed form; it is estimated from the samples.

    Reference: Tomczak & Welling 2018, VAE with a VampPrior, https://arxiv.org/abs/1705.07120.
    Differs from the paper: see ``vaezoo.priors.VampPrior``.

    >>> model = VampVAE((1, 28, 28), latent_dim=10, num_components=500)
    >>> model.prior.pseudo_inputs.shape
    torch.Size([500, 1, 28, 28])

    Args:
        num_components: C, the number of pseudo-inputs; >= 1. In each step the encoder processes them in addition to the
            batch.
        bounded: whether the pseudo-inputs are in [0, 1] (``vaezoo.priors.VampPrior``).
        **kwargs: arguments of ``VAE``.
    """

    def __init__(self, data_shape: Shape, *, num_components: int, bounded: bool | None = None, **kwargs):
        prior = partial(VampPrior, num_components=num_components, bounded=bounded)
        super().__init__(data_shape, prior=prior, **kwargs)
