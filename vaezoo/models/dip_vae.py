"""The DIP-VAE."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import CovariancePenalty
from vaezoo.types import Shape


class DIPVAE(VAE):
    """The DIP-VAE (disentangled inferred prior): the covariance of the codes is regularized towards the identity.

        loss = -ELBO + lambda_od sum_{i != j} C_ij^2 + lambda_d sum_i (C_ii - 1)^2

    In variant I, C = Cov_x[mu(x)]; in variant II, C = Cov_{q(z)}[z] = E_x[diag sigma(x)^2] + Cov_x[mu(x)]. Both are
    over the batch. Variant I penalizes unused dimensions, variant II does not.

    Reference: Kumar et al. 2018, Variational Inference of Disentangled Latent Concepts from Unlabeled Observations,
    https://arxiv.org/abs/1711.00848. Locatello et al. 2019, Challenging Common Assumptions in the Unsupervised Learning
    of Disentangled Representations, https://arxiv.org/abs/1811.12359, set lambda_d = 10 lambda_od in variant I and
    lambda_d = lambda_od in variant II.

    >>> import torch
    >>> model = DIPVAE((1, 28, 28), latent_dim=10, variant="II", lambda_od=10.0, lambda_d=10.0)
    >>> sorted(model.objective(model(torch.zeros(5, 1, 28, 28))))
    ['dip_d', 'dip_od', 'loss']

    Args:
        variant: "I" or "II".
        lambda_od: weight of the elements of C off the diagonal; >= 0.
        lambda_d: weight of the elements of C on the diagonal; >= 0.
        **kwargs: arguments of ``VAE``.
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
