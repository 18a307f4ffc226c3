"""One forward pass of a latent-variable model (``Trace``) and the evidence lower bound (ELBO) computed from it.

Shapes: K posterior samples, B batch, L stochastic layers. All values are in nats per example: summed over the
dimensions of the data or of the latent, with all normalizing constants.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from vaezoo.distributions import Deterministic

T = TypeVar("T")


class cached_property(Generic[T]):  # a decorator, so its name is in lower case
    """A property that is computed once for each object.

    ``functools.cached_property`` takes a lock on Python 3.11, and torch.compile cannot trace locks.
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
        q: posterior q(z | x), batch shape (B,), or (K, B) if it depends on samples of another layer.
        p: prior p(z), batch shape (), or one that broadcasts against the batch shape of q.
        z: samples of q, (K, B, *event).
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
        """KL(q, p) of each latent dimension, (B, *dims), in closed form.

        None if q or p does not factorize over dimensions, or if there is no closed form: use ``kl`` then.
        """
        if not (isinstance(self.q, Independent) and isinstance(self.p, Independent)):
            return None
        try:
            kl = kl_divergence(self.q.base_dist, self.p.base_dist)
        except NotImplementedError:
            return None
        per_sample = kl.dim() > 1 + self.q.reinterpreted_batch_ndims  # q depends on K samples of another layer
        return kl.mean(0) if per_sample else kl

    @cached_property
    def kl(self) -> Tensor:
        """KL(q, p), (B,), in closed form if torch has one.

        Otherwise the unbiased estimate mean_K [log q(z | x) - log p(z)] at the samples.
        """
        if self.kl_per_dim is not None:
            return self.kl_per_dim.flatten(1).sum(1)
        kl = self.kl_of_samples
        return kl.mean(0) if kl.dim() > 1 else kl

    @property
    def kl_of_samples(self) -> Tensor:
        """KL(q, p) without the mean over K, (K, B); or (B,) if no sample of another layer or of this one is needed."""
        try:
            kl = kl_divergence(self.q, self.p)
        except NotImplementedError:
            return self.log_q - self.log_p
        return kl


@dataclass
class Trace:
    """One forward pass: the data x, the likelihood p(x | z) and the stochastic layers.

    ELBO = E_q[log p(x | z)] - KL(q, p) (Kingma & Welling 2013, Auto-Encoding Variational Bayes,
    https://arxiv.org/abs/1312.6114, eq. 3). It never contains a weight of an objective, such as beta.

    >>> from torch.distributions import Normal
    >>> x = torch.zeros(5, 2)
    >>> q = Independent(Normal(torch.ones(5, 3), torch.ones(5, 3)), 1)
    >>> p = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
    >>> z = q.rsample((4,))  # K = 4
    >>> px = Independent(Normal(z[..., :2], torch.ones(2)), 1)
    >>> trace = Trace(x, px, (Latent(q, p, z),))
    >>> trace.log_px.shape, trace.elbo.shape
    (torch.Size([4, 5]), torch.Size([5]))
    >>> trace.latent.kl  # 1/2 for each of the 3 dimensions
    tensor([1.5000, 1.5000, 1.5000, 1.5000, 1.5000])

    The K samples weigh alike, unless ``weights`` says otherwise: if a discrete latent is enumerated, sample k is its
    k-th value and the weights are q(k | x); if the posterior is a mixture of K components with one sample each, they
    are the mixture's weights. Expectations over q are then weighted sums.

    A code without a density (``distributions.Deterministic``) has no KL, so the trace has no ELBO: ``elbo``, ``kl`` and
    ``log_w`` raise an error. A model with an exact likelihood and no latent has KL 0.

    Args:
        x: data, (B, *data_shape).
        px: likelihood p(x | z), batch shape (K, B).
        latents: the stochastic layers, from top to bottom.
        context: labels or whatever else the model was given, (B, ...); None if nothing was given.
        weights: weights of the K samples, (K, B), which sum to 1 over K; None: 1 / K each.
    """

    x: Tensor
    px: Distribution
    latents: tuple[Latent, ...]
    context: Tensor | None = None
    weights: Tensor | None = None

    @property
    def has_bound(self) -> bool:
        """Return whether all codes have a density, so that there is an ELBO."""
        return not any(isinstance(latent.q, Deterministic) for latent in self.latents)

    def require_bound(self) -> None:
        """Raise a ValueError if there is no ELBO."""
        if not self.has_bound:
            raise ValueError("this model has no ELBO: its code has no density, use log_px")

    def expectation(self, values: Tensor) -> Tensor:
        """Return the mean of values (K, B) over the K samples of q, (B,)."""
        return values.mean(0) if self.weights is None else (self.weights * values).sum(0)

    @cached_property
    def log_px(self) -> Tensor:
        """log p(x | z), (K, B). Its negative is the distortion."""
        return self.px.log_prob(self.x)

    @cached_property
    def mean_log_px(self) -> Tensor:
        """E_q[log p(x | z)], the mean over the batch, ()."""
        return self.log_px.mean() if self.weights is None else self.expectation(self.log_px).mean()

    @cached_property
    def kl(self) -> Tensor:
        """KL(q, p) of each layer, (B, L). The sum over the layers is the rate."""
        self.require_bound()
        if not self.latents:
            return self.log_px.new_zeros(len(self.x), 0)
        return torch.stack([self.kl_of_layer(latent) for latent in self.latents], dim=1)

    def kl_of_layer(self, latent: Latent) -> Tensor:
        """Return KL(q, p) of one layer, (B,)."""
        if self.weights is None:
            return latent.kl
        kl = latent.kl_of_samples
        return self.expectation(kl) if kl.dim() > 1 else kl

    @cached_property
    def elbo(self) -> Tensor:
        """The evidence lower bound, (B,)."""
        return self.expectation(self.log_px) - self.kl.sum(1)

    @cached_property
    def log_w(self) -> Tensor:
        """Log importance weights log p(x, z) - log q(z | x), (K, B); with ``weights`` w, plus log K w.

        ``log_w.logsumexp(0) - log K`` is the importance-weighted bound (Burda et al. 2016, Importance Weighted
        Autoencoders, https://arxiv.org/abs/1509.00519). For an enumerated latent, it is the exact sum over its values.
        """
        log_w = self.log_ratio
        return log_w if self.weights is None else log_w + (len(log_w) * self.weights).log()

    @cached_property
    def log_ratio(self) -> Tensor:
        """log p(x, z) - log q(z | x), (K, B). Its expectation is an estimate of the ELBO."""
        self.require_bound()
        log_ratio = self.log_px
        for latent in self.latents:
            log_ratio = log_ratio + latent.log_p - latent.log_q
        return log_ratio

    @property
    def latent(self) -> Latent:
        """The stochastic layer of a model that has only one.

        Raises:
            ValueError: the model has several.
        """
        if len(self.latents) != 1:
            raise ValueError(f"this needs a model with one stochastic layer, but this one has {len(self.latents)}")
        return self.latents[0]
