"""The groups of metrics that ``task=evaluate`` measures: each passes the run's data through its model once more.

A group is a function of a trained run and the settings. It gives numbers, named in ``metrics.quantities``, and
a sentence on how they came about; or it raises ``DoesNotApply`` with the reason.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from tqdm import tqdm

from vaezoo.build import ConfigError
from vaezoo.data.base import Split
from vaezoo.evidence import Evidence, estimate
from vaezoo.tasks.trained import Trained

Found = tuple[dict[str, float], str]


class DoesNotApply(Exception):
    """Why a group of metrics cannot be had of this model on this data."""


class Settings(NamedTuple):
    """What the command line says of an evaluation: see ``tasks.evaluate.evaluate``."""

    num_samples: int
    num_images: int | None
    outliers: str | None
    compiled: bool

    def check(self) -> "Settings":
        """Itself, if it makes sense."""
        if self.num_samples < 0 or (self.num_images is not None and self.num_images < 1):
            raise ConfigError(
                f"task.num_samples must be >= 0 and task.num_images >= 1, got {self.num_samples} and {self.num_images}"
            )
        return self


def first(split: Split, num: int | None) -> Split:
    """The first ``num`` examples of a split, or all."""
    return split if num is None or num >= len(split.images) else split.select(torch.arange(num))


def likelihood(run: Trained, settings: Settings) -> Found:
    """log p(x) by importance sampling, with its error."""
    if not settings.num_samples:
        raise DoesNotApply("task.num_samples=0")
    found = log_p(run, settings)
    values = {"log_p": found.mean, "log_p_error": found.error, "log_p_draw_error": found.draw_error}
    return values, (
        f"log p(x) by {settings.num_samples:,} importance samples: {found.mean:.2f} ± {found.error:.2f} nats, the "
        f"standard error over {len(found.log_px):,} images ({found.draw_error:.3f} of it from the draws, of "
        f"which {found.ess.median():,.0f} count in the median image and {found.ess.min():,.0f} in the worst)"
    )


def log_p(run: Trained, settings: Settings) -> Evidence:
    """The importance-weighted bound of log p(x) for each test image, with a bar."""
    split = first(run.data.test, settings.num_images)
    parts, start = [], 0
    with tqdm(total=len(split.images), desc="log p(x)", disable=None) as bar:

        def progress(images: range) -> Iterator[int]:
            for image in images:
                yield image
                bar.update()

        for x, y in run.batches(split):
            found = estimate(
                run.model, x, y, settings.num_samples, first=start, compile=settings.compiled, progress=progress
            )
            parts.append(found)
            start += len(x)
    return Evidence(*map(torch.cat, zip(*parts, strict=True)))


GROUPS: dict[str, Callable[[Trained, Settings], Found]] = {"likelihood": likelihood}
