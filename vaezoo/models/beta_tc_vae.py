"""The beta-TCVAE."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import TotalCorrelation
from vaezoo.types import Shape


class BetaTCVAE(VAE):
    """The beta-TCVAE: the total correlation of q(z) has its own weight.

        loss = -E_q[log p(x | z)] + alpha I(x; z) + beta TC(z) + gamma sum_d KL(q(z_d), p(z_d))

    TC(z) = KL(q(z), prod_d q(z_d)) is the total correlation of the aggregate posterior q(z) = 1/N sum_n q(z | x_n),
    which is estimated from the batch and the number N of training examples. For alpha = beta = gamma = 1 it is the VAE.

    Reference: Chen et al. 2018, Isolating Sources of Disentanglement in Variational Autoencoders,
    https://arxiv.org/abs/1802.04942.
    Differs from the paper: the stratified weights are their mean over all orders of the batch, and the three terms sum
    to the KL in closed form (``vaezoo.objectives.TotalCorrelation``).

    The logarithm of an unbiased estimate is biased, so the logged ``mi`` and ``tc`` depend on the batch size: do not
    compare those of training with those of validation. ``tc`` can be negative.

    >>> import torch
    >>> model = BetaTCVAE((1, 28, 28), latent_dim=10, alpha=1.0, beta=6.0, gamma=1.0, estimator="mss")
    >>> sorted(model.objective(model(torch.zeros(5, 1, 28, 28))))
    ['dwkl', 'loss', 'mi', 'tc']

    Args:
        alpha: weight of the mutual information I(x; z); >= 0.
        beta: weight of the total correlation; >= 0.
        gamma: weight of the dimension-wise KL; >= 0.
        estimator: estimate of q(z): "mss" (stratified) or "mws" (weighted; biased).
        **kwargs: arguments of ``VAE``.
    """

    def __init__(
        self,
        data_shape: Shape,
        *,
        alpha: float,
        beta: float,
        gamma: float,
        estimator: str,
        **kwargs,
    ):
        super().__init__(data_shape, objective=TotalCorrelation(alpha, beta, gamma, estimator), **kwargs)
