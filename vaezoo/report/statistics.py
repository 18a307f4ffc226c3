"""Compare runs: variants, means over seeds with intervals, differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from vaezoo.report.columns import BARE, BESIDE, PROTOCOLS
from vaezoo.report.labels import label, vary
from vaezoo.report.read import PARTS, PLUMBING, Run


class Interval(NamedTuple):
    """A mean with the half width of its 95 % confidence interval, Student's t; NaN for one value."""

    mean: float
    half: float
    num: int

    def __str__(self) -> str:
        return signed(self.mean) + (f" ± {signed(self.half)}" if self.num > 1 else "")


def signed(value: float) -> str:
    """Two digits, and a minus as wide as a plus."""
    return f"{value:z.2f}".replace("-", "\N{MINUS SIGN}")


def interval(values: Sequence[float]) -> Interval:
    """Mean and t_{0.975, n-1} s / sqrt(n), with s^2 the unbiased variance."""
    num, half = len(values), math.nan
    if num > 1:
        half = float(stats.t.ppf(0.975, num - 1) * np.std(values, ddof=1) / math.sqrt(num))
    return Interval(float(np.mean(values)), half, num)


@dataclass
class Variant:
    """Completed runs that differ in their seed alone, one for each seed; none where all have failed.

    Args:
        label: the model, and what sets it apart from other variants of it.
        runs: the runs.
        tried: how many seeds there should be: with those that did not complete.
    """

    label: str
    runs: list[Run]
    tried: int

    def values(self, name: str) -> list[float]:
        return [run.numbers[name] for run in self.runs if name in run.numbers]

    @property
    def numbers(self) -> dict[str, Interval]:
        """Over the seeds, each quantity that any of them has."""
        names = dict.fromkeys(name for run in self.runs for name in run.numbers)
        found = {name: interval(self.values(name)) for name in names}
        return found | {name: found[name]._replace(half=math.nan) for name in BARE if name in found}


@dataclass
class Comparison:
    """Runs whose ELBOs are of the same thing.

    Args:
        scale: of what.
        keys: the settings that differ between the runs, the seed apart.
        variants: the runs by variant, the best test ELBO first.
        runs: all completed ones.
    """

    scale: str
    keys: list[str]
    variants: list[Variant]
    runs: list[Run]

    @property
    def verdicts(self) -> list[str]:
        """What the evaluations found of unused dimensions."""
        said = [(variant, [run.verdict for run in variant.runs if run.verdict]) for variant in self.variants]
        return [f"{v.label}, {len(bad)} of {len(v.runs)} seeds: {bad[0]}" for v, bad in said if bad]

    @property
    def headline(self) -> str:
        """The best variant, and whether the seeds tell it from the next (the 95 % interval of the paired t)."""
        ranked = [variant for variant in self.variants if variant.values("elbo")]
        if not ranked:
            return "no run has a test ELBO"
        first, *others = ranked
        best = first.numbers["elbo"]
        seeds = f"95 % interval over {best.num} seeds" if best.num > 1 else "one seed, so without an interval"
        text = f"Best test ELBO: {first.label} {best} nats per image ({seeds})"
        if others and (gap := difference(first, others[0])) and gap.half > 0:
            low, high = gap.mean - gap.half, gap.mean + gap.half
            text += f"; {others[0].label} is next, "
            text += f"{signed(low)} to {signed(high)} below" if low > 0 else "not told apart by these seeds"
        return text


def difference(a: Variant, b: Variant, name: str = "elbo") -> Interval | None:
    """Mean and 95 % interval of a - b over the seeds that both have; None where they share none."""
    ours, theirs = ({run.seed: run.numbers[name] for run in v.runs if name in run.numbers} for v in (a, b))
    shared = sorted(ours.keys() & theirs.keys())
    return interval([ours[seed] - theirs[seed] for seed in shared]) if shared else None


def protocol(column: str, runs: Sequence[Run]) -> str:
    """How a column's numbers were made, such as "K = 500, 1,000 images", each way if runs differ in it; and their
    bound, or what training images get, if it is known and about the same for all runs.
    """
    parts = PROTOCOLS.get(column, {})
    numbers = [run.numbers for run in runs]
    ways = sorted({tuple(own[name] for name in parts) for own in numbers if parts.keys() <= own.keys()})
    told = " or ".join(", ".join(text.format(n) for text, n in zip(parts.values(), way, strict=True)) for way in ways)
    found = [told]
    for end, words in BESIDE.items():
        values = [own.get(f"{column}{end}", math.nan) for own in numbers if column in own]
        if values and np.ptp(values) <= 0.1 * abs(np.mean(values)):  # models of other sizes have another bound
            found.append(f"{words} {np.mean(values):.3g}")
    return "; ".join(filter(None, found))


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """The completed runs by what their ELBO is of, the kinds with most runs first."""
    completed = [run for run in runs if run.completed]
    scales: dict[str, list[Run]] = {}
    for run in completed:
        scales.setdefault(run.scale, []).append(run)
    failed, keys = [run for run in runs if not run.completed], differing(runs)
    lost = [run for run in failed if not any(like(run, other, keys) for other in completed)]
    found = []
    for scale, group in sorted(scales.items(), key=lambda item: -len(item[1])):
        own = [key for key in keys if vary(key, group)]
        found.append(Comparison(scale, own, variants(group, failed, keys, own), group))
    for comparison in found[:1]:  # what the lost ones' ELBO would have been of, nobody knows
        comparison.variants += hopeless(lost, completed)
    return found


def differing(runs: Sequence[Run]) -> list[str]:
    """The keys whose values are not the same in all of some runs, the seed apart.

    These are keys that some command set, and, among runs whose commands say the same, keys of their configs:
    two versions of the program may have two defaults.
    """
    named = {key for run in runs for key in run.chosen if key.split(".")[0] not in PLUMBING}
    named |= {"model", "data", "checkpoint"}
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run.settings.get(key) for key in sorted(named)), []).append(run)
    parts = tuple(f"{part}." for part in PARTS)
    unnamed = {
        key
        for group in groups.values()
        for key in {key for run in group for key in run.settings if key.startswith(parts)}
        if vary(key, group)
    }
    first = ["model", "data"]
    return [key for key in [*first, *sorted((named | unnamed) - set(first))] if vary(key, runs)]


def variants(group: Sequence[Run], failed: Sequence[Run], keys: Sequence[str], own: Sequence[str]) -> list[Variant]:
    """Runs of one scale by all that they differ in but the seed; of two with the same seed the later counts."""

    def what(run: Run) -> tuple[Any, ...]:
        return tuple(run.settings.get(key) for key in keys)

    parts: dict[Any, dict[Any, Run]] = {}
    for run in group:
        parts.setdefault(what(run), {})[run.seed] = run
    found = []
    for seeds in parts.values():
        runs = list(seeds.values())
        also = {run.seed for run in failed if like(run, runs[0], keys)} - set(seeds)
        found.append(Variant(label(runs[0], group, own), runs, len(seeds) + len(also)))
    return sorted(found, key=rank)


def like(failed: Run, run: Run, keys: Sequence[str]) -> bool:
    """Whether a failed run may be one of a variant: what failed early has not told all of its settings."""
    return all(failed.settings.get(key) in (None, "", run.settings.get(key)) for key in keys)


def hopeless(lost: Sequence[Run], completed: Sequence[Run]) -> list[Variant]:
    """The variants of which every run has failed."""
    together = [*completed, *lost]
    keys = differing(together)
    groups: dict[Any, list[Run]] = {}
    for run in lost:
        groups.setdefault(tuple(run.settings.get(key) for key in keys), []).append(run)
    return [Variant(label(runs[0], together, keys), [], len({run.seed for run in runs})) for runs in groups.values()]


def rank(variant: Variant) -> float:
    """Its place among variants, the best first; last where it has no ELBO, or one that is no number."""
    elbo = variant.numbers["elbo"].mean if "elbo" in variant.numbers else math.nan
    return math.inf if math.isnan(elbo) else -elbo
