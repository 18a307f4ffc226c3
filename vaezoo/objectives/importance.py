"""Importance-weighted bounds, and the estimators of their gradients.

With log weights log w_k = log p(x, z_k) - log q(z_k | x), every gradient here has the form

    sum_k a_k d log w_k / d theta  +  sum_k b_k d log w_k / d phi

where theta are the parameters of p(x, z) and phi those of q(z | x): a bound is its value and the
weights a and b, and an estimator changes b alone.
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
    """The diagonal normal q as a function of z alone: no gradient reaches its parameters."""
    if not is_diagonal_normal(q):
        inner = q.base_dist if isinstance(q, Independent) else q
        raise ValueError(
            f"the gradient of log q(z | x) in z alone is known for the diagonal normal posterior, not for "
            f"{type(inner).__name__}: use iwae, miwae or ciwae with gradient=reparam"
        )
    normal = Normal(q.base_dist.loc.detach(), q.base_dist.scale.detach(), validate_args=False)
    return Independent(normal, q.reinterpreted_batch_ndims, validate_args=False)


def scale_gradient(z: Tensor, factor: Tensor) -> None:
    """From now on, multiply the gradient that flows back through z (K, B, *event) by a factor (K, B)."""
    if z.requires_grad:  # evaluation has no gradient to scale
        z.register_hook(lambda gradient: gradient * factor.reshape(*factor.shape, *[1] * (z.dim() - 2)))


class ImportanceBound(Objective):
    """loss = -bound(log w), mean over the batch: what its subclasses share.

    ``gradient`` says how phi is reached:

    * ``reparam``: through z and through the density's own parameters, as autograd does.
    * ``stl``: through z alone (Roeder et al. 2017, https://arxiv.org/abs/1703.09194): without variance
      where q is the exact posterior; biased for K > 1.
    * ``dreg``: through z alone, with the square of each normalised weight (Tucker et al. 2019,
      https://arxiv.org/abs/1810.04152): unbiased for every K.

    The last two need one stochastic layer with a diagonal normal posterior. Where a and b differ, a
    hook on z turns one into the other, so a trace is good for one loss and one backward pass.

    Args:
        gradient: "reparam", "stl" or "dreg".
        num_groups: M; the samples are cut into M groups of K. >= 1.
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
        """Whether the backward pass runs a hook on z, which torch 2.11 cannot compile."""
        return self.gradient == "dreg"

    @property
    def limits(self) -> dict[str, str]:
        if self.uses_gradient_hooks and TORCH_VERSION < (2, 12):
            return {"compile": "torch 2.11 cannot compile a gradient hook on an intermediate tensor"}
        return {}

    @abstractmethod
    def bound_and_weights(self, log_w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From log weights (M, K, B): the bound (B,), and a and b (M, K, B); b is a where they are equal."""

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
                # b / a must not overflow where a vanishes and b does not. Of weights that sum to about 1,
                # this much is far below rounding, and far above the smallest number.
                a = a.clamp(min=math.sqrt(torch.finfo(a.dtype).tiny))
                scale_gradient(latent.z, b / a)
            held = detach_parameters(latent.q).log_prob(latent.z)
            score = (a * (trace.log_px + latent.log_p - held)).sum(0)
            if self.gradient == "reparam":
                score = score - (b * latent.q.log_prob(latent.z.detach())).sum(0)
        return {"loss": -(bound + (score - score.detach())).mean()}


class ImportanceWeighted(ImportanceBound):
    """The bound of IWAE, and with M > 1 groups that of MIWAE.

    bound = 1/M sum_m log 1/K sum_k w_mk, with a_mk = w_mk / (M sum_j w_mj) =: v_mk / M, b = a, and b = v_mk^2 / M
    for DReG.

    Args:
        gradient: "reparam", "stl" or "dreg" (``ImportanceBound``).
        num_groups: M; >= 1.
    """

    def bound_and_weights(self, log_w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        num_groups, num_samples, _ = log_w.shape
        bound = (log_w.logsumexp(1) - math.log(num_samples)).mean(0)
        v = log_w.softmax(1)
        a = v / num_groups
        return bound, a, a * v if self.gradient == "dreg" else a


class CombinedImportanceWeighted(ImportanceBound):
    """The bound of CIWAE, between the ELBO and IWAE's.

    bound = beta/K sum_k log w_k + (1 - beta) log 1/K sum_k w_k. With v_k = w_k / sum_j w_j:
    a_k = beta / K + (1 - beta) v_k, b = a, and b_k = beta / K + (1 - beta) v_k^2 for DReG.

    Args:
        beta: share of the ELBO; in [0, 1].
        gradient: "reparam", "stl" or "dreg" (``ImportanceBound``).
    """

    def __init__(self, beta: float = 0.05, gradient: str = "reparam"):
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
    """PIWAE: theta follows IWAE's bound on all M K samples, phi MIWAE's.

    a_mk = w_mk / sum_ij w_ij; b_mk = v_mk / M with v_mk = w_mk / sum_j w_mj, and b = v_mk^2 / M for DReG.
    The value is IWAE's bound on all samples.

    Args:
        gradient: phi's: "reparam", "stl" or "dreg" (``ImportanceBound``).
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
