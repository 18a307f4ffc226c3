"""log p(x) by importance sampling, at the speed of the hardware, with its error bars."""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from vaezoo import seeding
from vaezoo.training.eval_mode import evaluating
from vaezoo.training.machine import keep_freed_memory
from vaezoo.training.means import accumulation_dtype

if TYPE_CHECKING:
    from vaezoo.models import LatentVariableModel

# Parameters of p(x | z) in one chunk: on a CPU 4 MB of them, which its cache holds; elsewhere enough to keep it busy.
CPU_CHUNK = {"cpu": 2**20}
LARGE_CHUNK = 2**24


class LogMarginalEstimate(NamedTuple):
    """The importance-weighted bound of log p(x) for each example, in nats, and how well its draws know it.

    With w_k = p(x, z_k) / q(z_k | x), z_k ~ q, k = 1 ... K (Burda et al. 2016,
    https://arxiv.org/abs/1509.00519, eq. 8), and W the mean of w:

        log_px   = log W
        elbo     = the mean of log w            the ELBO by the same draws
        mc_error = sd(w) / (W sqrt(K))      the standard error of log W over draws (delta method)
        ess      = (sum w)^2 / sum w^2      the effective number of draws, in [1, K]

    log W is a lower bound in expectation, about mc_error^2 / 2 below log p(x). All of that holds where
    mc_error is small against 1; where ess is a few, w has a tail that these draws did not see: the bound
    is still one, mc_error is too small.

    Args:
        log_px: (B,), float64.
        elbo: (B,), float64; of annealing, the bound that one chain gives.
        mc_error: (B,), float64; nan at K = 1, which says nothing of the spread.
        ess: (B,), float64.
    """

    log_px: Tensor
    elbo: Tensor
    mc_error: Tensor
    ess: Tensor

    @staticmethod
    def concat(parts: Iterable["LogMarginalEstimate"]) -> "LogMarginalEstimate":
        """Examples that were passed in parts, together."""
        return LogMarginalEstimate(*map(torch.cat, zip(*parts, strict=True)))

    @property
    def mean(self) -> float:
        """The mean of log p(x) over the examples."""
        return float(self.log_px.mean())

    @property
    def error(self) -> float:
        """The standard error of ``mean``, as that of a sample of such examples: their spread, with that of
        the draws in it.
        """
        return float(self.log_px.std()) / math.sqrt(len(self.log_px))

    @property
    def draw_error(self) -> float:
        """The standard error of ``mean`` for these very examples: that of the draws alone."""
        return float(self.mc_error.square().sum().sqrt()) / len(self.log_px)


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
    """The importance-weighted bound of log p(x), with its error.

    Example by example, in chunks of its samples: what a chunk computes stays in the cache, and an
    example's draws depend on nothing but (seed, its number, num_samples, chunk_size). The caller's random
    stream is left as it was, the model in the mode it was in. Sums are in float64.

    Args:
        model: any of the zoo.
        x: (B, *data_shape), of the kind the likelihood scores.
        context: what else is conditioned on, (B, ...).
        num_samples: K.
        chunk_size: most samples in memory at a time; None fits them to a processor's cache.
        seed: names the draws, the model's own seed where None.
        first: number of x[0] among all examples, for who passes them in parts.
        compile: compile the model's pass: some seconds once, worth it for a test set.
        progress: wraps the loop over examples to show how far it is, as ``tqdm.tqdm`` does.

    Raises:
        ValueError: a number is out of range, or the likelihood cannot score x.
    """
    if num_samples < 1 or (chunk_size is not None and chunk_size < 1):
        raise ValueError(f"num_samples and chunk_size must be >= 1, got {num_samples} and {chunk_size}")
    likelihood = model.likelihood
    likelihood.check(x)
    budget = CPU_CHUNK.get(x.device.type, LARGE_CHUNK) // (math.prod(model.data_shape) * likelihood.num_outputs)
    num_chunks = math.ceil(num_samples / (chunk_size or max(1, budget)))
    size = math.ceil(num_samples / num_chunks)  # alike, so that one graph does; the last draws may be too many

    def log_weights(x: Tensor, context: Tensor | None) -> Tensor:
        return model(x, context, num_samples=size).log_w[:, 0]

    if compile:  # eager draws, so that the digits are those of the eager pass
        log_weights = torch.compile(log_weights, dynamic=False, options={"fallback_random": True})
    dtype = accumulation_dtype(x)
    values = torch.empty(len(LogMarginalEstimate._fields), len(x), dtype=dtype, device=x.device)
    seed = model.seed if seed is None else seed
    keep_freed_memory()
    with evaluating(model), seeding.isolated(x.device, seed, "log_px"):
        for i in progress(range(len(x))):
            seeding.reseed(x.device, seed, "log_px", start_index + i)
            example = x[i : i + 1], None if context is None else context[i : i + 1]
            chunks = [log_weights(*example) for _ in range(num_chunks)]
            values[:, i] = summarize_weights(torch.cat(chunks)[:num_samples].to(dtype))
    return LogMarginalEstimate(*values)


def summarize_weights(log_w: Tensor) -> Tensor:
    """``LogMarginalEstimate`` of one example's log weights (K,), as one row."""
    num = len(log_w)
    log_px = log_w.logsumexp(0) - math.log(num)
    ratio = (log_w - log_px).exp()  # w / W
    mc_error = ((ratio - 1).square().sum() / (num * (num - 1))).sqrt()  # 0 / 0 at K = 1
    return torch.stack([log_px, log_w.mean(), mc_error, num**2 / ratio.square().sum()])
