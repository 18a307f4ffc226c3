"""Models over seeds on one data set under one budget, in one table."""

import csv
import io
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from lightning.pytorch.loggers import WandbLogger
from omegaconf import OmegaConf
from rich.console import Console
from rich.live import Live
from rich.table import Table
from tqdm import tqdm

from vaezoo import seeding
from vaezoo.error_messages import describe_error
from vaezoo.errors import ConfigError
from vaezoo.evaluation.base import CODES, Settings
from vaezoo.evaluation.groups import named
from vaezoo.loggers import call_or_disable
from vaezoo.report import Run, read_runs, write_figures, write_report
from vaezoo.report.statistics import Variant
from vaezoo.report.statistics import compare as compare_runs
from vaezoo.report.tables import as_csv, markdown, print_comparison
from vaezoo.runs.checkpoint import find_checkpoint, read_checkpoint
from vaezoo.runs.folder import JOB_FILE, RunFolder, short_error, write_atomic
from vaezoo.runs.jobs import Jobs, program_command, unresolved_overrides
from vaezoo.runs.overrides import quote
from vaezoo.runs.setup import build_run, open_loggers
from vaezoo.runs.signals import Stopped
from vaezoo.runs.summary import write_summary
from vaezoo.runs.trained import load_run

OWN = ("task", "models", "seeds", "resume", "run_dir")


class Member(NamedTuple):
    """One model with one seed: its training and, after that, its evaluation."""

    model: str
    seed: int
    stages: dict[Path, list[str]]  # folder and words of each

    @property
    def completed(self) -> bool:
        """Whether both have ended well."""
        return all(RunFolder(place).is_completed for place in self.stages)

    @property
    def cause(self) -> str:
        """Why it is not completed."""
        errors = [error for place in self.stages if (error := RunFolder(place).read_summary().get("error"))]
        return short_error(errors[0]) if errors else "not finished"

    def line(self) -> list[str]:
        """Model, seed, where it stands, test ELBO."""
        training, evaluation = self.stages
        fit, test = RunFolder(training).read_summary(), RunFolder(evaluation).read_summary()
        begun = "in training" if (training / "metrics.csv").exists() else "waits"
        error = test.get("error") or fit.get("error")
        stands = short_error(error) if error else test.get("status") or ("trained" if fit else begun)
        elbo = fit.get("test", {}).get("elbo")
        return [self.model, str(self.seed), stands, "" if elbo is None else f"{elbo:.2f}"]


def compare(config: dict[str, Any], models: list, seeds: Any, metrics: str | list, **measured: Any) -> None:
    """Train each model with each seed, evaluate it, and lay it all side by side.

    Every training is a job of its own under ``runs/``, and its evaluation another one under ``evaluations/``.
    ``resume=auto`` runs what is missing. A job that fails is a row with its cause. What is left in the folder:
    ``comparison.csv``, ``comparison.md``, ``report.html`` and ``figures/``.

    Args:
        config: the resolved config.
        models: names of configs in conf/model, each with further words of its own, if any.
        seeds: how many, from 0, or a list of them.
        metrics, **measured: as in ``evaluate``.

    Raises:
        ConfigError: no models or seeds, or a word that each model or seed says by itself.
        ChildProcessError: jobs have failed; the table is written all the same.
    """
    seeds = list(range(seeds)) if type(seeds) is int else seeds
    for name, value in {"models": models, "seeds": seeds}.items():
        if not isinstance(value, list) or not value or len(set(value)) < len(value):
            raise ConfigError(
                f"{name}={value} should name one or more, each once: task=compare 'models=[mlp_vae,iwae]' seeds=3"
            )
    if wrong := [seed for seed in seeds if type(seed) is not int or seed < 0]:
        raise ConfigError(f"seeds={seeds} should be how many, or a list of whole numbers >= 0, and {wrong[0]} is none")
    Settings(**measured).check()  # now, not after each training
    asked = named(metrics)
    words, folder, start = passed_on(), Path(config["run_dir"]), time.perf_counter()
    jobs = Jobs(
        folder, program_command(HydraConfig.get()), bool(config["resume"]), group=f"compare-{folder.name}", log=True
    )
    asks = [f"task.{key}={plain_word(value)}" for key, value in {"metrics": metrics, **measured}.items()]
    members = [member(folder, str(model), seed, words, asks) for seed in seeds for model in models]
    for one in members[: len(models)]:  # what cannot be built is said now, not after hours
        with seeding.isolated(torch.device("cpu"), 0, "compare"):
            said = next(iter(one.stages.values()))
            try:
                build_run(plain_config(said))
            except (HydraException, ValueError) as error:
                raise ConfigError(f"{one.model}: {describe_error(error, said)}") from error
    with jobs.forwarding_signals(), shown(members) as console:
        for one in members:
            for place, said in one.stages.items():
                number, found = jobs.find(said)
                afresh = [] if found else ["resume=null"]  # what may be there is an evaluation with other settings
                if jobs.stop_signal is None and not (found and jobs.is_complete(found)):
                    jobs.run([*said, *afresh], jobs.create_folder(number, said, str(place.relative_to(folder))))
                if not RunFolder(place).is_completed:
                    break
            if not console.is_terminal:
                console.print("  ".join(one.line()))
    title = f"{', '.join(map(str, models))} on {HydraConfig.get().runtime.choices['data']}"
    places = [place for one in members for place in one.stages if (place / JOB_FILE).exists()]
    if "disentanglement" in asked and jobs.stop_signal is None:
        agreements(read_runs(places), folder / "evaluations", config["allow_packages"])
    runs = read_runs(places)
    write_atomic(folder / "comparison.csv", as_csv(runs, folder))
    write_atomic(folder / "comparison.md", markdown(runs, title, folder))
    write_report(runs, folder / "report.html", title)
    write_figures(runs, folder / "figures")
    for part in compare_runs(runs):
        print_comparison(part)
    print(f"report: {folder / 'report.html'}, table: {folder / 'comparison.md'}, numbers: {folder / 'comparison.csv'}")
    if jobs.stop_signal is not None:
        raise Stopped(jobs.stop_signal)
    log_table(config, runs)
    failed = [one for one in members if not one.completed]
    if failed:
        first = f"{next(iter(failed[0].stages)).name}: {failed[0].cause}"
        raise ChildProcessError(f"{len(failed)} of {len(members)} jobs failed, the first is {first}")
    write_summary(config, task="compare", wall_seconds=round(time.perf_counter() - start, 2))


def member(folder: Path, model: str, seed: int, words: list[str], asks: list[str]) -> Member:
    """A model, with words of its own, and a seed: the commands of its training and its evaluation."""
    family, *own = shlex.split(model)
    name = re.sub(r"[^\w.=-]+", "-", f"{model}-seed{seed}")
    training, evaluation = folder / "runs" / name, folder / "evaluations" / name
    machine = [
        word for word in words if re.match(r"(allow_packages|threads|trainer\.accelerator|trainer\.devices)=", word)
    ]
    fit = [f"model={family}", *own, f"seed={seed}", *words]
    test = ["task=evaluate", f"run={quote(training.resolve())}", *asks, *machine]
    return Member(model, seed, {training: fit, evaluation: test})


def agreements(runs: Sequence[Run], evaluations: Path, allow_packages: list[str]) -> None:
    """``agreement`` of every variant that allows it."""
    for part in compare_runs(runs):
        for variant in part.variants:
            try:
                agreement(variant, evaluations, allow_packages)
            except (ValueError, OSError) as error:  # a checkpoint or data that are gone, codes that are no numbers
                print(f"no UDR of {variant.label}: {error}", file=sys.stderr)


def agreement(variant: Variant, evaluations: Path, allow_packages: list[str]) -> None:
    """Write the UDR of a variant's runs, which takes several seeds, into the summaries of their evaluations."""
    from vaezoo.metrics import disentanglement

    summaries = {run.folder: RunFolder(evaluations / run.folder.name).read_summary() for run in variant.runs}
    runs = [run for run in variant.runs if summaries[run.folder].get("status") == "completed"]
    kls = [torch.tensor(run.bars.get("kl_dim", [])) for run in runs]
    if len(runs) < 2 or min(map(len, kls)) == 0:  # not one layer of independent dimensions
        return
    codes = []
    for run in tqdm(runs, f"UDR of {variant.label}", disable=None, leave=False):
        path = find_checkpoint(run.folder)
        trained = load_run(run.config | {"allow_packages": allow_packages}, path, read_checkpoint(path))
        codes.append(trained.codes("test", CODES)[0].flatten(1))
    for run, score in zip(runs, disentanglement.udr(codes, kls), strict=True):
        summary = summaries[run.folder]
        summary["test"] |= {"udr": score, "udr_ceiling": disentanglement.UDR_CEILING, "udr_models": float(len(runs))}
        summary["units"] |= disentanglement.UDR
        RunFolder(evaluations / run.folder.name).write_summary(summary)


def plain_word(value: Any) -> str:
    """A setting as the value of a Hydra override."""
    if isinstance(value, list):
        return f"[{','.join(map(plain_word, value))}]"
    return "null" if value is None else quote(value) if isinstance(value, str) else str(value)


def plain_config(words: list[str]) -> dict[str, Any]:
    """The config that a job's words make."""
    config: Any = OmegaConf.to_container(compose("config", words), resolve=True)
    return config


def log_table(config: dict[str, Any], runs: Sequence[Run]) -> None:
    """Log the runs as a W&B table, where W&B is the logger."""
    with open_loggers(config) as loggers:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                heads, *lines = csv.reader(io.StringIO(as_csv(runs, Path(config["run_dir"]))))
                call_or_disable(logger, logger.log_table, "comparison", columns=heads, data=lines)


def passed_on() -> list[str]:
    """The command line's words that are for each training."""
    said = unresolved_overrides(HydraConfig.get().overrides.task)  # ${run_dir} is that of each job
    words = [word for word in said if not re.match(rf"[~+]*({'|'.join(OWN)})[.=@]", word)]
    for word in words:
        if re.match(r"(model|seed)=", word):
            name, _, value = word.partition("=")
            raise ConfigError(f"{word}: a comparison takes several, say '{name}s=[{value}]'")
        if word.startswith("run="):
            raise ConfigError(f"{word} cannot be compared: task=report runs=PATH shows runs that are there")
    return words


@contextmanager
def shown(members: Sequence[Member]) -> Iterator[Console]:
    """A table of where each job stands, on a terminal, while a block runs."""

    def board() -> Table:
        table = Table("model", "seed", "stands", "test ELBO", title="test ELBO in nats per image", title_justify="left")
        for member in members:
            table.add_row(*member.line())
        return table

    console = Console(stderr=True, markup=False)
    with Live(get_renderable=board, refresh_per_second=1, console=console) if console.is_terminal else nullcontext():
        yield console
