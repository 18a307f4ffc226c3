"""The jobs of a comparison: a training and an evaluation for each model and seed."""

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from vaezoo.errors import ConfigError
from vaezoo.runs.folder import JOB_FILE, RunFolder, short_error
from vaezoo.runs.jobs import unresolved_overrides
from vaezoo.runs.overrides import quote

OWN_KEYS = ("task", "models", "seeds", "jobs", "resume", "run_dir")  # of the comparison itself, not of its trainings


class ComparisonJob(NamedTuple):
    """A model with a seed: its training and then its evaluation.

    Args:
        model: name of a config in conf/model, with further overrides if any.
        seed: the seed.
        stages: the folder of each of both, with the overrides of its command.
    """

    model: str
    seed: int
    stages: dict[Path, list[str]]

    @property
    def completed(self) -> bool:
        """Return whether both stages have completed."""
        return all(RunFolder(folder).is_completed for folder in self.stages)

    @property
    def failure(self) -> str:
        """Why the job did not complete."""
        errors = [error for folder in self.stages if (error := RunFolder(folder).read_summary().get("error"))]
        return short_error(errors[0]) if errors else "not finished"

    def status(self) -> list[str]:
        """Model, seed, status and test ELBO, for the live table."""
        training, evaluation = self.stages
        fit, test = RunFolder(training).read_summary(), RunFolder(evaluation).read_summary()
        started = "training" if (training / "metrics.csv").exists() else "waiting"
        error = test.get("error") or fit.get("error")
        finished = "evaluating" if (evaluation / JOB_FILE).exists() else "trained"
        status = short_error(error) if error else test.get("status") or (finished if fit else started)
        elbo = fit.get("test", {}).get("elbo")
        return [self.model, str(self.seed), status, "" if elbo is None else f"{elbo:.2f}"]


def comparison_job(folder: Path, model: str, seed: int, shared: list[str], options: list[str]) -> ComparisonJob:
    """Define the job of a model and a seed.

    Args:
        folder: the comparison's folder.
        model: name of a config in conf/model, with further overrides if any.
        seed: the seed.
        shared: overrides of all trainings.
        options: overrides of all evaluations.
    """
    family, *own = shlex.split(model)
    name = re.sub(r"[^\w.=-]+", "-", f"{model}-seed{seed}")
    training, evaluation = folder / "runs" / name, folder / "evaluations" / name
    machine = [
        text for text in shared if re.match(r"(allow_packages|threads|trainer\.accelerator|trainer\.devices)=", text)
    ]
    fit = [f"model={family}", *own, f"seed={seed}", *shared]
    test = ["task=evaluate", f"run={quote(training.resolve())}", *options, *machine]
    return ComparisonJob(model, seed, {training: fit, evaluation: test})


def training_overrides() -> list[str]:
    """The overrides on the command line that are meant for each training.

    Raises:
        ConfigError: an override that the comparison sets itself.
    """
    overrides = unresolved_overrides(HydraConfig.get().overrides.task)  # each job has its own ${run_dir}
    shared = [text for text in overrides if not re.match(rf"[~+]*({'|'.join(OWN_KEYS)})[.=@]", text)]
    for text in shared:
        if re.match(r"(model|seed)=", text):
            name, _, value = text.partition("=")
            raise ConfigError(f"{text}: task=compare takes a list: use '{name}s=[{value}]'")
        if text.startswith("run="):
            raise ConfigError(f"{text}: task=compare trains its own runs; task=report runs=PATH compares existing ones")
    return shared


def to_override(value: Any) -> str:
    """A setting as the value of a Hydra override."""
    if isinstance(value, list):
        return f"[{','.join(map(to_override, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}: {to_override(item)}' for key, item in value.items())}}}"
    return "null" if value is None else quote(value) if isinstance(value, str) else str(value)


def compose_config(overrides: list[str]) -> dict[str, Any]:
    """Compose the resolved config of a job."""
    config: Any = OmegaConf.to_container(compose("config", overrides), resolve=True)
    return config
