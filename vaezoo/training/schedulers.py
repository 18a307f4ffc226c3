"""Learning-rate schedules: functions of the optimizer step without a state."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def cosine(optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, final: float = 0.0) -> LambdaLR:
    """Make a schedule with a linear warm-up and then half a cosine, from the learning rate down to ``final`` times it.

    Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts",
    https://arxiv.org/abs/1608.03983, eq. 5, without restarts.

    Args:
        optimizer: the optimizer, whose learning rate is the largest one of the schedule.
        total_steps: optimizer steps of the whole training.
        warmup_steps: steps W in which the learning rate rises linearly, from 1/W of it; >= 0.
        final: fraction of the learning rate at the end, in [0, 1].

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
        >>> schedule = cosine(optimizer, total_steps=6, warmup_steps=2)
        >>> [round(factor(step), 2) for factor in schedule.lr_lambdas for step in range(7)]
        [0.5, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    if not 0 <= final <= 1:
        raise ValueError(f"scheduler.final must be in [0, 1], got {final}")
    if warmup_steps < 0:
        raise ValueError(f"scheduler.warmup_steps must be >= 0, got {warmup_steps}")

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))

    return LambdaLR(optimizer, factor)
