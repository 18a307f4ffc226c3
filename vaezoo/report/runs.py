"""Runs read from their folders, and what may be said of them together."""

import csv
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from scipy import stats

from vaezoo.build import ConfigError
from vaezoo.metrics.quantities import Quantity
from vaezoo.sweep import JOB_RECORD, brief, essential, jobs, read_summary

TASKS = ("fit", "evaluate")  # whose folders are runs; a report's own is none
PARTS = ("model", "data", "optimizer", "scheduler", "trainer", "callbacks")  # of a config, that a result depends on
# Keys that set no variant apart.
PLUMBING = {"task", "run", "run_dir", "seed", "resume", "logger", "debug", "trust", "threads"}
PICTURES = ("reconstructions", "samples", "traversals", "manifold", "scatter")  # in this order, then any other

# What every run has, beside what its summary's ``units`` tell.
QUANTITIES = {
    "elbo": Quantity("nats per image", "evidence lower bound of log p(x)", 1),
    "log_p": Quantity("nats per image", "importance-weighted lower bound of log p(x), tighter than the ELBO", 1),
    "bits_per_dim": Quantity("bits", "-ELBO / (dimensions ln 2) of 8-bit data", -1),
    "kl": Quantity("nats per image", "rate: KL(q(z | x), p(z))"),
    "log_px": Quantity("nats per image", "E_q[log p(x | z)]", 1),
    "distortion": Quantity("nats per image", "-E_q[log p(x | z)]"),
    "wall_seconds": Quantity("s", "wall-clock time of the whole run"),
    "train_images_per_second": Quantity("images/s", "speed of the training alone"),
    "parameters": Quantity("", "trainable numbers of the model"),
    "peak_memory_mb": Quantity("MiB", "most memory held by the process, or on its GPU where it has one"),
}
# What tables show first, in this order, where a run has it; and after that what it cost.
LEADING = (
    "elbo", "log_p", "inference_gap", "bits_per_dim", "kl", "distortion", "active_units", "codes_used", "linear_probe",
    "fid", "mig", "udr",
)  # fmt: skip
SAMPLE_METRICS = ("fid", "kid", "precision", "recall", "density", "coverage")
GENERATED = {"num_features": "{:,.0f} features", "num_real": "{:,.0f} real", "num_generated": "{:,.0f} generated"}
PROTOCOLS = {  # of a column, the numbers that say how its own were made: they stand in its head and are no columns
    "log_p": {"log_p_samples": "K = {:,.0f}", "log_p_images": "{:,.0f} images"},
    "udr": {"udr_models": "{:,.0f} seeds"},
    **dict.fromkeys(SAMPLE_METRICS, GENERATED),
}
# What may stand beside a column's name: a bound, or what real images get, which a model's may be better than.
BESIDE = {"_ceiling": "at best", "_reference": "training images:"}
RENAMED = {f"{name}_ceiling": f"{name}_reference" for name in SAMPLE_METRICS}  # in summaries of older versions
COST = ("wall_seconds", "train_images_per_second", "parameters", "peak_memory_mb")
# Means over seeds without an interval: what a machine took, and what is one number of all seeds together.
BARE = (*COST, "udr")


class Point(NamedTuple):
    """A curve's point: the ELBO in nats per image after so many epochs, which are so many optimizer steps."""

    epoch: float
    step: int
    elbo: float


@dataclass
class Run:
    """A run's folder: what was asked for, what came out, and where it was trained.

    Args:
        folder: where it lies.
        overrides: the words of its command.
        summary: its ``summary.json``, or an empty dict.
        choices: the choice made of each config group, as Hydra wrote it down.
        config: the config, resolved where the run has told it.
        curves: the ELBO over training, for ``val`` and ``train``.
        pictures: the newest picture of each kind.
    """

    folder: Path
    overrides: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[Point]] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)

    @property
    def completed(self) -> bool:
        return self.summary.get("status") == "completed" and "test" in self.summary

    @property
    def cause(self) -> str:
        """Why it did not complete."""
        return brief(self.summary.get("error") or self.summary.get("status", "not finished"))

    @property
    def verdict(self) -> str:
        """What an evaluation found of unused dimensions, in words; empty where there is nothing to say."""
        bad = ("posterior collapse", " dimensions are unused")
        return next((note for note in self.summary.get("notes", []) if any(part in note for part in bad)), "")

    @cached_property
    def chosen(self) -> dict[str, Any]:
        """What the command set, by key."""
        pairs = (word.lstrip("+~").partition("=")[::2] for word in self.overrides)
        return {key: number(value) for key, value in pairs}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that the result may depend on, by key: groups' choices, then the config's own values."""
        parts = {part: self.config[part] for part in PARTS if part in self.config}
        places = [str(self.config.get("run_dir", self.folder)), str(home(self.summary) or self.folder)]
        values = {
            key: value
            for key, value in leaves(parts)
            if key != "data.root" and "${" not in str(value) and not any(place in str(value) for place in places)
        }
        name = self.summary.get("model") or self.choices.get("model") or self.chosen.get("model", "")
        settings = self.choices | self.chosen | values | {"model": name, "data": self.data, "seed": self.seed}
        checkpoint = Path(self.summary.get("checkpoint", "best.ckpt")).name
        return settings if checkpoint == "best.ckpt" else settings | {"checkpoint": checkpoint}

    @property
    def model(self) -> str:
        return self.settings["model"]

    @property
    def seed(self) -> Any:
        return self.config.get("seed", self.summary.get("seed", self.chosen.get("seed", 0)))

    @property
    def data(self) -> str:
        target = (self.config.get("data") or {}).get("_target_", self.summary.get("data", ""))
        return str(target).rpartition(".")[2] or str(self.chosen.get("data", ""))

    @property
    def scale(self) -> str:
        """What its log p is of, and on which images: only ELBOs for which this is the same can be compared."""
        data = self.config.get("data") or {}
        shape = "x".join(map(str, data.get("shape", ())))
        binarize = data.get("binarize", "none")
        drawn = "" if binarize == "none" else f"{binarize} binarisation"
        if drawn and data.get("split_seed"):  # which names the draw
            drawn += f" {data['split_seed']}"
        scored = self.summary.get("scored", "unknown")
        return ", ".join(filter(None, (f"{self.data} {shape}".strip(), drawn, f"log p of {scored}")))

    @property
    def test(self) -> dict[str, float]:
        """All test numbers, by their present names."""
        test = self.summary.get("test", {})
        return {RENAMED.get(name, name): float(value) for name, value in test.items() if isinstance(value, int | float)}

    @cached_property
    def numbers(self) -> dict[str, float]:
        """Test numbers and cost, each a scalar."""
        test = {name: value for name, value in self.test.items() if not by_dimension(name)}
        if "log_px" in test:
            test["distortion"] = -test["log_px"]
        memory = self.summary.get("peak_memory_mb") or {}
        cost = self.summary | {"peak_memory_mb": memory.get("gpu", memory.get("process"))}
        return test | {name: float(cost[name]) for name in COST if cost.get(name) is not None}

    @property
    def bars(self) -> dict[str, list[float]]:
        """Test numbers of which there is one a dimension, such as ``kl_dim/000``."""
        bars: dict[str, list[float]] = {}
        for name, value in sorted(self.test.items()):
            if by_dimension(name):
                bars.setdefault(name.rpartition("/")[0], []).append(value)
        return bars


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


def vary(key: str, runs: Iterable[Run]) -> bool:
    """Whether a setting is not the same in all runs."""
    return len({run.settings.get(key) for run in runs}) > 1


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


def read_runs(paths: Iterable[Path]) -> list[Run]:
    """The runs in folders: a run's own, a sweep's, or any above them.

    An evaluation of a run that is among them, of its best checkpoint and on its own data, adds its test
    numbers to that run; any other is a run by itself, with the pictures and curves of the one it evaluates.

    Raises:
        ConfigError: a folder that is not there or holds no run.
    """
    found: dict[Path, Run] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise ConfigError(f"runs={path} is not a folder: give a run's, such as outputs/DATE/TIME, or a sweep's")
        asked = {folder.resolve(): job["overrides"] for folder, job in jobs(path).items()}
        marks = ("summary.json", ".hydra/overrides.yaml", ".hydra/config.yaml")
        folders = {file.parent if i == 0 else file.parent.parent for i, m in enumerate(marks) for file in path.rglob(m)}
        here = {folder.resolve() for folder in folders} | set(asked)
        runs = [run for folder in sorted(here, key=natural) if (run := read_or_skip(folder, asked.get(folder)))]
        if not runs:
            raise ConfigError(f"runs={path} holds no run: give a folder with a summary.json in it or below it")
        found |= {run.folder: run for run in runs}
    return joined(found)


def read_or_skip(folder: Path, overrides: list[str] | None) -> Run | None:
    """``read_run``, or None with a sentence on stderr if the folder's files are not what a run writes."""
    try:
        run = read_run(folder, overrides)
        if run is not None:
            copy = replace(run)  # with its own cached values, which change when an evaluation is added to the run
            _ = copy.settings, copy.numbers, copy.scale, copy.verdict
        return run
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        print(f"{folder} is left out, its files are not those of a run ({error})", file=sys.stderr)
        return None


def read_run(folder: Path, overrides: list[str] | None = None) -> Run | None:
    """The run in a folder; None where another task than training and evaluation left it, or a refused command."""
    summary = read_summary(folder)
    config = summary.get("config") or read_config(folder)
    task = summary.get("task") or str((config.get("task") or {}).get("_target_", "fit")).rpartition(".")[2]
    begun = any((folder / part).exists() for part in ("metrics.csv", "checkpoints", JOB_RECORD))
    if task not in TASKS or (summary.get("status") == "failed" and not begun):
        return None
    origin = home(summary) or folder
    if task == "evaluate" and config.get("run"):  # one that did not complete knows of itself alone
        origin = Path(config["run"]).resolve()
        origin = origin.parent.parent if origin.is_file() else origin
        config = read_summary(origin).get("config") or read_config(origin)
        summary.pop("model", None)
    hydra = origin / ".hydra"
    if overrides is None or origin != folder:
        overrides = read_yaml(hydra / "overrides.yaml") or []
    runtime = (read_yaml(hydra / "hydra.yaml") or {}).get("hydra", {}).get("runtime", {})
    choices = runtime.get("choices", {})
    return Run(
        folder, essential(overrides), summary, choices, config,
        read_curves(origin / "metrics.csv", summary if origin == folder else read_summary(origin)),
        read_pictures(origin / "panels"),
    )  # fmt: skip


def home(summary: dict[str, Any]) -> Path | None:
    """The folder of the run that an evaluation is of."""
    return Path(summary["checkpoint"]).resolve().parent.parent if "checkpoint" in summary else None


def joined(runs: dict[Path, Run]) -> list[Run]:
    """The runs, with evaluations made part of what they evaluate, also where both have been moved since."""
    trainings = [run for run in runs.values() if home(run.summary) is None]
    alone: list[Run] = []
    for run in runs.values():
        # Where folders were moved and others took their names, the one that lies nearest to the evaluation.
        found = [trained for trained in trainings if same(run, trained)] or [one for one in alone if same(run, one)]
        if not found:
            alone.append(run)
            continue
        nearest = max(found, key=lambda trained: len(os.path.commonpath([run.folder, trained.folder])))
        for name in ("test", "units"):
            nearest.summary[name] = nearest.summary.get(name, {}) | run.summary.get(name, {})
        nearest.summary["notes"] = run.summary.get("notes", [])
    return alone


def same(run: Run, trained: Run) -> bool:
    """Whether a run is an evaluation of another one, or of what that is one of: of the same weights and images."""
    there = {trained.folder, Path(trained.config.get("run_dir", trained.folder)), home(trained.summary)} - {None}
    if not (run.completed and trained.completed and home(run.summary) in there and run.scale == trained.scale):
        return False
    keys = {key for key in (*run.settings, *trained.settings) if key.startswith(("model.", "optimizer.", "scheduler."))}
    return all(run.settings.get(key) == trained.settings.get(key) for key in ("checkpoint", "seed", *keys))


def read_config(folder: Path) -> dict[str, Any]:
    """The config as Hydra wrote it down; empty where it did not."""
    return read_yaml(folder / ".hydra" / "config.yaml") or {}


def read_yaml(file: Path) -> Any:
    """A YAML file's content; None where it is missing or cut short."""
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None


def read_curves(file: Path, summary: dict[str, Any]) -> dict[str, list[Point]]:
    """Validation and training ELBO from a ``metrics.csv``, where it has them.

    Its rows count steps and epochs from 0. A validation amid an epoch gets the fraction of it that was trained. How
    many steps an epoch has, the run's summary knows; without one, the longest epoch of the file counts as whole.
    """
    if not file.exists():
        return {}
    with file.open(encoding="utf-8", newline="") as text:
        rows = [row for row in csv.DictReader(text) if row.get("epoch") and row.get("step")]
    places = [(int(row["step"]) + 1, int(row["epoch"]) + 1) for row in rows]
    curves = {}
    for split in ("val", "train"):
        found = [(*place, row.get(f"{split}/elbo")) for place, row in zip(places, rows, strict=True)]
        marks = [(step, epoch, float(cell)) for step, epoch, cell in found if cell and math.isfinite(float(cell))]
        longest = max((step / epoch for step, epoch, _ in marks), default=1.0)  # as at the ends of epochs
        per_epoch = summary["steps"] / summary["epochs"] if summary.get("epochs") else longest
        curves[split] = [Point(step / per_epoch, step, elbo) for step, _, elbo in marks]
    return curves


def read_pictures(folder: Path) -> dict[str, Path]:
    """The newest picture of each kind, from files such as ``samples-0010.png`` and ``samples-0000.035.png``."""
    newest: dict[str, Path] = {}
    for file in sorted(folder.glob("*-*.png"), key=lambda file: drawn_at(file) or 0.0):
        newest[file.stem.rpartition("-")[0]] = file
    order = [*PICTURES, *sorted(newest.keys() - set(PICTURES))]
    return {kind: newest[kind] for kind in order if kind in newest}


def drawn_at(file: Path) -> float | None:
    """The epochs of training after which a picture was drawn, as its name says; None if it does not."""
    with suppress(ValueError):
        return float(file.stem.rpartition("-")[2])
    return None


def natural(path: Path) -> list[Any]:
    """A key by which job 10 comes after job 9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dicts, by dotted key; a list is a value, as text."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, json.dumps(node) if isinstance(node, list) else node


def number(text: str) -> Any:
    """A word of a command as a number, if it is one."""
    for kind in (int, float):
        with suppress(ValueError, OverflowError):
            value = kind(text)
            return value if math.isfinite(value) else text
    return text


def by_dimension(name: str) -> bool:
    """Whether a test number is one of many, such as ``kl_dim/000``."""
    return "/" in name and name.rpartition("/")[2].isdigit()
