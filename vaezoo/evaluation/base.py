"""What the groups of metrics share: settings, results and passes over the data."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaezoo.errors import ConfigError, suggest
from vaezoo.metrics.quantities import Quantity
from vaezoo.types import Batch

CPU = torch.device("cpu")
CODES = 10_000  # training images whose codes samplers and probes are fitted to
BATCH = 500  # images made at a time


class Settings(NamedTuple):
    """What the command line says of an evaluation: see ``tasks.evaluate.evaluate``."""

    num_samples: int
    num_images: int | None
    annealed: int = 0
    outliers: str | None = None
    inception: str | None = None
    compiled: bool = False

    def check(self) -> "Settings":
        """Itself, if it makes sense."""
        for name, least in {"num_samples": 0, "num_images": 2, "annealed": 0}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"task.{name} must be >= {least}, got {value}")
        if self.outliers is not None:
            data_config(self.outliers)
        if self.inception is not None:
            from vaezoo.metrics.inception import Inception

            try:
                Inception(self.inception)
            except (ValueError, OSError, ImportError) as error:
                raise ConfigError(f"task.inception={self.inception}: {error}") from error
        return self


class Found(NamedTuple):
    """What a group found: its numbers by name, what each name means, and a sentence, or none."""

    values: dict[str, float]
    quantities: dict[str, Quantity]
    note: str = ""


def numbered(batches: Iterable[Batch]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Batches, each with the number of its first example."""
    first = 0
    for x, y in batches:
        yield first, x, y
        first += len(x)


def average(name: str, values: Tensor) -> dict[str, float]:
    """The mean over images with, of more than one, its standard error."""
    mean = {name: float(values.mean())}
    return mean | {f"{name}_error": float(values.std()) / len(values) ** 0.5} if len(values) > 1 else mean


def data_config(name: str) -> dict[str, Any]:
    """The config of conf/data with this name."""
    from hydra import compose
    from hydra.errors import MissingConfigException
    from omegaconf import OmegaConf

    try:
        composed = compose("config", [f"data={name}"])
    except MissingConfigException as error:
        raise ConfigError(f"task.outliers={name} is not a choice, {suggest(name, error.options or [])}") from error
    config: Any = OmegaConf.to_container(composed.data, resolve=True)
    return config
