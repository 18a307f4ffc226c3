"""The InfoVAE."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import InfoMMD
from vaezoo.types import Shape


class InfoVAE(VAE):
    """The InfoVAE: Zhao et al. 2017, https://arxiv.org/abs/1706.02262.

        loss = -E_q[log p(x | z)] + (1 - alpha) KL(q(z | x), p(z)) + (alpha + lambda - 1) MMD^2(q(z), p(z))

    alpha = 0, lambda_mmd = 1 is the VAE, alpha = 1 the paper's MMD-VAE. MMD^2 is the unbiased estimate from the
    batch and as many draws of the prior (``vaezoo.objectives.discrepancy.mmd``): it may be negative.

    Where we leave the paper: alpha is at least 0, so no rate is charged twice.

    Args:
        alpha: how much of the mutual information I(x; z) is given free of charge, in [0, 1].
        lambda_mmd: lambda, nats; >= 1 - alpha.
        kernel: rbf or imq, ``vaezoo.objectives.discrepancy``.
        **kwargs: as ``VAE``.
    """

    def __init__(
        self,
        data_shape: Shape,
        *,
        alpha: float,
        lambda_mmd: float,
        kernel: str,
        **kwargs,
    ):
        super().__init__(data_shape, objective=InfoMMD(alpha, lambda_mmd, kernel), **kwargs)
