"""Losses on the aggregate posterior q(z) = 1/N sum_n q(z | x_n), which is estimated from a batch.

Shapes: K posterior samples, B batch, D latent dimensions, N training examples.
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
    """Return the distribution of each latent dimension, q(z_d | x), with batch shape (B, *latent_shape).

    Raises:
        ValueError: q does not factorize over dimensions.
    """
    q = latent.q
    if not isinstance(q, Independent) or q.base_dist.event_shape:
        raise ValueError(
            f"this objective needs a posterior that factorizes over dimensions, got {type(q).__name__}: "
            f"use model/posterior=null, the diagonal normal"
        )
    return q.base_dist


def minibatch_log_weights(like: Tensor, batch: int, num_train: int, estimator: str) -> Tensor:
    """Return log W (B, B), the weights of the estimate q(z_i) = sum_j W_ij q(z_i | x_j).

    Chen et al. 2018, Isolating Sources of Disentanglement in Variational Autoencoders,
    https://arxiv.org/abs/1802.04942, define two estimates:

    * "mss", minibatch stratified sampling (appendix C.2): x_i itself has W_ii = 1/N. The other B - 1 examples of the
      batch stand for the N - 1 other examples of the training set, W_ij = (N - 1) / (N (B - 1)). The estimate is
      unbiased for batches drawn without replacement, and exact for B = N. In the paper one of the other examples has a
      smaller weight than the rest; this is the mean of the paper's weights over all orders of the batch.
    * "mws", minibatch weighted sampling (section 4.1): W_ij = 1 / (N B). Each row sums to 1/N, so log q(z) is too low
      by up to log N, and the total correlation too high by up to (D - 1) log N. Only changes of it have a meaning.

    Args:
        like: a tensor with the dtype and the device of the result.
        batch: B.
        num_train: N.
        estimator: "mss" or "mws".
    """
    if estimator == "mws":
        return like.new_full((batch, batch), 1 / (num_train * batch)).log()
    if batch == 1:
        return like.new_zeros(1, 1)  # no other example stands for the rest: q(z) = q(z | x)
    own = torch.eye(batch, dtype=torch.bool, device=like.device)
    others = like.new_full((batch, batch), (num_train - 1) / (num_train * (batch - 1)))
    return torch.where(own, 1 / num_train, others).log()


class Decomposition(NamedTuple):
    """The three parts of E KL(q(z | x), p(z)) = mi + tc + dwkl, each the mean over samples and batch, in nats.

    Attributes:
        mi: the mutual information I(x; z) = E[log q(z | x) - log q(z)].
        tc: the total correlation KL(q(z), prod_d q(z_d)).
        dwkl: the dimension-wise KL, KL(prod_d q(z_d), p(z)).
    """

    mi: Tensor
    tc: Tensor
    dwkl: Tensor


def decompose(latent: Latent, num_train: int | None = None, estimator: str = "mss") -> Decomposition:
    """Split KL(q(z | x), p(z)) into mutual information, total correlation and dimension-wise KL, at the samples.

    Chen et al. 2018, Isolating Sources of Disentanglement in Variational Autoencoders,
    https://arxiv.org/abs/1802.04942, eq. 2, after Hoffman & Johnson 2016, ELBO surgery,
    http://approximateinference.org/accepted/HoffmanJohnson2016.pdf.

    The logarithm of the unbiased estimate of q(z) is biased; the bias falls as B approaches N. The three parts sum to
    the sampled KL with any estimate of q(z).

    Args:
        latent: a stochastic layer with a posterior that factorizes over dimensions.
        num_train: N; None if the batch is the whole data set.
        estimator: "mss" or "mws", see ``minibatch_log_weights``.

    Raises:
        ValueError: the posterior does not factorize over dimensions.
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
    """The negative log-likelihood plus the three parts of KL(q, p), each with its own weight.

        loss = -E_q[log p(x | z)] + alpha I(x; z) + beta TC(z) + gamma sum_d KL(q(z_d), p(z_d))

    Chen et al. 2018, Isolating Sources of Disentanglement in Variational Autoencoders,
    https://arxiv.org/abs/1802.04942, eq. 4.

    The three parts sum to KL(q(z | x), p(z)), which has a closed form, so the loss is computed as

        -log p(x | z) + KL + (alpha - 1) MI + (beta - 1) TC + (gamma - 1) DWKL

    Then a part with weight 1 adds no noise and no bias: for alpha = beta = gamma = 1 the loss is exactly the negative
    ELBO.

    Args:
        alpha: weight of the mutual information I(x; z); >= 0.
        beta: weight of the total correlation; >= 0.
        gamma: weight of the dimension-wise KL; >= 0.
        estimator: estimate of q(z), "mss" or "mws", see ``minibatch_log_weights``.
    """

    is_batch_coupled = True

    def __init__(self, alpha: float, beta: float, gamma: float, estimator: str):
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
        loss = self.kl_term(trace) - trace.mean_log_px + (alpha - 1) * mi + (beta - 1) * tc + (gamma - 1) * dwkl
        return {"loss": loss, "mi": mi, "tc": tc, "dwkl": dwkl}


class CovariancePenalty(Objective):
    """The negative ELBO plus the squared distance between a covariance matrix C and the identity.

        loss = -ELBO + lambda_od sum_{i != j} C_ij^2 + lambda_d sum_i (C_ii - 1)^2

    In variant I, C is the covariance of the posterior means, Cov_x[mu(x)]. In variant II, C is the covariance of q(z),
    E_x[diag sigma(x)^2] + Cov_x[mu(x)]. Both are over the batch, divided by B.

    Kumar et al. 2018, Variational Inference of Disentangled Latent Concepts from Unlabeled Observations,
    https://arxiv.org/abs/1711.00848.

    Args:
        variant: "I" or "II".
        lambda_od: weight of the elements off the diagonal; >= 0.
        lambda_d: weight of the elements on the diagonal; >= 0.
    """

    is_batch_coupled = True

    def __init__(self, variant: str, lambda_od: float, lambda_d: float):
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant={variant} is not one of {', '.join(VARIANTS)}")
        self.variant = variant
        self.set_weight("lambda_od", lambda_od)
        self.set_weight("lambda_d", lambda_d)

    def covariance(self, latent: Latent) -> Tensor:
        """Return C, (D, D)."""
        q = factorized_posterior(latent)
        mean = q.mean.flatten(1)
        centered = mean - mean.mean(0)
        # No matrix product: autocast would round it to bf16.
        covariance = (centered.unsqueeze(2) * centered.unsqueeze(1)).mean(0)
        return covariance if self.variant == "I" else covariance + torch.diag(q.variance.flatten(1).mean(0))

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        covariance = self.covariance(trace.latent)
        variance = covariance.diagonal()
        off_diagonal = covariance.square().sum() - variance.square().sum()
        diagonal = (variance - 1).square().sum()
        penalty = self.get_buffer("lambda_od") * off_diagonal + self.get_buffer("lambda_d") * diagonal
        loss = self.kl_term(trace) - trace.mean_log_px + penalty
        return {"loss": loss, "dip_od": off_diagonal, "dip_d": diagonal}
