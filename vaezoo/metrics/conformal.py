"""Conformal p-values: how unusual a score is among those of normal examples that were held out."""

import math

import torch
from torch import Tensor


class TooFewExamples(ValueError):
    """There are too few held-out examples for a threshold."""


def p_values(score: Tensor, reference: Tensor) -> Tensor:
    """Return the conformal p-value of each score, (N,).

        p(s) = (1 + number of reference scores >= s) / (1 + M)

    If an example is exchangeable with the reference examples, P(p <= a) <= a for any a. Reference: Bates et al. 2023,
    Testing for Outliers with Conformal p-values, https://arxiv.org/abs/2104.08279, eq. 1.

    Args:
        score: scores (N,), larger for a more anomalous example.
        reference: scores of normal examples that were not used in the training, (M,).

    >>> p_values(torch.tensor([0.5, 2.0, 9.0]), torch.tensor([1.0, 2.0, 3.0]))
    tensor([1.0000, 0.7500, 0.2500], dtype=torch.float64)
    """
    ordered = reference.sort().values
    below = torch.searchsorted(ordered, score)  # reference scores < s
    return (1 + len(ordered) - below).double() / (1 + len(ordered))


def threshold(reference: Tensor, alpha: float) -> float:
    """Return the largest reference score whose p-value is above ``alpha``: a larger score has a p-value <= alpha.

    Args:
        reference: scores of normal examples that were not used in the training, (M,).
        alpha: share of normal examples that are expected above the threshold, in (0, 1).

    Raises:
        TooFewExamples: ``alpha`` is smaller than 1 / (M + 1), so that no score could be above.

    >>> threshold(torch.arange(1.0, 20.0), 0.1)
    18.0
    """
    num = len(reference)
    rank = math.floor(alpha * (num + 1) + 1e-9)  # a score above the rank-th largest one has a p-value <= alpha
    if rank < 1:
        raise TooFewExamples(
            f"alpha={alpha:g} needs {math.ceil(1 / alpha) - 1:,} held-out examples to compare with, but there are "
            f"{num:,}: use a larger alpha"
        )
    return float(reference.sort(descending=True).values[rank - 1])
