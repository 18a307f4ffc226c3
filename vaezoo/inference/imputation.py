"""Imputation: the missing entries of an example, given its observed ones."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaezoo import seeding
from vaezoo.distributions import JointDistribution, SelfMaskedDistribution
from vaezoo.missing import is_observed
from vaezoo.training.eval_mode import evaluating
from vaezoo.training.means import accumulation_dtype

if TYPE_CHECKING:
    from vaezoo.models import LatentVariableModel


def samples_and_means(px: Distribution, is_category: Tensor) -> tuple[Tensor, Tensor]:
    """Return draws of x and means, (K, B, *data_shape) each, to be weighted by the importance weights.

    If the weights depend on draws of missing entries, both are these draws: the mean of p(x | z) would ignore that
    entries are missing because of their values. Categories have no mean, so draws stand in its place: the greedy
    decoding of a caption would take as long as the draw.

    Args:
        px: p(x | z).
        is_category: which entries are categories, (*data_shape).
    """
    inner = px.base_dist if isinstance(px, Independent) else px
    if isinstance(inner, SelfMaskedDistribution):
        return inner.drawn, inner.drawn
    samples = px.sample()
    if is_category.all():
        return samples, samples
    if not isinstance(inner, JointDistribution):
        return samples, px.mean
    drawn, categories = inner.layout.split(samples), inner.layout.split(is_category)
    return samples, inner.layout.join(
        {name: drawn[name] if categories[name].all() else part.mean for name, part in inner.parts.items()}
    )


class Imputation(NamedTuple):
    """Examples without missing entries.

    Args:
        best: one example each, (B, *data_shape): a number is its expectation given the observed entries, and a category
            the most probable one.
        draws: L draws of the missing entries given the observed ones, (L, B, *data_shape).
    """

    best: Tensor
    draws: Tensor


def impute(
    model: "LatentVariableModel",
    x: Tensor,
    context: Tensor | None,
    is_category: Tensor,
    num_samples: int = 1000,
    num_draws: int = 1,
    seed: int = 0,
    start_index: int = 0,
    groups: Sequence[Tensor] = (),
    progress: Callable[[range], Iterable[int]] = iter,
) -> Imputation:
    """Fill the missing entries of examples by importance sampling.

    With z_k ~ q(z | observed entries) and w_k = p(observed, z_k) / q(z_k | observed), normalized to sum 1,

        E[missing | observed] ~ sum_k w_k E[missing | z_k],

    and a draw of the missing entries is a draw from p(missing | z_k) with k drawn by the weights w_k (Mattei & Frellsen
    2019, MIWAE: Deep Generative Modelling and Imputation of Incomplete Data, https://arxiv.org/abs/1812.02633, eq. 14
    and section 3.2). Both are exact as K rises. Of a category, the most frequent one of K such draws is taken, and of a
    group of entries, such as the tokens of a sentence, the most frequent value of all of them together.

    Args:
        model: a model whose likelihood leaves out missing entries, in evaluation mode.
        x: examples (B, *data_shape) with missing entries: NaN, or -1 of integers.
        context: labels or whatever else the model is conditioned on, (B, ...), or None.
        is_category: which entries are categories, whose mean has no meaning, (*data_shape).
        num_samples: K, the importance samples of each example.
        num_draws: L.
        seed: seed of the samples; those of an example depend on it and on the example's index only.
        start_index: index of x[0] in the whole data set.
        groups: entries that are one value together, each bool (*data_shape); they are also categories.
        progress: wraps the loop over examples, to show the progress; for example ``tqdm.tqdm``.
    """
    best, draws = x.clone(), x.expand(num_draws, *x.shape).clone()
    with evaluating(model), seeding.isolated(x.device, seed, "impute"):
        for i in progress(range(len(x))):
            observed = is_observed(x[i])
            if observed.all():
                continue
            seeding.reseed(x.device, seed, "impute", start_index + i)
            trace = model(x[i : i + 1], None if context is None else context[i : i + 1], num_samples=num_samples)
            log_w = trace.log_w[:, 0]
            weights = log_w.to(accumulation_dtype(log_w)).softmax(0)
            samples, means = samples_and_means(trace.px, is_category)
            drawn = samples[:, 0][torch.multinomial(weights, max(num_samples, num_draws), replacement=True)]
            values = torch.einsum("k,k...->...", weights, means[:, 0].to(weights.dtype)).to(x.dtype)
            if is_category.any():
                values = torch.where(is_category, drawn.mode(0).values.to(x.dtype), values)
            for group in groups:
                values[group] = most_frequent(drawn[:, group]).to(x.dtype)
            best[i] = torch.where(observed, x[i], values)
            draws[:, i] = torch.where(observed, x[i], drawn[:num_draws].to(x.dtype))
    return Imputation(best, draws)


def most_frequent(rows: Tensor) -> Tensor:
    """Return the most frequent one of rows (K, n); NaN is a value like any other.

    >>> most_frequent(torch.tensor([[1.0, 2.0], [3.0, 2.0], [1.0, 2.0]]))
    tensor([1., 2.])
    """
    _, places, counts = torch.unique(rows.nan_to_num(nan=-torch.inf), dim=0, return_inverse=True, return_counts=True)
    return rows[(places == counts.argmax()).nonzero()[0, 0]]
