"""What one pass of a latent-variable model leaves behind, and the evidence lower bound it implies.

Shapes: K posterior samples, B batch, L stochastic layers. Everything is in nats per example, summed
over the dimensions of the data or the latent, with all normalising constants.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

T = TypeVar("T")


class cached_property(Generic[T]):  # reads as a decorator
    """A property that is computed once.

    ``functools.cached_property`` takes a lock on Python 3.11, which torch.compile cannot trace.
    """

    def __init__(self, function: Callable[[Any], T]):
        self.function, self.name, self.__doc__ = function, function.__name__, function.__doc__

    @overload
    def __get__(self, instance: None, owner: Any) -> "cached_property[T]": ...
    @overload
    def __get__(self, instance: object, owner: Any) -> T: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        if instance is None:
            return self
        value = instance.__dict__[self.name] = self.function(instance)
        return value


@dataclass
class Latent:
    """One stochastic layer: its posterior q, its prior p and the samples z drawn from q.

    Args:
        q: q(z | x) with batch shape (B,), or (K, B) where it depends on samples of another layer.
        p: p(z), with batch shape () or one that broadcasts against q's.
        z: samples of q, shape (K, B, *event).
    """

    q: Distribution
    p: Distribution
    z: Tensor

    @cached_property
    def log_q(self) -> Tensor:
        """log q(z | x) at the samples, (K, B)."""
        return self.q.log_prob(self.z)

    @cached_property
    def log_p(self) -> Tensor:
        """log p(z) at the samples, (K, B)."""
        return self.p.log_prob(self.z)

    @cached_property
    def kl_per_dim(self) -> Tensor | None:
        """KL(q, p) of each latent dimension, (B, *dims), where both factorise and torch knows it.

        None where it is not to be had: then only the joint ``kl`` exists.
        """
        if not (isinstance(self.q, Independent) and isinstance(self.p, Independent)):
            return None
        try:
            kl = kl_divergence(self.q.base_dist, self.p.base_dist)
        except NotImplementedError:
            return None
        per_sample = kl.dim() > 1 + self.q.reinterpreted_batch_ndims  # a layer that hangs on K samples
        return kl.mean(0) if per_sample else kl

    @cached_property
    def kl(self) -> Tensor:
        """KL(q, p), (B,): closed form where torch knows one, else the estimate at the samples.

        The estimate is mean_K [log q(z | x) - log p(z)], unbiased.
        """
        if self.kl_per_dim is not None:
            return self.kl_per_dim.flatten(1).sum(1)
        try:
            kl = kl_divergence(self.q, self.p)
        except NotImplementedError:
            kl = self.log_q - self.log_p
        return kl.mean(0) if kl.dim() > 1 else kl


@dataclass
class Trace:
    """One pass of q, then p: the data, p(x | z) and the stochastic layers.

    ``elbo = E_q[log p(x | z)] - KL(q, p)`` (Kingma & Welling 2013, eq. 3). No weight of any
    objective is ever in it.

    Args:
        x: data, (B, *data_shape).
        px: p(x | z) with batch shape (K, B).
        latents: the stochastic layers, top to bottom.
    """

    x: Tensor
    px: Distribution
    latents: tuple[Latent, ...]

    @cached_property
    def log_px(self) -> Tensor:
        """log p(x | z), (K, B): its negative is the distortion."""
        return self.px.log_prob(self.x)

    @cached_property
    def kl(self) -> Tensor:
        """KL(q, p) of each layer, (B, L): their sum is the rate."""
        return torch.stack([latent.kl for latent in self.latents], dim=1)

    @cached_property
    def elbo(self) -> Tensor:
        """The evidence lower bound, (B,)."""
        return self.log_px.mean(0) - self.kl.sum(1)

    @cached_property
    def log_w(self) -> Tensor:
        """log importance weights log p(x, z) - log q(z | x), (K, B).

        ``logsumexp(log_w, 0) - log K`` is the bound of Burda et al. 2016.
        """
        log_w = self.log_px
        for latent in self.latents:
            log_w = log_w + latent.log_p - latent.log_q
        return log_w

    @property
    def latent(self) -> Latent:
        """The only stochastic layer.

        Raises:
            ValueError: the model has several, so what asks for one cannot be applied to it.
        """
        if len(self.latents) != 1:
            raise ValueError(f"this needs one stochastic layer; the model has {len(self.latents)}")
        return self.latents[0]
