"""Numerical helpers of distributions and families."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_floor(x: Tensor, floor: float) -> Tensor:
    """Return a smooth max(x, floor): nearly x far above the floor, and with a gradient everywhere."""
    return floor + F.softplus(x - floor)


def inverse_soft_floor(y: Tensor, floor: float) -> Tensor:
    """Return the x with ``soft_floor(x, floor)`` = y, for y > floor."""
    return y + torch.log(-torch.expm1(floor - y))


def accumulation_dtype(value: Tensor) -> torch.dtype:
    """Return the dtype for sums of many or large terms: float64, or float32 on MPS, which has no float64."""
    return torch.float32 if value.device.type == "mps" else torch.float64


def bisect(increasing: Callable[[Tensor], Tensor], target: Tensor, limit: float) -> Tensor:
    """Return the x in [-limit, limit] at which an increasing elementwise function is ``target``.

    If the function does not reach the target in this interval, the nearer end of the interval is returned.
    """
    low, high = torch.full_like(target, -limit), torch.full_like(target, limit)
    for _ in range(40):
        middle = (low + high) / 2
        below = increasing(middle) < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
