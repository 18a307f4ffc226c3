"""The beta-TCVAE."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import TotalCorrelation
from vaezoo.types import Shape


class BetaTCVAE(VAE):
    """The beta-TCVAE: Chen et al. 2018, https://arxiv.org/abs/1802.04942.

        loss = -E_q[log p(x | z)] + alpha I(x; z) + beta TC(z) + gamma sum_d KL(q(z_d), p(z_d))

    with TC(z) = KL(q(z), prod_d q(z_d)) of the aggregate posterior q(z) = 1/N sum_n q(z | x_n), which is
    estimated from the batch and the size N of the training set. alpha = beta = gamma = 1 is the VAE.

    Where we leave the paper: the stratified weights are averaged over the order of the batch, and the
    three terms' sum is the closed-form KL (``vaezoo.objectives.TotalCorrelation``). The logarithm of an
    unbiased estimate is biased: ``mi`` and ``tc`` depend on the batch's size, so those of training and
    of validation are not comparable, and ``tc`` may be negative.

    Args:
        alpha: weight of the mutual information I(x; z); >= 0.
        beta: weight of the total correlation; >= 0.
        gamma: weight of the dimension-wise KL; >= 0.
        estimator: of q(z), mss (stratified) or mws (weighted; biased).
        **kwargs: as ``VAE``.
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
