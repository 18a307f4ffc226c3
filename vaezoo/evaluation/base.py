"""Settings, results and helpers that all groups of metrics share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from vaezoo.errors import ConfigError, suggest
from vaezoo.metrics.quantities import Quantity
from vaezoo.types import Batch

if TYPE_CHECKING:
    from vaezoo.data import DataModule
    from vaezoo.metrics.latent import Verdict

CPU = torch.device("cpu")
CODES = 10_000  # training images whose codes are used to fit ex-post densities and probes
BATCH = 500  # images generated at a time


class EvaluationSettings(NamedTuple):
    """Options of an evaluation: those of ``tasks.evaluate.evaluate``, and whether models are compiled."""

    num_samples: int
    num_images: int | None
    annealed: int = 0
    outliers: str | None = None
    inception: str | None = None
    compiled: bool = False

    def check(self) -> EvaluationSettings:
        """Return the settings.

        Raises:
            ConfigError: a setting is out of range, or names data or a file that do not exist.
        """
        for name, least in {"num_samples": 0, "num_images": 2, "annealed": 0}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"task.{name} must be >= {least}, got {value}")
        if self.outliers is not None:
            compose_data_config(self.outliers)
        if self.inception is not None:
            from vaezoo.metrics.inception import Inception

            try:
                Inception(self.inception)
            except (ValueError, OSError, ImportError) as error:
                raise ConfigError(f"task.inception={self.inception}: {error}") from error
        return self


class EvaluationResult(NamedTuple):
    """The result of a group of metrics.

    Args:
        values: its numbers.
        quantities: what the numbers are; those that end in ``_error``, ``_ceiling`` or ``_reference`` need no entry.
        note: a sentence for the user, or nothing.
        verdict: whether the model uses its latent space, if the group judges it.
    """

    values: dict[str, float]
    quantities: dict[str, Quantity]
    note: str = ""
    verdict: Verdict | None = None


def with_start_index(batches: Iterable[Batch]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield each batch (x, y) with the index of its first example before it."""
    start_index = 0
    for x, y in batches:
        yield start_index, x, y
        start_index += len(x)


def context_noun(data: DataModule) -> str:
    """Return the word for what a conditional model is given beside x."""
    return "labels" if getattr(data, "condition", None) is None else "conditions"


def mean_with_error(name: str, values: Tensor) -> dict[str, float]:
    """The mean over images, and its standard error if there are several images."""
    mean = {name: float(values.mean())}
    return mean | {f"{name}_error": float(values.std()) / len(values) ** 0.5} if len(values) > 1 else mean


def compose_data_config(name: str) -> dict[str, Any]:
    """Compose the config of conf/data with this name.

    Raises:
        ConfigError: there is none.
    """
    from hydra import compose
    from hydra.errors import MissingConfigException
    from omegaconf import OmegaConf

    try:
        composed = compose("config", [f"data={name}"])
    except MissingConfigException as error:
        raise ConfigError(f"task.outliers={name} is not a choice, {suggest(name, error.options or [])}") from error
    config: Any = OmegaConf.to_container(composed.data, resolve=True)
    return config
