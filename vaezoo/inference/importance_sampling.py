"""Estimates of log p(x) by importance sampling, with their standard errors.

With K samples z_k ~ q(z | x) and weights w_k = p(x, z_k) / q(z_k | x),

    log p(x) >= E log 1/K sum_k w_k,

a bound that rises to log p(x) with K (Burda et al. 2016, Importance Weighted Autoencoders,
https://arxiv.org/abs/1509.00519, eq. 8). ``vaezoo.inference.ais`` is closer if the weights vary too much.
"""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from vaezoo import seeding
from vaezoo.trace import Trace
from vaezoo.training.eval_mode import evaluating
from vaezoo.training.machine import keep_freed_memory
from vaezoo.training.means import accumulation_dtype

if TYPE_CHECKING:
    from vaezoo.models import LatentVariableModel

# Largest number of parameters of p(x | z) that are computed at a time: on a CPU 4 MB of them, which fit in its cache;
# on other devices enough to keep the device busy.
PARAMETERS_PER_CHUNK_ON_CPU = 2**20
PARAMETERS_PER_CHUNK = 2**24
# Largest ``mc_error`` in nats that is taken for an error. The delta method, log(W + dW) - log W = dW / W, holds if
# dW / W is much smaller than 1. If a single sample carries all the weight, ``mc_error`` is 1 whatever the true error
# is. With many samples mc_error^2 is about 1 / ess, so this is an ess of 11.
MAX_MC_ERROR = 0.3


class LogMarginalEstimate(NamedTuple):
    """A lower bound of log p(x) for each of B examples, in nats, and its Monte Carlo error.

    With the weights w_k of K samples, and W their mean,

        log_p   = log W
        elbo     = mean of log w
        mc_error = sd(w) / (W sqrt(K))
        ess      = (sum w)^2 / sum w^2

    In expectation log W is a lower bound, about mc_error^2 / 2 below log p(x) if mc_error is much smaller than 1. If
    ess is only a few samples, w has a tail that the samples did not reach: log W is still a lower bound, but mc_error
    is too small, and ``converged`` is False.

    Args:
        log_p: estimate of log p(x), (B,), float64.
        elbo: ELBO from the same samples, (B,), float64. For annealing: the bound from a single chain.
        mc_error: standard error of ``log_p`` over samples (delta method), (B,), float64; nan if K = 1.
        ess: effective sample size, from 1 to K, (B,), float64.
    """

    log_p: Tensor
    elbo: Tensor
    mc_error: Tensor
    ess: Tensor

    @staticmethod
    def concat(parts: Iterable["LogMarginalEstimate"]) -> "LogMarginalEstimate":
        """Join the estimates of several batches of examples."""
        return LogMarginalEstimate(*map(torch.cat, zip(*parts, strict=True)))

    @property
    def mean(self) -> float:
        """Mean of log p(x) over the examples."""
        return float(self.log_p.mean())

    @property
    def error(self) -> float:
        """Standard error of ``mean`` over examples; it includes the Monte Carlo error."""
        return float(self.log_p.std()) / math.sqrt(len(self.log_p))

    @property
    def draw_error(self) -> float:
        """Standard error of ``mean`` for these examples: the Monte Carlo error only."""
        return float(self.mc_error.square().sum().sqrt()) / len(self.log_p)

    @property
    def converged(self) -> bool:
        """Return whether ``mc_error`` of the median example is at most ``MAX_MC_ERROR``; False with one sample."""
        return bool(self.mc_error.median() <= MAX_MC_ERROR)


def estimate_log_marginal(
    model: "LatentVariableModel",
    x: Tensor,
    context: Tensor | None = None,
    num_samples: int = 1000,
    chunk_size: int | None = None,
    seed: int | None = None,
    start_index: int = 0,
    compile: bool = False,
    progress: Callable[[range], Iterable[int]] = iter,
) -> LogMarginalEstimate:
    """Estimate log p(x) by importance sampling: log 1/K sum_k p(x, z_k) / q(z_k | x), z_k ~ q(z | x).

    Each example is passed by itself, its samples in chunks that fit in the cache of the processor. The samples of an
    example depend on (seed, its index, num_samples, chunk_size) only. The caller's random state and the mode of the
    model are unchanged afterwards. Sums are in float64.

    Args:
        model: any model of the package.
        x: examples (B, *data_shape), of a kind of data that the likelihood supports.
        context: labels or whatever else the model is conditioned on, (B, ...).
        num_samples: number of samples K; those of all values of an enumerated latent together, with as many of each.
        chunk_size: largest number of samples in memory at a time. None: a number that fits in the cache.
        seed: seed of the samples. None: the seed of the model.
        start_index: index of x[0] in the whole data set, if the examples are passed in several calls.
        compile: whether the forward pass is compiled, which takes some seconds; it is worth it for a whole test set.
        progress: wraps the loop over examples, to show the progress; for example ``tqdm.tqdm``.

    Raises:
        ValueError: a number is out of range, or the likelihood does not support x.

    >>> from vaezoo.models import VAE
    >>> model, x = VAE((1, 2, 2), latent_dim=2), torch.zeros(3, 1, 2, 2)
    >>> estimate = estimate_log_marginal(model, x, num_samples=50)
    >>> estimate.log_p.shape, bool((estimate.log_p >= estimate.elbo).all())
    (torch.Size([3]), True)
    """
    if num_samples < 1 or (chunk_size is not None and chunk_size < 1):
        raise ValueError(f"num_samples and chunk_size must be >= 1, got {num_samples} and {chunk_size}")
    likelihood = model.likelihood
    likelihood.check(x)
    parameters = PARAMETERS_PER_CHUNK_ON_CPU if x.device.type == "cpu" else PARAMETERS_PER_CHUNK
    budget = parameters // math.prod(likelihood.raw_shape(model.data_shape))
    num_chunks = math.ceil(num_samples / (chunk_size or max(1, budget)))
    # Chunks of one size need one compiled graph; the samples beyond num_samples are dropped. A draw has one sample of
    # each value of an enumerated latent.
    num_values = model.num_values
    size = num_values * math.ceil(num_samples / (num_chunks * num_values))
    num_draws = math.ceil(num_samples / num_values)

    def log_weights(x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return draw_weights(model(x, context, num_samples=size), num_values)

    if compile:  # with the random numbers of the eager pass, so that the result is the same
        log_weights = torch.compile(log_weights, dynamic=False, options={"fallback_random": True})
    dtype = accumulation_dtype(x)
    values = torch.empty(len(LogMarginalEstimate._fields), len(x), dtype=dtype, device=x.device)
    seed = model.seed if seed is None else seed
    keep_freed_memory()
    with evaluating(model), seeding.isolated(x.device, seed, "log_px"):
        for i in progress(range(len(x))):
            seeding.reseed(x.device, seed, "log_px", start_index + i)
            example = x[i : i + 1], None if context is None else context[i : i + 1]
            chunks = zip(*[log_weights(*example) for _ in range(num_chunks)], strict=True)
            values[:, i] = summarize_weights(*(torch.cat(parts)[:num_draws].to(dtype) for parts in chunks))
    return LogMarginalEstimate(*values)


def draw_weights(trace: Trace, num_values: int) -> tuple[Tensor, Tensor]:
    """Return the log weight of each draw of a pass over one example, and its ELBO, (K,) each.

    Without an enumerated latent both are log w. If there is one, a draw is a sample z_y of each of its values y: its
    weight is sum_y p(x, y, z_y) / q(z_y | x, y), and its ELBO the mean of log p(x, y, z_y) - log q(y, z_y | x) over y.

    Args:
        trace: the pass.
        num_values: number of values of the enumerated latent, 1 if there is none.
    """
    log_w = trace.log_w[:, 0]
    if trace.weights is None:
        return log_w, log_w
    elbo = len(log_w) // num_values * trace.weights[:, 0] * trace.log_ratio[:, 0]
    log_w, elbo = log_w.unflatten(0, (-1, num_values)), elbo.unflatten(0, (-1, num_values))
    return log_w.logsumexp(1) - math.log(num_values), elbo.sum(1)


def summarize_weights(log_w: Tensor, elbo: Tensor | None = None) -> Tensor:
    """Return the fields of ``LogMarginalEstimate`` for the log weights (K,) of one example, (4,).

    Args:
        log_w: the log weight of each draw.
        elbo: the ELBO of each draw; ``log_w`` if None.
    """
    num, elbo = len(log_w), log_w if elbo is None else elbo
    log_p = log_w.logsumexp(0) - math.log(num)
    ratio = (log_w - log_p).exp()  # w / W
    mc_error = ((ratio - 1).square().sum() / (num * (num - 1))).sqrt()  # 0 / 0 at K = 1
    return torch.stack([log_p, elbo.mean(), mc_error, num**2 / ratio.square().sum()])
