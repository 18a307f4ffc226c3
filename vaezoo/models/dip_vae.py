"""The DIP-VAE."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import CovariancePenalty
from vaezoo.types import Shape


class DIPVAE(VAE):
    """The DIP-VAE, disentangled inferred prior: Kumar et al. 2018, https://arxiv.org/abs/1711.00848.

        loss = -ELBO + lambda_od sum_{i != j} C_ij^2 + lambda_d sum_i (C_ii - 1)^2

    with C = Cov_x[mu(x)] in variant I, and Cov_{q(z)}[z] = E_x[diag sigma(x)^2] + Cov_x[mu(x)] in
    variant II, over the batch. Variant I wants every dimension in use; in II a collapsed one is free.
    Locatello et al. 2019 take lambda_d = 10 lambda_od for I and lambda_d = lambda_od for II.

    Args:
        variant: I or II.
        lambda_od: weight of the covariances between dimensions; >= 0.
        lambda_d: weight of the variances' distance from 1; >= 0.
        **kwargs: as ``VAE``.
    """

    def __init__(
        self,
        data_shape: Shape,
        *,
        variant: str,
        lambda_od: float,
        lambda_d: float,
        **kwargs,
    ):
        super().__init__(data_shape, objective=CovariancePenalty(variant, lambda_od, lambda_d), **kwargs)
