"""Learning-rate schedules: functions of the optimizer step without a state, and how any schedule is made.

A schedule counts one of three units:

* optimizer steps, if it has an argument ``total_steps``, such as ``cosine``: it gets their number in the training;
* validations, if it follows a metric: ``ReduceLROnPlateau``;
* epochs otherwise, or optimizer steps if ``scheduler.interval=step``.
"""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from vaezoo.errors import ConfigError

# Makes a schedule from an optimizer. If it has an argument of this name, also from total_steps.
SchedulerFactory = Callable[..., LRScheduler]
INTERVALS = ("step", "epoch")


def takes_total_steps(factory: SchedulerFactory) -> bool:
    """Return whether a schedule needs to know the number of optimizer steps."""
    return "total_steps" in inspect.signature(factory).parameters


def check_schedule(factory: SchedulerFactory, interval: str | None) -> None:
    """Raise a ConfigError if an argument of a schedule is missing, or if it cannot count in the given unit.

    Args:
        factory: makes the schedule.
        interval: "step" or "epoch"; None: the unit that follows from the schedule.
    """
    target: Any = factory.func if isinstance(factory, partial) else factory
    name = getattr(target, "__name__", type(target).__name__)
    _, *others = inspect.signature(factory).parameters.values()  # the first one is the optimizer
    for argument in others:
        is_variadic = argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
        if argument.default is argument.empty and argument.name != "total_steps" and not is_variadic:
            raise ConfigError(f"scheduler.{argument.name} is missing: {name} needs it")
    if interval not in (None, *INTERVALS):
        raise ConfigError(f"scheduler.interval={interval} is not one of {', '.join(INTERVALS)}")
    unit = "validations" if target is ReduceLROnPlateau else "optimizer steps" if takes_total_steps(factory) else ""
    if interval is not None and unit:
        raise ConfigError(f"scheduler.interval={interval}: {name} counts {unit}, leave this option out")


def make_schedule(factory: SchedulerFactory, optimizer: Optimizer, num_steps: float) -> LRScheduler:
    """Make the schedule of an optimizer.

    Args:
        factory: makes the schedule.
        optimizer: the optimizer.
        num_steps: optimizer steps of the whole training; inf if it has no end.

    Raises:
        ValueError: the schedule needs the number of steps, and there is no end; or one of its arguments is wrong.
    """
    arguments: dict[str, Any] = {}
    if takes_total_steps(factory) and "total_steps" not in getattr(factory, "keywords", {}):
        if num_steps == math.inf:
            raise ValueError("a learning-rate schedule needs an end: set trainer.max_epochs or trainer.max_steps")
        arguments["total_steps"] = int(num_steps)
    try:
        return factory(optimizer, **arguments)
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith("scheduler") else f"scheduler: {error}") from error


def one_cycle(
    optimizer: Optimizer,
    total_steps: int,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> LambdaLR:
    """Make the one-cycle schedule: the learning rate rises to that of the optimizer and then falls to almost 0.

    Both parts are halves of a cosine. Smith and Topin 2018, "Super-Convergence: Very Fast Training of Neural Networks
    Using Large Learning Rates", https://arxiv.org/abs/1708.07120. It equals torch's ``OneCycleLR`` with
    ``cycle_momentum=False``, but each group of parameters keeps its own largest learning rate, and a training that is
    resumed for longer gets the schedule of the longer one.

    Args:
        optimizer: the optimizer, whose learning rate is the largest one of the schedule.
        total_steps: optimizer steps of the whole training.
        pct_start: fraction of the steps in which the learning rate rises, in [0, 1].
        div_factor: the learning rate begins at its largest value divided by this.
        final_div_factor: it ends at its first value divided by this.
    """
    if not 0 <= pct_start <= 1:
        raise ValueError(f"scheduler.pct_start must be in [0, 1], got {pct_start}")
    for name, value in {"div_factor": div_factor, "final_div_factor": final_div_factor}.items():
        if not value > 0:
            raise ValueError(f"scheduler.{name} must be > 0, got {value}")
    first, last, top = 1 / div_factor, 1 / (div_factor * final_div_factor), pct_start * total_steps - 1

    def factor(step: int) -> float:
        if step <= top:
            start, end, done = first, 1.0, step / top if top else 1.0
        else:
            start, end, done = 1.0, last, (step - top) / max(1.0, total_steps - 1 - top)
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return LambdaLR(optimizer, factor)


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
