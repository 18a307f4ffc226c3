"""Importance-weighted bounds, and estimators of their gradients.

With the log weights log w_k = log p(x, z_k) - log q(z_k | x), each gradient in this file has the form

    sum_k a_k d log w_k / d theta  +  sum_k b_k d log w_k / d phi

theta are the parameters of p(x, z), phi those of q(z | x). So a bound is defined by its value and the coefficients a
and b; another estimator of the gradient changes only b.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaezoo.distributions import is_diagonal_normal
from vaezoo.objectives.base import Objective
from vaezoo.trace import Trace

TORCH_VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])
GRADIENTS = ("reparam", "stl", "dreg")


def detach_parameters(q: Distribution) -> Independent:
    """Return q with detached parameters, so that the gradient of its log density reaches z alone.

    Raises:
        ValueError: q is not a diagonal normal.
    """
    if not is_diagonal_normal(q):
        inner = q.base_dist if isinstance(q, Independent) else q
        raise ValueError(
            f"this gradient estimator needs the diagonal normal posterior, not {type(inner).__name__}: "
            f"use iwae, miwae or ciwae with gradient=reparam"
        )
    normal = Normal(q.base_dist.loc.detach(), q.base_dist.scale.detach(), validate_args=False)
    return Independent(normal, q.reinterpreted_batch_ndims, validate_args=False)


def scale_gradient(z: Tensor, factor: Tensor) -> None:
    """Register a hook that multiplies the gradient of z (K, B, *event) by a factor (K, B) in the backward pass."""
    if z.requires_grad:  # false in evaluation
        z.register_hook(lambda gradient: gradient * factor.reshape(*factor.shape, *[1] * (z.dim() - 2)))


class ImportanceBound(Objective):
    """The negative of a bound on log p(x) that is a function of the log weights; the base class of such losses.

        loss = -bound(log w_1, ..., log w_K),  mean over the batch

    There are three estimators of the gradient with respect to phi, the encoder's parameters:

    * "reparam": through z and through the parameters of log q(z | x), as autograd computes it.
    * "stl": through z alone. Its variance is 0 if q is the exact posterior; it is biased for K > 1. Roeder et al. 2017,
      Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational Inference,
      https://arxiv.org/abs/1703.09194.
    * "dreg": through z alone, with squared normalized weights. It is unbiased for each K. Tucker et al. 2019, Doubly
      Reparameterized Gradient Estimators for Monte Carlo Objectives, https://arxiv.org/abs/1810.04152.

    "stl" and "dreg" need a single stochastic layer with a diagonal normal posterior. If a and b differ, a hook on z
    changes the gradient, so a trace can be used for one loss and one backward pass only.

    Args:
        gradient: "reparam", "stl" or "dreg".
        num_groups: M, the number of groups that the M K posterior samples are cut into; >= 1.
    """

    has_kl_term = False

    def __init__(self, gradient: str = "reparam", num_groups: int = 1):
        super().__init__()
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient={gradient} is not one of {', '.join(GRADIENTS)}")
        if num_groups < 1:
            raise ValueError(f"num_groups must be >= 1, got {num_groups}")
        self.gradient, self.num_groups = gradient, num_groups

    @property
    def uses_gradient_hooks(self) -> bool:
        """Return whether the backward pass runs a hook on z."""
        return self.gradient == "dreg"

    @property
    def limits(self) -> dict[str, str]:
        if self.uses_gradient_hooks and TORCH_VERSION < (2, 12):
            return {"compile": "torch 2.11 cannot compile a gradient hook on an intermediate tensor"}
        return {}

    @abstractmethod
    def bound_and_weights(self, log_w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the bound (B,), a and b (both (M, K, B)) for log weights (M, K, B).

        If a and b are equal, both are the same tensor.
        """

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        log_w = trace.log_w.detach()
        if len(log_w) % self.num_groups:
            raise ValueError(f"{len(log_w)} samples cannot be cut into num_groups={self.num_groups} equal groups")
        bound, *weights = self.bound_and_weights(log_w.unflatten(0, (self.num_groups, -1)))
        a, b = (weight.flatten(0, 1) for weight in weights)  # (M K, B)
        if weights[0] is weights[1] and self.gradient == "reparam":
            score = (a * trace.log_w).sum(0)
        else:
            latent = trace.latent
            if weights[0] is not weights[1]:
                # If a vanishes and b does not, b / a must not overflow. This minimum is negligible beside weights that
                # sum to about 1, and large enough that b / a stays finite.
                a = a.clamp(min=math.sqrt(torch.finfo(a.dtype).tiny))
                scale_gradient(latent.z, b / a)
            log_q = detach_parameters(latent.q).log_prob(latent.z)
            score = (a * (trace.log_px + latent.log_p - log_q)).sum(0)
            if self.gradient == "reparam":
                score = score - (b * latent.q.log_prob(latent.z.detach())).sum(0)
        return {"loss": -(bound + (score - score.detach())).mean()}


class ImportanceWeighted(ImportanceBound):
    """The negative bound of the IWAE (M = 1) and of the MIWAE (M > 1).

        bound = 1/M sum_m log 1/K sum_k w_mk
        a_mk = v_mk / M,  v_mk = w_mk / sum_j w_mj,  b = a, or b_mk = v_mk^2 / M for "dreg"

    Burda et al. 2016, Importance Weighted Autoencoders, https://arxiv.org/abs/1509.00519; Rainforth et al. 2018,
    Tighter Variational Bounds are Not Necessarily Better, https://arxiv.org/abs/1802.04537.

    Args:
        gradient: "reparam", "stl" or "dreg", see ``ImportanceBound``.
        num_groups: M; >= 1.
    """

    def bound_and_weights(self, log_w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        num_groups, num_samples, _ = log_w.shape
        bound = (log_w.logsumexp(1) - math.log(num_samples)).mean(0)
        v = log_w.softmax(1)
        a = v / num_groups
        return bound, a, a * v if self.gradient == "dreg" else a


class CombinedImportanceWeighted(ImportanceBound):
    """The negative bound of the CIWAE, a convex combination of the ELBO and the bound of the IWAE.

        bound = beta/K sum_k log w_k + (1 - beta) log 1/K sum_k w_k
        a_k = beta/K + (1 - beta) v_k,  v_k = w_k / sum_j w_j,  b = a, or b_k = beta/K + (1 - beta) v_k^2 for "dreg"

    Rainforth et al. 2018, Tighter Variational Bounds are Not Necessarily Better, https://arxiv.org/abs/1802.04537.

    Args:
        beta: weight of the ELBO; in [0, 1].
        gradient: "reparam", "stl" or "dreg", see ``ImportanceBound``.
    """

    def __init__(self, beta: float, gradient: str = "reparam"):
        super().__init__(gradient)
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must be in [0, 1], got {beta}")
        self.set_weight("beta", beta)

    def bound_and_weights(self, log_w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        beta, num_samples = self.get_buffer("beta"), log_w.shape[1]
        iwae = log_w.logsumexp(1) - math.log(num_samples)
        bound = (beta * log_w.mean(1) + (1 - beta) * iwae).squeeze(0)
        v = log_w.softmax(1)
        uniform = torch.full_like(v, 1 / num_samples)
        a = beta * uniform + (1 - beta) * v
        return bound, a, beta * uniform + (1 - beta) * v.square() if self.gradient == "dreg" else a


class PartiallyImportanceWeighted(ImportanceBound):
    """The negative bound of the PIWAE: theta maximizes the bound of the IWAE, phi that of the MIWAE.

        bound = log 1/(M K) sum_mk w_mk
        a_mk = w_mk / sum_ij w_ij
        b_mk = v_mk / M,  v_mk = w_mk / sum_j w_mj, or b_mk = v_mk^2 / M for "dreg"

    Rainforth et al. 2018, Tighter Variational Bounds are Not Necessarily Better, https://arxiv.org/abs/1802.04537.

    Args:
        gradient: "reparam", "stl" or "dreg", the estimator of the encoder's gradient, see ``ImportanceBound``.
        num_groups: M; >= 1.
    """

    @property
    def uses_gradient_hooks(self) -> bool:
        return True

    def bound_and_weights(self, log_w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        num_groups, num_samples, _ = log_w.shape
        total = log_w.logsumexp((0, 1))
        bound = total - math.log(num_groups * num_samples)
        v = log_w.softmax(1)
        b = v / num_groups
        return bound, (log_w - total).exp(), b * v if self.gradient == "dreg" else b
