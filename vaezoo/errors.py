"""The errors that a user can cause, and suggestions for misspelt names."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A config that cannot be built, in one sentence."""


def suggest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """"did you mean PREFIX.NAME?" where one of the names is close, else the names."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {prefix}{close[0]}?" if close else f"choose from {', '.join(names)}"


class DoesNotApply(ValueError):
    """Why a group of metrics cannot be had of this model on this data."""
