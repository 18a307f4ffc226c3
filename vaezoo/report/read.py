"""Read runs from their folders."""

import csv
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, reduce
from operator import or_
from pathlib import Path
from typing import Any, NamedTuple

from hydra.errors import HydraException

from vaezoo.errors import ConfigError
from vaezoo.metrics.latent import collapse_note
from vaezoo.metrics.quantities import BOUNDS, QUANTITIES, Quantity
from vaezoo.old_names import update_config, update_override
from vaezoo.runs.folder import JOB_FILE, RunFolder, short_error
from vaezoo.runs.overrides import by_key, get_value, relevant_overrides

TASKS = ("fit", "evaluate")  # tasks whose folders are runs; the folder of a report is not a run
PARTS = ("model", "data", "optimizer", "scheduler", "trainer", "callbacks")  # parts of a config that affect results
# Keys that make no difference between variants.
IGNORED_KEYS = {"task", "run", "run_dir", "seed", "resume", "logger", "debug", "allow_packages", "threads"}
PICTURES = ("reconstructions", "samples", "traversals", "manifold", "scatter")  # in this order, then all others
TEXTS, TEXT_LENGTH, SOUNDS = 8, 200, 3  # generated examples of a run that are shown, and letters of a text
CONTINUE = "The same command with resume=auto completes what is missing"
ENDS = ("interrupted by", "killed by", "ended with", "not ")  # of reasons that are no error of the run itself
# Older summaries have NAME_ceiling for these; now it is NAME_reference.
OLD_CEILINGS = ("fid", "kid", "precision", "recall", "density", "coverage")


class Point(NamedTuple):
    """A point of a curve.

    Args:
        epoch: epochs trained.
        step: optimizer steps trained.
        elbo: the ELBO, nats per example.
        kl: the KL, nats per example; None if it was not logged.
    """

    epoch: float
    step: int
    elbo: float
    kl: float | None = None


@dataclass
class Run:
    """A run as its folder describes it: its command, its config and its results.

    Args:
        folder: the run's folder.
        overrides: overrides of its command.
        summary: its ``summary.json``; empty if there is none.
        choices: the choice of each config group, as Hydra recorded it.
        config: its config; resolved if the run wrote a summary.
        curves: the ELBO over training, for "val" and "train".
        pictures: the newest picture of each kind.
        texts: texts that it generated, of the newest ``task=sample``.
        sounds: sounds that it generated, of the newest ``task=sample``.
        evaluated: the folder of the run that it evaluates, if it is an evaluation that did not complete.
        evaluation: what became of an evaluation of this run that did not complete; empty if there is none.
        resumable: whether the same command with ``resume=auto`` completes it: it is in a comparison.
    """

    folder: Path
    overrides: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[Point]] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    sounds: list[Path] = field(default_factory=list)
    evaluated: Path | None = None
    evaluation: str = ""
    resumable: bool = False

    @property
    def completed(self) -> bool:
        """Return whether the run ended and has test numbers."""
        return self.summary.get("status") == "completed" and "test" in self.summary

    @property
    def failure(self) -> str:
        """Why the run did not complete; of an evaluation, it begins with that word."""
        reason = short_error(self.summary.get("error") or self.summary.get("status", "not finished"))
        if self.evaluated is None:
            return reason
        return f"evaluation {reason}" if reason.startswith(ENDS) else f"evaluation failed: {reason}"

    @property
    def status(self) -> str:
        """The word "completed", or what did not complete and why: the run, or the evaluation of a completed run."""
        return (self.evaluation or "completed") if self.completed else self.failure

    @property
    def verdict(self) -> str:
        """Sentence on unused dimensions, of the evaluation or from the KL; empty if the model uses its latent space."""
        found = self.summary.get("verdict")
        if found is None:
            return old_verdict(self.summary.get("notes", [])) or collapse_note(self.test.get("kl", math.inf))
        return str(found["text"]) if found["collapsed"] or found["mostly_unused"] else ""

    @property
    def collapsed(self) -> bool:
        """Return whether the posterior has collapsed: the decoder ignores z."""
        return self.verdict.startswith("posterior collapse")

    @cached_property
    def overrides_by_key(self) -> dict[str, Any]:
        """Values that the command set."""
        pairs = (override.lstrip("+~").partition("=")[::2] for override in self.overrides)
        return {key: parse_number(value) for key, value in pairs}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings that may affect the result, by key: choices of groups, then values of the config."""
        parts = {part: self.config[part] for part in PARTS if part in self.config}
        folders = [str(self.config.get("run_dir", self.folder)), str(training_folder(self.summary) or self.folder)]
        values = {
            key: value
            for key, value in leaves(parts)
            if key != "data.root" and "${" not in str(value) and not any(folder in str(value) for folder in folders)
        }
        name = self.summary.get("model") or self.choices.get("model") or self.overrides_by_key.get("model", "")
        known = {"model": name, "data": self.data, "seed": self.seed}
        settings = self.choices | self.overrides_by_key | values | known
        checkpoint = Path(self.summary.get("checkpoint", "best.ckpt")).name
        return settings if checkpoint == "best.ckpt" else settings | {"checkpoint": checkpoint}

    @property
    def noun(self) -> str:
        """The word for one example of its data."""
        return str(self.summary.get("noun", "image"))  # older summaries are all of images

    @property
    def model(self) -> str:
        """Name of the model's config."""
        return self.settings["model"]

    @property
    def seed(self) -> Any:
        """Seed of the training."""
        return self.config.get("seed", self.summary.get("seed", self.overrides_by_key.get("seed", 0)))

    @property
    def data(self) -> str:
        """Class name of the data module."""
        target = (self.config.get("data") or {}).get("_target_", self.summary.get("data", ""))
        return str(target).rpartition(".")[2] or str(self.overrides_by_key.get("data", ""))

    @property
    def elbo_kind(self) -> str:
        """The data and what log p is of (bits, levels or a density). ELBOs of different kinds cannot be compared."""
        data = self.config.get("data") or {}
        shape = "x".join(map(str, data.get("shape", ())))
        binarize = data.get("binarize", "none")
        drawn = "" if binarize == "none" else f"{binarize} binarization"
        if drawn and data.get("split_seed"):  # another seed draws other bits
            drawn += f" {data['split_seed']}"
        test_set = self.summary.get("test_set")  # of data of the user, which have no published one
        examples = f"test set {test_set}" if test_set else ""
        scored = self.summary.get("scored", "unknown")
        return ", ".join(filter(None, (f"{self.data} {shape}".strip(), examples, drawn, f"log p of {scored}")))

    @property
    def test(self) -> dict[str, float]:
        """All test numbers, by their present names."""
        test = self.summary.get("test", {})
        old = {f"{name}_ceiling": f"{name}_reference" for name in OLD_CEILINGS}
        return {old.get(name, name): float(value) for name, value in test.items() if isinstance(value, int | float)}

    @cached_property
    def numbers(self) -> dict[str, float]:
        """Test numbers and costs, each a scalar."""
        test = {name: value for name, value in self.test.items() if not is_per_dimension(name)}
        if "log_px" in test:
            test["distortion"] = -test["log_px"]
        memory = self.summary.get("peak_memory_mb") or {}
        values = self.summary | {"peak_memory_mb": memory.get("gpu", memory.get("process"))}
        costs = [name for name, quantity in QUANTITIES.items() if quantity.column == "cost"]
        return test | {name: float(values[name]) for name in costs if values.get(name) is not None}

    @property
    def per_dimension(self) -> dict[str, list[float]]:
        """Test numbers with one value for each latent dimension, such as ``kl_dim/000``."""
        values: dict[str, list[float]] = {}
        for name, value in sorted(self.test.items()):
            if is_per_dimension(name):
                values.setdefault(name.rpartition("/")[0], []).append(value)
        return values

    @cached_property
    def quantities(self) -> dict[str, Quantity]:
        """The quantities of the run, as ``units`` in the summary describes them."""
        units = self.summary.get("units", {})
        described = {*QUANTITIES, *(name for name, value in units.items() if isinstance(value, dict))}
        old = {name for name in (*self.numbers, *units) if not name.endswith(("_error", *BOUNDS))} - described
        known = known_quantities() if old else QUANTITIES
        return known | {name: Quantity.from_json(value, known.get(name)) for name, value in units.items()}


def has_resumable(runs: Iterable[Run]) -> bool:
    """Return whether ``resume=auto`` completes any of the runs or its evaluation."""
    return any(run.resumable and run.status != "completed" for run in runs)


def old_verdict(notes: Sequence[str]) -> str:
    """The verdict among the notes of a summary of an older version, which has no key for it."""
    phrases = ("posterior collapse", " dimensions are unused")
    return next((note for note in notes if any(phrase in note for phrase in phrases)), "")


@cache
def known_quantities() -> dict[str, Quantity]:
    """The package's own entries, for summaries of older versions, whose ``units`` have neither labels nor columns."""
    from vaezoo.metrics import disentanglement, latent, probes, samples

    tables = (latent.QUANTITIES, probes.QUANTITIES, samples.QUANTITIES, disentanglement.QUANTITIES, disentanglement.UDR)
    return reduce(or_, tables, QUANTITIES)


def read_runs(paths: Iterable[Path]) -> list[Run]:
    """Read the runs in folders: a run's own folder, a sweep's, or any folder above them.

    An evaluation adds its test numbers to the run that it evaluated, if that is among them, the checkpoint is the best
    one and the data are the run's own. One that did not complete adds the reason. Any other evaluation is a run by
    itself, with the pictures and curves of the run that it evaluated.

    Raises:
        ConfigError: a folder does not exist or holds no run.
    """
    found: dict[Path, Run] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise ConfigError(f"runs={path} is not a folder: give a run's, such as outputs/DATE/TIME, or a sweep's")
        job_overrides = {folder.resolve(): job["overrides"] for folder, job in RunFolder(path).read_jobs().items()}
        folders = {file.parent for file in path.rglob("summary.json")}
        folders |= {file.parent.parent for file in path.rglob(".hydra/*.yaml")}
        here = {folder.resolve() for folder in folders} | set(job_overrides)
        ordered = sorted(here, key=natural_sort_key)
        runs = [run for folder in ordered if (run := read_or_skip(folder, job_overrides.get(folder)))]
        if not runs:
            raise ConfigError(f"runs={path} holds no run: give a folder with a summary.json in it or below it")
        found |= {run.folder: run for run in runs}
    return merge_evaluations(found)


def read_or_skip(folder: Path, overrides: list[str] | None) -> Run | None:
    """Read a run; None with a message on stderr if the folder's files are not what a run writes."""
    try:
        run = read_run(folder, overrides)
        if run is not None:
            copy = replace(run)  # on a copy: a later merge changes the summary, and cached values would be stale
            _ = copy.settings, copy.numbers, copy.quantities, copy.elbo_kind, copy.verdict
        return run
    except (ValueError, TypeError, AttributeError, LookupError, HydraException) as error:
        print(f"{folder} is left out: its files are not those of a run ({error})", file=sys.stderr)
        return None


def read_run(folder: Path, overrides: list[str] | None = None) -> Run | None:
    """Read a run's folder; None if it belongs to another task, or to a command that was refused."""
    summary = RunFolder(folder).read_summary()
    config = summary.get("config") or RunFolder(folder).read_config()
    task = summary.get("task") or str((config.get("task") or {}).get("_target_", "fit")).rpartition(".")[2]
    named = config.get("run")
    if not config and "task=evaluate" in (overrides or []):  # a job that was stopped before it recorded its config
        task, named = "evaluate", get_value(by_key(overrides or []), "run")
    started = any((folder / part).exists() for part in ("metrics.csv", "checkpoints", JOB_FILE))
    if task not in TASKS or (summary.get("status") == "failed" and not started):
        return None
    origin, evaluated = training_folder(summary) or folder, None
    if task == "evaluate" and named:  # an incomplete evaluation has no copy of the training's config
        origin = Path(named).resolve()
        origin = evaluated = origin.parent.parent if origin.is_file() else origin
        config = RunFolder(origin).read_summary().get("config") or RunFolder(origin).read_config()
        summary.pop("model", None)
    if overrides is None or origin != folder:
        overrides = RunFolder(origin).read_overrides() or []
    choices = RunFolder(origin).read_hydra().get("runtime", {}).get("choices", {})
    return Run(
        folder, relevant_overrides(map(update_override, overrides)), summary, choices, update_config(config),
        read_curves(origin / "metrics.csv", summary if origin == folder else RunFolder(origin).read_summary()),
        read_pictures(origin / "panels"), *read_generated(origin / "sample"), evaluated,
    )  # fmt: skip


def training_folder(summary: dict[str, Any]) -> Path | None:
    """The folder of the run that an evaluation tested; None for a training."""
    return Path(summary["checkpoint"]).resolve().parent.parent if "checkpoint" in summary else None


def merge_evaluations(runs: dict[Path, Run]) -> list[Run]:
    """Add evaluations to the runs that they evaluated, also if both have been moved since."""
    trainings = [run for run in runs.values() if training_folder(run.summary) is None and run.evaluated is None]
    merged: list[Run] = []
    for run in runs.values():
        found = [trained for trained in trainings if is_evaluation_of(run, trained)]
        found = found or [other for other in merged if is_evaluation_of(run, other)]
        if not found:
            merged.append(run)
            continue
        # If folders were moved and others took their names, the run that lies nearest to the evaluation is meant.
        nearest = max(found, key=lambda trained: len(os.path.commonpath([run.folder, trained.folder])))
        if run.evaluated is not None:
            nearest.evaluation = run.failure
            continue
        for name in ("test", "units"):
            nearest.summary[name] = nearest.summary.get(name, {}) | run.summary.get(name, {})
        nearest.summary["notes"] = run.summary.get("notes", [])
        if "verdict" in run.summary:
            nearest.summary["verdict"] = run.summary["verdict"]
    return merged


def is_evaluation_of(run: Run, trained: Run) -> bool:
    """Return whether ``run`` evaluates ``trained`` or, if that is an evaluation too, the same weights and images."""
    folder = run.evaluated or training_folder(run.summary)
    places = {trained.folder, Path(trained.config.get("run_dir", trained.folder)), training_folder(trained.summary)}
    if run.evaluated is not None:
        return trained.evaluated is None and run.evaluated in places
    both_completed = run.completed and trained.completed
    if folder is None or folder not in places or not both_completed or run.elbo_kind != trained.elbo_kind:
        return False
    keys = {key for key in (*run.settings, *trained.settings) if key.startswith(("model.", "optimizer.", "scheduler."))}
    return all(run.settings.get(key) == trained.settings.get(key) for key in ("checkpoint", "seed", *keys))


def read_curves(file: Path, summary: dict[str, Any]) -> dict[str, list[Point]]:
    """Read ELBO and KL on validation and training data from a ``metrics.csv``, if it exists.

    Its rows count steps and epochs from 0. A validation within an epoch is placed at the fraction that was trained. The
    summary gives the steps per epoch; without one, the longest epoch in the file counts as complete.
    """
    if not file.exists():
        return {}
    with file.open(encoding="utf-8", newline="") as text:
        rows = [row for row in csv.DictReader(text) if row.get("epoch") and row.get("step")]
    places = [(int(row["step"]) + 1, int(row["epoch"]) + 1) for row in rows]
    curves = {}
    for split in ("val", "train"):
        cells = [[finite(row.get(f"{split}/{name}")) for name in ("elbo", "kl")] for row in rows]
        found = [(*place, elbo, kl) for place, (elbo, kl) in zip(places, cells, strict=True) if elbo is not None]
        longest = max((step / epoch for step, epoch, _, _ in found), default=1.0)
        per_epoch = summary["steps"] / summary["epochs"] if summary.get("epochs") else longest
        curves[split] = [Point(step / per_epoch, step, elbo, kl) for step, _, elbo, kl in found]
    return curves


def finite(cell: str | None) -> float | None:
    """The number in a cell; None if the cell is empty or its number is not finite."""
    return float(cell) if cell and math.isfinite(float(cell)) else None


def read_pictures(folder: Path) -> dict[str, Path]:
    """Find the newest picture of each kind among files such as ``samples-0010.png`` and ``samples-0000.035.png``."""
    newest: dict[str, Path] = {}
    for file in sorted(folder.glob("*-*.png"), key=lambda file: drawn_at(file) or 0.0):
        newest[file.stem.rpartition("-")[0]] = file
    order = [*PICTURES, *sorted(newest.keys() - set(PICTURES))]
    return {kind: newest[kind] for kind in order if kind in newest}


def read_generated(folder: Path) -> tuple[list[str], list[Path]]:
    """Find the first texts and sounds that the newest ``task=sample`` of a run wrote."""
    newest = max(folder.glob("*/samples.npz"), default=folder / "none" / "samples.npz").parent
    texts = newest / "samples.txt"
    lines = texts.read_text(encoding="utf-8", errors="replace").splitlines() if texts.is_file() else []
    shown = [line if len(line) <= TEXT_LENGTH else f"{line[:TEXT_LENGTH]}…" for line in lines[:TEXTS]]
    return shown, sorted(newest.glob("samples-*.wav"), key=natural_sort_key)[:SOUNDS]


def drawn_at(file: Path) -> float | None:
    """The epochs of training before a picture was drawn, from its file name; None if the name has no number."""
    with suppress(ValueError):
        return float(file.stem.rpartition("-")[2])
    return None


def natural_sort_key(path: Path) -> list[Any]:
    """A sort key that puts job 10 after job 9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested dicts with their dotted keys; a list is one value, as text."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, json.dumps(node) if isinstance(node, list) else node


def parse_number(text: str) -> Any:
    """The number in a text; the text itself if it is none."""
    for kind in (int, float):
        with suppress(ValueError, OverflowError):
            value = kind(text)
            return value if math.isfinite(value) else text
    return text


def is_per_dimension(name: str) -> bool:
    """Return whether a test number is one of many, such as ``kl_dim/000``."""
    return "/" in name and name.rpartition("/")[2].isdigit()
