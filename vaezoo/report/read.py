"""Read runs from their folders."""

import csv
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vaezoo.errors import ConfigError
from vaezoo.old_names import update_config, update_override
from vaezoo.report.columns import COST, SAMPLE_METRICS
from vaezoo.runs.folder import JOB_FILE, RunFolder, short_error
from vaezoo.runs.overrides import relevant_overrides

TASKS = ("fit", "evaluate")  # whose folders are runs; a report's own is none
PARTS = ("model", "data", "optimizer", "scheduler", "trainer", "callbacks")  # of a config, that a result depends on
# Keys that set no variant apart.
PLUMBING = {"task", "run", "run_dir", "seed", "resume", "logger", "debug", "trust", "allow_packages", "threads"}
PICTURES = ("reconstructions", "samples", "traversals", "manifold", "scatter")  # in this order, then any other
RENAMED = {f"{name}_ceiling": f"{name}_reference" for name in SAMPLE_METRICS}  # in summaries of older versions


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
        return short_error(self.summary.get("error") or self.summary.get("status", "not finished"))

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
        asked = {folder.resolve(): job["overrides"] for folder, job in RunFolder(path).read_jobs().items()}
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
    summary = RunFolder(folder).read_summary()
    config = summary.get("config") or read_config(folder)
    task = summary.get("task") or str((config.get("task") or {}).get("_target_", "fit")).rpartition(".")[2]
    begun = any((folder / part).exists() for part in ("metrics.csv", "checkpoints", JOB_FILE))
    if task not in TASKS or (summary.get("status") == "failed" and not begun):
        return None
    origin = home(summary) or folder
    if task == "evaluate" and config.get("run"):  # one that did not complete knows of itself alone
        origin = Path(config["run"]).resolve()
        origin = origin.parent.parent if origin.is_file() else origin
        config = RunFolder(origin).read_summary().get("config") or read_config(origin)
        summary.pop("model", None)
    hydra = origin / ".hydra"
    if overrides is None or origin != folder:
        overrides = read_yaml(hydra / "overrides.yaml") or []
    runtime = (read_yaml(hydra / "hydra.yaml") or {}).get("hydra", {}).get("runtime", {})
    choices = runtime.get("choices", {})
    return Run(
        folder, relevant_overrides(map(update_override, overrides)), summary, choices, update_config(config),
        read_curves(origin / "metrics.csv", summary if origin == folder else RunFolder(origin).read_summary()),
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
