"""Missing entries of data: NaN in floats, -1 in integers."""

from torch import Tensor


def is_observed(x: Tensor) -> Tensor:
    """Return which entries of x are observed, bool, of the shape of x."""
    return ~x.isnan() if x.is_floating_point() else x >= 0


def fill_missing(x: Tensor) -> Tensor:
    """Return x with 0 in place of missing entries."""
    return x.where(is_observed(x), 0)
