"""Label variants, settings and columns."""

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from vaezoo.metrics.quantities import BOUNDS, KEY, Quantity, use_noun
from vaezoo.report.read import Run


def varies(key: str, runs: Iterable[Run]) -> bool:
    """Return whether a setting differs between runs."""
    return len({run.settings.get(key) for run in runs}) > 1


def label(run: Run, group: Sequence[Run], keys: Sequence[str]) -> str:
    """Label a variant: its model, and the settings that its command sets or that differ between runs of its model."""
    same_model = [other for other in group if other.model == run.model]
    shown = [
        key for key in keys if key not in ("model", "data") and (key in run.overrides_by_key or varies(key, same_model))
    ]
    return " ".join([run.model or "?", *(f"{short_key(key)}={format_value(run.settings.get(key))}" for key in shown)])


def short_key(key: str) -> str:
    """A key without the part of the config that it belongs to."""
    return key.rpartition("/")[2].removeprefix("model.").removeprefix("trainer.").removeprefix("optimizer.")


def format_value(value: Any) -> str:
    """A setting's value as text."""
    return "default" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def quantities(runs: Iterable[Run]) -> dict[str, Quantity]:
    """Return the quantities of runs, in the order of their columns.

    A quantity that only later runs have is placed after its predecessor in that run.
    """
    found: dict[str, Quantity] = {}
    order: list[str] = []
    for run in runs:
        place = 0
        for name in run.quantities:
            if name not in found:
                order.insert(place, name)
            place = order.index(name) + 1
            found[name] = run.quantities[name]
    return {name: found[name] for name in order}


def leading_columns(quantities: dict[str, Quantity], names: Collection[str]) -> list[str]:
    """Those of the names that each table shows: log p(x), by which models are compared, the main columns, the cost."""
    found = [
        name
        for column in ("main", "cost")
        for name, quantity in quantities.items()
        if quantity.column == column and name in names
    ]
    return sorted(found, key=lambda name: name != "log_p")


def fill(template: str, values: Iterable[float]) -> str:
    """Replace the keys in a protocol by their values, which come in the same order."""
    remaining = iter(values)
    return KEY.sub(lambda match: f"{next(remaining):,.0f}", template)


def protocol(column: str, runs: Sequence[Run], quantities: dict[str, Quantity]) -> str:
    """Describe how the numbers of a column were measured, such as "K = 500, 1,000 images"; each way if runs differ.

    Their upper bound, or the reference of training images, follows if it is known and about the same in all runs.
    """
    template = quantities[column].protocol if column in quantities else ""
    keys = KEY.findall(template)
    numbers = [run.numbers for run in runs]
    protocols = sorted({tuple(own[key] for key in keys) for own in numbers if all(key in own for key in keys)})
    parts = [" or ".join(fill(template, values) for values in protocols)]
    for ending, words in BOUNDS.items():
        bounds = [own.get(f"{column}{ending}", math.nan) for own in numbers if column in own]
        if bounds and np.ptp(bounds) <= 0.1 * abs(np.mean(bounds)):  # models of other sizes have other bounds
            parts.append(f"{use_noun(words, runs[0].noun)} {np.mean(bounds):.3g}")
    return "; ".join(filter(None, parts))
