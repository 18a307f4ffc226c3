"""The sigma-VAE."""

from vaezoo.families import OptimalScaleNormal
from vaezoo.models.vae import VAE
from vaezoo.types import Shape


class SigmaVAE(VAE):
    """The sigma-VAE: a normal likelihood whose variance is the optimal one for the batch.

        p(x | z) = N(mu(z), sigma*^2 I),  sigma*^2 = MSE(x, mu(z))
        loss = D/2 ln MSE + KL(q(z | x), p(z)) + D/2 (ln 2 pi + 1),  D the number of pixels

    sigma* is the one standard deviation under which the batch is most likely. It balances reconstruction and KL without
    a beta. The data are grey or colour values: ``data.binarize=auto`` does not binarize them.

    Reference: Rybkin et al. 2021, Simple and Effective VAE Training with Calibrated Decoders,
    https://arxiv.org/abs/2006.13202, eq. 9.
    Differs from the paper: the paper computes sigma* for each batch in evaluation too. Here evaluation and sampling use
    the running mean of sigma*^2 over training batches, so that val/elbo and test/elbo are bounds. train/elbo is too
    high, because one number per batch is fitted to it.

    >>> import torch
    >>> model = SigmaVAE((1, 28, 28), latent_dim=10, momentum=0.1, min_scale=1e-3)
    >>> model.decode(torch.zeros(5, 10)).mean.shape
    torch.Size([5, 1, 28, 28])

    Args:
        momentum: weight of the newest batch in the running mean; in (0, 1].
        min_scale: minimum of sigma*, in units of the data's range; > 0.
        **kwargs: arguments of ``VAE``, without likelihood.
    """

    def __init__(self, data_shape: Shape, *, momentum: float, min_scale: float, **kwargs):
        super().__init__(data_shape, likelihood=OptimalScaleNormal(momentum, min_scale), **kwargs)
        self.has_own_likelihood = True
