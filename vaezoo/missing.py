"""Missing entries of data: how they are marked, and how they are filled before a network or a density sees them.

In floats, NaN marks a missing entry, as in pandas. In whole numbers, a negative number does: -1, which is also the
padding after a sentence.
"""

import torch
from torch import Tensor


def is_observed(x: Tensor) -> Tensor:
    """Return a boolean tensor of the shape of x: False if the entry is missing.

    >>> is_observed(torch.tensor([1.0, float("nan")])), is_observed(torch.tensor([0, -1]))
    (tensor([ True, False]), tensor([ True, False]))
    """
    return ~x.isnan() if x.is_floating_point() else x >= 0


def precedes_end(x: Tensor) -> Tensor:
    """Return which frames of sequences x (B, T, D) are not after the last one with an observed entry, (B, T).

    >>> precedes_end(torch.tensor([[[1.0], [float("nan")], [2.0], [float("nan")]]]))
    tensor([[ True,  True,  True, False]])
    """
    return is_observed(x).any(-1).flip(-1).cumsum(-1).flip(-1) > 0


def fill_missing(x: Tensor, value: float = 0) -> Tensor:
    """Return x with ``value`` in place of missing entries.

    >>> fill_missing(torch.tensor([1.0, float("nan")]))
    tensor([1., 0.])
    """
    return torch.where(is_observed(x), x, value)


def to_float(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x as floats of this type. Missing whole numbers become NaN.

    >>> to_float(torch.tensor([3, -1]), torch.float32)
    tensor([3., nan])
    """
    if x.is_floating_point():
        return x.to(dtype)
    return torch.where(is_observed(x), x.to(dtype), torch.nan)


def to_whole(x: Tensor) -> Tensor:
    """Return floats that are whole numbers as int64. NaN becomes -1.

    >>> to_whole(torch.tensor([3.0, float("nan")]))
    tensor([ 3, -1])
    """
    return fill_missing(x, -1).long()
