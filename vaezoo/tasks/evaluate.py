"""Test a trained run again, and measure all that its model and data allow: the same call, the same digits."""

import math
import time
from typing import Any

import torch
from tqdm import tqdm

from vaezoo.errors import ConfigError
from vaezoo.evaluation.base import Settings
from vaezoo.evaluation.groups import GROUPS, named
from vaezoo.metrics.quantities import QUANTITIES
from vaezoo.report.tables import print_results
from vaezoo.runs.setup import test
from vaezoo.runs.summary import write_summary
from vaezoo.runs.trained import open_run


def evaluate(
    config: dict[str, Any],
    num_samples: int = 5000,
    num_images: int | None = 1000,
    metrics: str | list = "all",
    annealed: int = 0,
    outliers: str | None = None,
    inception: str | None = None,
) -> None:
    """Test the best checkpoint of ``run``, on the data and with the settings of its own config.

    What the command line says of data and trainer goes before the run's config: a choice
    (``data=fashion_mnist``, ``trainer=cpu``) replaces it, a key (``data.root=...``) is set in it. A group of
    metrics that the model or the data does not allow is left out, with the reason.

    Args:
        config: the resolved config.
        num_samples: K, importance samples of each test image for log p(x); 0 leaves it out.
        num_images: so many of the test set, evenly spaced, for what is costly: log p(x), anomalies; null for all.
        metrics: names of groups (``vaezoo.evaluation.groups``), or all.
        annealed: of so many test images, log p(x) by annealed importance sampling too (minutes); 0 leaves it out.
        outliers: a config of conf/data whose images the model has not been trained on.
        inception: file of Inception's weights, by whose features samples are then judged.
    """
    settings = Settings(num_samples, num_images, annealed, outliers, inception, config["compile"]).check()
    names = named(metrics)
    start = time.perf_counter()
    run = open_run(config)
    values = dict(test(run.trainer, run.model, run.data))
    if torch.distributed.is_initialized():  # what follows is one process's: no metric may wait for the others
        torch.distributed.destroy_process_group()
    if not run.trainer.is_global_zero:
        return
    run.model.to(run.trainer.strategy.root_device)  # Lightning leaves it on the CPU
    quantities, left_out = dict(QUANTITIES), {}
    notes: list[str] = []
    for name in (bar := tqdm(names, leave=False, disable=None)):
        bar.set_description(name)
        try:
            found = GROUPS[name](run, settings)
            broken = [key for key, value in found.values.items() if not math.isfinite(value)]
            values |= {key: value for key, value in found.values.items() if key not in broken}
            notes += [f"{', '.join(broken)} left out: not a finite number"] if broken else []
            quantities |= found.quantities
            notes += [found.note] if found.note not in ("", *notes) else []
        except ConfigError:
            raise
        except ValueError as reason:  # DoesNotApply, or numbers that a metric cannot be had of, as a diverged model's
            left_out[name] = str(reason)
    seconds = round(time.perf_counter() - start, 2)
    origin = {"checkpoint": str(run.path), "data": type(run.data).__name__, "scored": run.log_likelihood_kind}
    said = {"left_out": left_out, "notes": notes, "wall_seconds": seconds}
    write_summary(run.config, quantities, task="evaluate", **origin, test=values, **said)
    notes += [f"left out: {name} ({reason})" for name, reason in left_out.items()]
    title = run.title(f"test set, log p of {run.log_likelihood_kind}")
    print_results(title, values, quantities, [*notes, f"run folder: {config['run_dir']}"])
