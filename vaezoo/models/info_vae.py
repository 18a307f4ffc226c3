"""The InfoVAE."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import InfoMMD
from vaezoo.types import Shape


class InfoVAE(VAE):
    """The InfoVAE: a smaller weight on the KL term, and the MMD between q(z) and the prior.

        loss = -E_q[log p(x | z)] + (1 - alpha) KL(q(z | x), p(z)) + (alpha + lambda - 1) MMD^2(q(z), p(z))

    alpha = 0, lambda = 1 is the VAE; alpha = 1 is the MMD-VAE of the paper. MMD^2 is the unbiased estimate from the
    batch and as many samples of the prior (``vaezoo.objectives.discrepancy.mmd``); it can be negative.

    Reference: Zhao et al. 2017, InfoVAE: Balancing Learning and Inference in Variational Autoencoders,
    https://arxiv.org/abs/1706.02262.
    Differs from the paper: alpha cannot be negative.

    >>> import torch
    >>> model = InfoVAE((1, 28, 28), latent_dim=10, alpha=0.5, lambda_mmd=100.0, kernel="rbf")
    >>> sorted(model.objective(model(torch.zeros(5, 1, 28, 28))))
    ['loss', 'mmd']

    Args:
        alpha: weight of the mutual information I(x; z) that the loss adds to the ELBO; in [0, 1].
        lambda_mmd: lambda, in nats; >= 1 - alpha.
        kernel: kernel of the MMD, "rbf" or "imq", see ``vaezoo.objectives.discrepancy``.
        **kwargs: arguments of ``VAE``.
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
