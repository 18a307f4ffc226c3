"""Numerical helpers of distributions and families."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_floor(x: Tensor, floor: float) -> Tensor:
    """A smooth max(x, floor): the identity well above it, and never without a gradient."""
    return floor + F.softplus(x - floor)


def bisect(rising: Callable[[Tensor], Tensor], target: Tensor, limit: float) -> Tensor:
    """Where a rising elementwise function reaches ``target``, in [-limit, limit]; the nearer end where it does not."""
    low, high = torch.full_like(target, -limit), torch.full_like(target, limit)
    for _ in range(40):
        middle = (low + high) / 2
        below = rising(middle) < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
