"""Compare runs: means over seeds with intervals, and differences seed by seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from vaezoo.metrics.quantities import Quantity
from vaezoo.report.labels import label, quantities, varies
from vaezoo.report.read import IGNORED_KEYS, PARTS, Run


class Interval(NamedTuple):
    """A mean with its 95 % confidence interval (Student's t).

    Args:
        mean: the mean.
        half: half the width of the interval; NaN for one value.
        num: number of values.
    """

    mean: float
    half: float
    num: int

    def __str__(self) -> str:
        return signed(self.mean) + (f" ± {signed(self.half)}" if self.num > 1 else "")


def signed(value: float) -> str:
    """The value with two digits and a minus sign as wide as a plus sign."""
    return f"{value:z.2f}".replace("-", "\N{MINUS SIGN}")


def interval(values: Sequence[float]) -> Interval:
    """Mean and t_{0.975, n-1} s / sqrt(n), with s^2 the unbiased variance."""
    num, half = len(values), math.nan
    if num > 1:
        half = float(stats.t.ppf(0.975, num - 1) * np.std(values, ddof=1) / math.sqrt(num))
    return Interval(float(np.mean(values)), half, num)


@dataclass
class Variant:
    """Completed runs that differ only in their seed, one for each seed; empty if all have failed.

    Args:
        label: the model and the settings that distinguish it from other variants.
        runs: the runs.
        tried: number of seeds, also those that did not complete or start.
    """

    label: str
    runs: list[Run]
    tried: int

    def values(self, name: str) -> list[float]:
        """The number with this name of each run that has it."""
        return [run.numbers[name] for run in self.runs if name in run.numbers]

    @property
    def collapsed(self) -> bool:
        """Return whether the posterior of a run has collapsed."""
        return any(run.collapsed for run in self.runs)

    @property
    def numbers(self) -> dict[str, Interval]:
        """Each number that any of the runs has, over the seeds."""
        known = quantities(self.runs)
        names = dict.fromkeys(name for run in self.runs for name in run.numbers)
        found = {name: interval(self.values(name)) for name in names}
        bare = [name for name in names if name in known and not known[name].interval]
        return found | {name: found[name]._replace(half=math.nan) for name in bare}


class Verdict(NamedTuple):
    """The words on a variant with unused dimensions.

    Args:
        collapsed: whether the posterior of a run has collapsed: the decoder ignores z.
        text: the same in words, with the remedy.
    """

    collapsed: bool
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass
class Comparison:
    """Runs whose ELBOs can be compared.

    Args:
        elbo_kind: the data and the measure of log p(x) that the runs share.
        keys: settings that differ between the runs, without the seed.
        variants: the variants, the best test ELBO first.
        runs: all completed runs.
    """

    elbo_kind: str
    keys: list[str]
    variants: list[Variant]
    runs: list[Run]

    @cached_property
    def quantities(self) -> dict[str, Quantity]:
        """The quantities of the runs, in the order of their columns."""
        return quantities(self.runs)

    @property
    def verdicts(self) -> list[Verdict]:
        """A sentence for each variant with unused dimensions."""
        found = [(variant, [run.verdict for run in variant.runs if run.verdict]) for variant in self.variants]
        return [
            Verdict(variant.collapsed, f"{variant.label}, {len(texts)} of {len(variant.runs)} seeds: {texts[0]}")
            for variant, texts in found
            if texts
        ]

    @property
    def headline(self) -> str:
        """The best variant by log p(x), if all have it by one protocol, and the best by the test ELBO."""
        if not any(variant.values("elbo") for variant in self.variants):
            return "no run has a test ELBO"
        protocols = {tuple(run.numbers.get(f"log_p{end}") for end in ("_samples", "_examples")) for run in self.runs}
        estimated = all("log_p" in run.numbers for run in self.runs) and len(protocols) == 1
        names = {"log_p": "Highest log p(x)", "elbo": "Best test ELBO"}
        return ". ".join(self.describe_best(key, name) for key, name in names.items() if estimated or key == "elbo")

    def describe_best(self, key: str, name: str) -> str:
        """Name the best variant, and whether the seeds distinguish it from the next (95 % interval of the paired t)."""
        ranked = sorted((v for v in self.variants if v.values(key)), key=lambda v: rank(v, key))
        first, *others = ranked
        best = first.numbers[key]
        seeds = f"95 % interval over {best.num} seeds" if best.num > 1 else "one seed, so without an interval"
        text = f"{name}: {first.label} {best} nats per {first.runs[0].noun} ({seeds})"
        if others and (gap := difference(first, others[0], key)) and gap.half > 0:
            low, high = gap.mean - gap.half, gap.mean + gap.half
            text += f"; {others[0].label} is next, "
            text += f"{signed(low)} to {signed(high)} below" if low > 0 else "not distinguished by these seeds"
        return text


def difference(a: Variant, b: Variant, name: str = "elbo") -> Interval | None:
    """Mean and 95 % interval of a - b over the seeds that both have; None if they share none."""
    first, second = ({run.seed: run.numbers[name] for run in v.runs if name in run.numbers} for v in (a, b))
    shared = sorted(first.keys() & second.keys())
    return interval([first[seed] - second[seed] for seed in shared]) if shared else None


def describe(runs: Sequence[Run]) -> str:
    """Return what the runs compare, for a heading: at most four variants, and their data."""
    comparisons = compare(runs)
    labels = [variant.label for comparison in comparisons for variant in comparison.variants]
    labels = list(dict.fromkeys(labels or [run.model or run.folder.name for run in runs]))
    shown = labels if len(labels) <= 4 else [*labels[:3], f"{len(labels) - 3} more"]
    data = list(dict.fromkeys(run.data for run in runs if run.data))
    return ", ".join(shown) + (f" on {', '.join(data)}" if data else "")


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """Group the completed runs by the kind of their ELBO, the kind with most runs first.

    Variants of which every run failed have no kind. They are in the first comparison.
    """
    completed = [run for run in runs if run.completed]
    kinds: dict[str, list[Run]] = {}
    for run in completed:
        kinds.setdefault(run.elbo_kind, []).append(run)
    failed, keys = [run for run in runs if not run.completed], differing(runs)
    unmatched_failures = [run for run in failed if not any(may_match(run, other, keys) for other in completed)]
    found = []
    for kind, group in sorted(kinds.items(), key=lambda item: -len(item[1])):
        group_keys = [key for key in keys if varies(key, group)]
        found.append(Comparison(kind, group_keys, variants(group, failed, keys, group_keys), group))
    for comparison in found[:1]:
        comparison.variants += failed_variants(unmatched_failures, completed)
    return found


def differing(runs: Sequence[Run]) -> list[str]:
    """The keys whose values differ between runs, without the seed.

    These are the keys that any command sets and, among completed runs with the same command, the keys of their configs:
    two versions of the program may have two defaults.
    """
    named = {key for run in runs for key in run.overrides_by_key if key.split(".")[0] not in IGNORED_KEYS}
    named |= {"model", "data", "checkpoint"}
    groups: dict[Any, list[Run]] = {}
    for run in (run for run in runs if run.completed):  # others may have no config
        groups.setdefault(tuple(run.settings.get(key) for key in sorted(named)), []).append(run)
    parts = tuple(f"{part}." for part in PARTS)
    unnamed = {
        key
        for group in groups.values()
        for key in {key for run in group for key in run.settings if key.startswith(parts)}
        if varies(key, group)
    }
    first = ["model", "data"]
    return [key for key in [*first, *sorted((named | unnamed) - set(first))] if varies(key, runs)]


def variants(
    group: Sequence[Run], failed: Sequence[Run], keys: Sequence[str], group_keys: Sequence[str]
) -> list[Variant]:
    """Group runs of one kind by all their settings but the seed; of two runs with one seed the later counts.

    Args:
        group: completed runs of one kind.
        failed: incomplete runs, which count as tried seeds.
        keys: settings that differ between all runs.
        group_keys: settings that differ between the runs of this kind.
    """
    settings: dict[Any, dict[Any, Run]] = {}
    for run in group:
        settings.setdefault(tuple(run.settings.get(key) for key in keys), {})[run.seed] = run
    found = []
    for by_seed in settings.values():
        runs = list(by_seed.values())
        failed_seeds = {run.seed for run in failed if may_match(run, runs[0], keys)} - set(by_seed)
        found.append(Variant(label(runs[0], group, group_keys), runs, len(by_seed) + len(failed_seeds)))
    return sorted(found, key=rank)


def may_match(failed: Run, run: Run, keys: Sequence[str]) -> bool:
    """Return whether a failed run may belong to the variant of a run; settings missing after a failure are ignored."""
    return all(failed.settings.get(key) in (None, "", run.settings.get(key)) for key in keys)


def failed_variants(unmatched_failures: Sequence[Run], completed: Sequence[Run]) -> list[Variant]:
    """The variants of which every run failed."""
    runs = [*completed, *unmatched_failures]
    keys = differing(runs)
    groups: list[list[Run]] = []
    for run in sorted(unmatched_failures, key=lambda run: not run.config):
        group = next((group for group in groups if may_match(run, group[0], keys)), [])
        if not group:
            groups.append(group)
        group.append(run)
    return [Variant(label(group[0], runs, keys), [], len({run.seed for run in group})) for group in groups]


def rank(variant: Variant, key: str = "elbo") -> float:
    """A sort key that puts the largest mean of a number first, and a missing or NaN one last."""
    mean = variant.numbers[key].mean if key in variant.numbers else math.nan
    return math.inf if math.isnan(mean) else -mean
