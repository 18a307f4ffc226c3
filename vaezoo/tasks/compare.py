"""The task ``compare``: train several models with several seeds, evaluate them and write one comparison."""

import csv
import io
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from lightning.pytorch.loggers import WandbLogger

from vaezoo import seeding
from vaezoo.error_messages import describe_error
from vaezoo.errors import ConfigError
from vaezoo.evaluation.base import EvaluationSettings
from vaezoo.evaluation.groups import select_groups
from vaezoo.evaluation.udr import add_udr
from vaezoo.loggers import call_or_disable
from vaezoo.report import Run, read_runs, write_figures, write_report
from vaezoo.report.statistics import compare as compare_runs
from vaezoo.report.table_files import write_tables
from vaezoo.report.tables import as_csv, live_status_table, print_comparison
from vaezoo.runs.comparison import ComparisonJob, comparison_job, compose_config, to_override, training_overrides
from vaezoo.runs.folder import JOB_FILE, RunFolder
from vaezoo.runs.jobs import Jobs, program_command
from vaezoo.runs.setup import build_run, open_loggers
from vaezoo.runs.shares import divide_machine
from vaezoo.runs.signals import Stopped
from vaezoo.runs.summary import write_summary
from vaezoo.runs.trained import is_own_data


def compare(config: dict[str, Any], models: list, seeds: Any, metrics: str | list, **options: Any) -> None:
    """Train each model with each seed, evaluate all runs and write one comparison.

    Each training is a job of its own under ``runs/``, its evaluation another one under ``evaluations/``.
    Several models and seeds run at the same time (``jobs``). ``resume=auto`` runs what is missing. A job that fails is
    a row with the reason. The folder then has ``comparison.csv``, ``comparison.md``, ``comparison.tex``,
    ``report.html`` and ``figures/``.

    Args:
        config: the resolved config.
        models: names of configs in conf/model, each with further overrides if any.
        seeds: how many seeds, from 0, or a list of seeds.
        metrics: as in ``evaluate``.
        **options: as in ``evaluate``.

    Raises:
        ConfigError: no models or seeds, a setting that cannot be built, or ``jobs`` is neither an integer >= 1 nor
            "auto".
        ChildProcessError: a job failed. The comparison is written all the same.
    """
    seeds = checked_seeds(models, seeds)
    EvaluationSettings(**options).check()  # fail now, not after each training
    groups = select_groups(metrics)
    shared, folder, start = training_overrides(), Path(config["run_dir"]), time.perf_counter()
    command = program_command(HydraConfig.get())
    jobs = Jobs(folder, command, bool(config["resume"]), group=f"compare-{folder.name}")
    asked = [f"task.{key}={to_override(value)}" for key, value in {"metrics": metrics, **options}.items()]
    members = [comparison_job(folder, str(model), seed, shared, asked) for seed in seeds for model in models]
    configs = check_models(members[: len(models)])
    run_jobs(jobs, members, divide_machine(config["jobs"], configs, len(members), folder / ".training"))
    title = f"{', '.join(map(str, models))} on {describe_place(config)}"
    if "disentanglement" in groups and jobs.stop_signal is None:
        add_udr(read_runs(started_places(members)), folder / "evaluations", config["allow_packages"])
    print("all jobs have ended: writing the report", flush=True)
    runs = read_members(members, configs)
    write_tables(runs, title, folder)
    write_report(runs, folder / "report.html", title)
    write_figures(runs, folder / "figures")
    for comparison in compare_runs(runs):
        print_comparison(comparison)
    print(f"report: {folder / 'report.html'}, table: {folder / 'comparison.md'}, numbers: {folder / 'comparison.csv'}")
    if jobs.stop_signal is not None:
        raise Stopped(jobs.stop_signal)
    log_table(config, runs)
    failed = [member for member in members if not member.completed]
    if failed:
        first = f"{next(iter(failed[0].stages)).name}: {failed[0].failure}"
        raise ChildProcessError(f"{len(failed)} of {len(members)} jobs failed, the first is {first}")
    write_summary(config, task="compare", wall_seconds=round(time.perf_counter() - start, 2))


def read_members(members: Sequence[ComparisonJob], configs: Sequence[dict[str, Any]]) -> list[Run]:
    """Read the runs of all jobs. A training or an evaluation that a signal has kept from starting is named as such.

    Args:
        members: the models and seeds, all models of the first seed first.
        configs: the config of each model.
    """
    runs = {run.folder: run for run in read_runs(started_places(members))}
    for member, config in zip(members, cycle(configs), strict=False):
        training, evaluation = (place.resolve() for place in member.stages)
        if not (training / JOB_FILE).exists():
            runs[training] = Run(training, next(iter(member.stages.values())), {"status": "not started"})
        run = runs.get(training)
        if run is not None:
            run.config = run.config or config | {"seed": member.seed}
            if run.completed and not (evaluation / JOB_FILE).exists():
                run.evaluation = "evaluation not started"
    return [replace(run, resumable=True) for run in runs.values()]


def started_places(members: Sequence[ComparisonJob]) -> list[Path]:
    """Return the folders of the trainings and evaluations that have started."""
    return [place for member in members for place in member.stages if (place / JOB_FILE).exists()]


def describe_place(config: dict[str, Any]) -> str:
    """Return the choice of data and, if they are the user's own, the name of their file or folder."""
    choice, data = str(HydraConfig.get().runtime.choices["data"]), config["data"]
    place = data.get("path") or data.get("root")
    return f"{choice} {Path(str(place)).resolve().name}" if place and is_own_data(config) else choice


def checked_seeds(models: Any, seeds: Any) -> list[int]:
    """The list of seeds, after models and seeds have been checked.

    Raises:
        ConfigError: one of both is empty, not a list, has a value twice, or a seed is no integer >= 0.
    """
    seeds = list(range(seeds)) if type(seeds) is int else seeds
    for name, value in {"models": models, "seeds": seeds}.items():
        if not isinstance(value, list) or not value or len(set(value)) < len(value):
            raise ConfigError(
                f"{name}={value} should name one or more, each once: task=compare 'models=[mlp_vae,iwae]' seeds=3"
            )
    if wrong := [seed for seed in seeds if type(seed) is not int or seed < 0]:
        raise ConfigError(f"seeds={seeds}: expected a count or a list of integers >= 0, got {wrong[0]!r}")
    return seeds


def check_models(members: Sequence[ComparisonJob]) -> list[dict[str, Any]]:
    """Build every model before any is trained, to fail early, and return the configs of their trainings.

    Raises:
        ConfigError: a model or its overrides are wrong.
    """
    configs = []
    for member in members:
        with seeding.isolated(torch.device("cpu"), 0, "compare"):
            overrides = next(iter(member.stages.values()))
            try:
                configs.append(compose_config(overrides))
                build_run(configs[-1])
            except (HydraException, ValueError) as error:
                raise ConfigError(f"{member.model}: {describe_error(error, overrides)}") from error
    return configs


def run_jobs(jobs: Jobs, members: Sequence[ComparisonJob], shares: Sequence[Mapping[str, str]]) -> None:
    """Run the stages that have not completed, with a live table on the terminal.

    Args:
        jobs: what runs them.
        members: their models and seeds. The stages of each run one after another.
        shares: environment variables of as many jobs as run at the same time.
    """
    jobs.log = True
    known = {place: jobs.find(overrides) for member in members for place, overrides in member.stages.items()}

    def run(member: ComparisonJob, share: Mapping[str, str]) -> None:
        for place, overrides in member.stages.items():
            number, found = known[place]
            restart = [] if found else ["resume=null"]  # the folder may hold an evaluation with other settings
            if jobs.stop_signal is None and not (found and jobs.is_complete(found)):
                job_folder = jobs.create_folder(number, overrides, str(place.relative_to(jobs.folder)))
                jobs.run([*overrides, *restart], job_folder, share)
            if not RunFolder(place).is_completed:
                break

    with closing(jobs), jobs.forwarding_signals(), live_status_table(members) as console:
        for member in jobs.run_all(run, members, shares):
            if not console.is_terminal:
                console.print("  ".join(member.status()))


def log_table(config: dict[str, Any], runs: Sequence[Run]) -> None:
    """Log the runs as a W&B table, if W&B is the logger."""
    with open_loggers(config) as loggers:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                heads, *lines = csv.reader(io.StringIO(as_csv(runs, Path(config["run_dir"]))))
                call_or_disable(logger, logger.log_table, "comparison", columns=heads, data=lines)
