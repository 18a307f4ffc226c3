"""Learning-rate schedules: functions of the optimizer step, without a memory."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def cosine(optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, final: float = 0.0) -> LambdaLR:
    """Linear warm-up, then half a cosine from the learning rate to ``final`` times it.

    Args:
        total_steps: optimizer steps of the whole run.
        warmup_steps: steps over which the rate rises from 0.
        final: fraction of the learning rate at the end, in [0, 1].
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
