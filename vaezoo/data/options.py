"""Checks of options of data modules, which a type hint cannot make."""

import math
from typing import Any

from vaezoo.errors import ConfigError


def require(condition: bool, name: str, value: Any, choices: str) -> None:
    """Raise a ConfigError if an option has no possible value.

    Args:
        condition: whether the value is possible.
        name: name of the option.
        value: its value.
        choices: the possible values, in words.
    """
    if not condition:
        raise ConfigError(f"data.{name}={value} is not possible: use {choices}")


def are_integers(values: Any, number: int, low: int, high: int) -> bool:
    """Return whether values are a list of a given number of integers from ``low`` to ``high``."""
    is_list = isinstance(values, list | tuple) and len(values) == number
    return is_list and all(type(value) is int and low <= value <= high for value in values)


def is_range(values: Any) -> bool:
    """Return whether values are two finite numbers, the smaller one first."""
    is_list = isinstance(values, list | tuple) and len(values) == 2
    return (
        is_list
        and all(type(value) in (int, float) for value in values)
        and -math.inf < values[0] < values[1] < math.inf
    )
