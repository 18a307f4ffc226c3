"""Labels of variants and values."""

from collections.abc import Iterable, Sequence
from typing import Any

from vaezoo.report.read import Run


def vary(key: str, runs: Iterable[Run]) -> bool:
    """Whether a setting is not the same in all runs."""
    return len({run.settings.get(key) for run in runs}) > 1


def label(run: Run, group: Sequence[Run], keys: Sequence[str]) -> str:
    """The model, and of what differs in the group what its command says or sets it apart from others of its model."""
    same = [other for other in group if other.model == run.model]
    apart = [key for key in keys if key not in ("model", "data") and (key in run.chosen or vary(key, same))]
    return " ".join([run.model or "?", *(f"{short(key)}={shown(run.settings.get(key))}" for key in apart)])


def short(key: str) -> str:
    """A key without the part of the config that it is in."""
    return key.rpartition("/")[2].removeprefix("model.").removeprefix("trainer.").removeprefix("optimizer.")


def shown(value: Any) -> str:
    """A setting's value in words."""
    return "default" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
