"""Objectives on the aggregate posterior q(z) = 1/N sum_n q(z | x_n), estimated from a minibatch.

Shapes: K samples, B batch, D latent dimensions, N examples in the training set.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaezoo.objectives.base import Objective
from vaezoo.trace import Latent, Trace

ESTIMATORS = ("mss", "mws")
VARIANTS = ("I", "II")


def factorized_posterior(latent: Latent) -> Distribution:
    """q(z | x) as one distribution for each latent dimension, (B, *event).

    Raises:
        ValueError: q does not factorise.
    """
    q = latent.q
    if not isinstance(q, Independent) or q.base_dist.event_shape:
        raise ValueError(
            f"this objective needs a posterior that factorises over dimensions, got {type(q).__name__}: "
            f"use model/posterior=null, the diagonal normal"
        )
    return q.base_dist


def minibatch_log_weights(like: Tensor, batch: int, num_train: int, estimator: str) -> Tensor:
    """log W, with sum_j W_ij q(z_i | x_j) an estimate of q(z_i), (B, B).

    ``mss``, stratified: z_i's own x_i is one of the N, so W_ii = 1/N; the other B - 1 stand for the
    N - 1 that are left. Over minibatches drawn without replacement the estimate is unbiased, and with
    B = N it is exact. Chen et al. 2018 (appendix C.2) let one of the others weigh less than the rest;
    this is the mean of their weights over all orders of the batch.

    ``mws``, weighted (section 4.1): W_ij = 1/(N B). The rows add up to 1/N, so log q(z) comes out low by
    up to log N, and the total correlation high by up to (D - 1) log N: read its changes alone.
    """
    if estimator == "mws":
        return like.new_full((batch, batch), 1 / (num_train * batch)).log()
    if batch == 1:
        return like.new_zeros(1, 1)  # no other is there to stand for the rest: q(z) = q(z | x)
    own = torch.eye(batch, dtype=torch.bool, device=like.device)
    others = like.new_full((batch, batch), (num_train - 1) / (num_train * (batch - 1)))
    return torch.where(own, 1 / num_train, others).log()


class Decomposition(NamedTuple):
    """E KL(q(z | x), p(z)) = mi + tc + dwkl, each the mean over samples and batch, in nats.

    Attributes:
        mi: I(x; z) = E[log q(z | x) - log q(z)].
        tc: total correlation KL(q(z), prod_d q(z_d)).
        dwkl: dimension-wise KL(prod_d q(z_d), p(z)).
    """

    mi: Tensor
    tc: Tensor
    dwkl: Tensor


def decompose(latent: Latent, num_train: int | None = None, estimator: str = "mss") -> Decomposition:
    """Hoffman & Johnson 2016 and Chen et al. 2018, eq. 2, estimated at the samples.

    The estimate of q(z) is unbiased, its logarithm is not: what is left shrinks as B nears N. The
    three add up to the sampled KL whatever the estimate is.

    Args:
        latent: one stochastic layer whose posterior factorises.
        num_train: N; the batch is the data set where None.
        estimator: mss or mws.
    """
    pairs = factorized_posterior(latent).log_prob(latent.z.unsqueeze(2)).flatten(3)  # (K, B, B, D): log q(z_id | x_j)
    batch = pairs.shape[1]
    log_weight = minibatch_log_weights(pairs, batch, num_train or batch, estimator)
    log_qz = (pairs.sum(3) + log_weight).logsumexp(2)  # (K, B)
    log_qz_dims = (pairs + log_weight.unsqueeze(2)).logsumexp(2).sum(2)  # (K, B): log prod_d q(z_d)
    return Decomposition(
        (latent.log_q - log_qz).mean(), (log_qz - log_qz_dims).mean(), (log_qz_dims - latent.log_p).mean()
    )


class TotalCorrelation(Objective):
    """loss = -E_q[log p(x | z)] + alpha I(x; z) + beta TC + gamma sum_d KL(q(z_d), p(z_d))
    (Chen et al. 2018, https://arxiv.org/abs/1802.04942, eq. 4).

    The three terms add up to KL(q(z | x), p(z)), which has a closed form. So the loss is written

        -log p(x | z) + KL + (alpha - 1) MI + (beta - 1) TC + (gamma - 1) DWKL

    of the same expectation, in which a term of weight 1 has no noise and no bias: at
    alpha = beta = gamma = 1 it is the negative ELBO to the last digit.

    Args:
        alpha: weight of the mutual information I(x; z); >= 0.
        beta: weight of the total correlation; >= 0.
        gamma: weight of the dimension-wise KL; >= 0.
        estimator: of q(z), mss or mws (``minibatch_log_weights``).
    """

    is_batch_coupled = True

    def __init__(self, alpha: float = 1.0, beta: float = 6.0, gamma: float = 1.0, estimator: str = "mss"):
        super().__init__()
        if estimator not in ESTIMATORS:
            raise ValueError(f"estimator={estimator} is not one of {', '.join(ESTIMATORS)}")
        self.estimator = estimator
        self.set_weight("alpha", alpha)
        self.set_weight("beta", beta)
        self.set_weight("gamma", gamma)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        mi, tc, dwkl = decompose(trace.latent, self.num_train, self.estimator)
        alpha, beta, gamma = self.get_buffer("alpha"), self.get_buffer("beta"), self.get_buffer("gamma")
        loss = self.kl_term(trace) - trace.log_px.mean() + (alpha - 1) * mi + (beta - 1) * tc + (gamma - 1) * dwkl
        return {"loss": loss, "mi": mi, "tc": tc, "dwkl": dwkl}


class CovariancePenalty(Objective):
    """loss = -ELBO + lambda_od sum_{i != j} C_ij^2 + lambda_d sum_i (C_ii - 1)^2
    (Kumar et al. 2018, https://arxiv.org/abs/1711.00848).

    C is Cov_x[mu(x)] in variant I and Cov_{q(z)}[z] = E_x[diag sigma(x)^2] + Cov_x[mu(x)] in II, over
    the batch, with 1/B.

    Args:
        variant: I or II.
        lambda_od: weight of the covariances between dimensions; >= 0.
        lambda_d: weight of the variances' distance from 1; >= 0.
    """

    is_batch_coupled = True

    def __init__(self, variant: str = "II", lambda_od: float = 10.0, lambda_d: float = 10.0):
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant={variant} is not one of {', '.join(VARIANTS)}")
        self.variant = variant
        self.set_weight("lambda_od", lambda_od)
        self.set_weight("lambda_d", lambda_d)

    def covariance(self, latent: Latent) -> Tensor:
        """C, (D, D)."""
        q = factorized_posterior(latent)
        mean = q.mean.flatten(1)
        centred = mean - mean.mean(0)
        # No matrix product: autocast would round it to bf16.
        covariance = (centred.unsqueeze(2) * centred.unsqueeze(1)).mean(0)
        return covariance if self.variant == "I" else covariance + torch.diag(q.variance.flatten(1).mean(0))

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        covariance = self.covariance(trace.latent)
        variance = covariance.diagonal()
        off_diagonal = covariance.square().sum() - variance.square().sum()
        diagonal = (variance - 1).square().sum()
        penalty = self.get_buffer("lambda_od") * off_diagonal + self.get_buffer("lambda_d") * diagonal
        loss = self.kl_term(trace) - trace.log_px.mean() + penalty
        return {"loss": loss, "dip_od": off_diagonal, "dip_d": diagonal}
