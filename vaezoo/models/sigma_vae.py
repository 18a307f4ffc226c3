"""The sigma-VAE."""

from vaezoo.families import OptimalScaleNormal
from vaezoo.models.vae import VAE
from vaezoo.types import Shape


class SigmaVAE(VAE):
    """The optimal sigma-VAE: Rybkin et al. 2021, https://arxiv.org/abs/2006.13202, eq. 9.

    p(x | z) = N(mu(z), sigma*^2 I) with sigma*^2 = MSE(x, mu(z)), the one variance under which the
    batch is most likely, so that for D pixels

        loss = D/2 ln MSE + KL(q(z | x), p(z)) + D/2 (ln 2 pi + 1)

    balances error against rate with no beta. The paper fits sigma to every batch, in evaluation too;
    here evaluation and sampling use the running average of sigma*^2 over training batches, so that
    val/elbo and test/elbo are bounds (train/elbo is optimistic by the fit of one number per batch).

    For grey and colour data: ``data.binarize=auto`` leaves them as they are.

    Args:
        momentum: weight of the newest batch in that average; in (0, 1].
        min_scale: least sigma, in units of the data range; > 0.
        **kwargs: as ``VAE``, without likelihood.
    """

    def __init__(self, data_shape: Shape, *, momentum: float, min_scale: float, **kwargs):
        super().__init__(data_shape, likelihood=OptimalScaleNormal(momentum, min_scale), **kwargs)
