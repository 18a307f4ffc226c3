"""The task ``impute``: fill the missing entries of examples with a trained model."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaezoo.errors import ConfigError
from vaezoo.evaluation.base import with_start_index
from vaezoo.inference.imputation import Imputation, impute
from vaezoo.missing import is_observed
from vaezoo.pictures import Display
from vaezoo.runs.trained import TrainedRun, open_run
from vaezoo.tasks.apply import describe_set, finish, save_picture


def impute_missing(config: dict[str, Any], split: str | None = None, num_samples: int = 1000, draws: int = 0) -> None:
    """Write the examples of a set with their missing entries filled in, in the form and the units of the data.

    A number becomes its expectation given the observed entries, and a category the most probable one. Draws of the
    missing entries given the observed ones are written beside it if they are asked for (multiple imputation).

    A part of a pair that is missing, such as a caption, is filled in as a whole (``data.hide``). If entries were hidden
    for an experiment (``data.holes``, ``data.hide``), the errors of what was filled in are reported, next to
    those of the training set's means and most frequent categories.

    Args:
        config: the resolved config.
        split: the set, as in ``open_run``.
        num_samples: K, importance samples of each example.
        draws: number of draws of all missing entries.
    """
    for name, value, least in (("num_samples", num_samples, 1), ("draws", draws, 0)):
        if type(value) is not int or value < least:
            raise ConfigError(f"{name}={value} should be an integer >= {least}")
    run = open_run(config, ("split", "num_samples", "draws", "seed"), split)
    require_missing(run)
    parts = []
    device = run.model.device
    is_category, groups = run.data.is_category.to(device), [group.to(device) for group in run.data.grouped_entries]
    settings = (num_samples, max(1, draws), config["seed"])
    for start_index, x, y in with_start_index(run.batches(run.chosen, what="impute")):
        parts.append(impute(run.model, x, y, is_category, *settings, start_index, groups))
    found = Imputation(torch.cat([p.best for p in parts]).cpu(), torch.cat([p.draws for p in parts], 1).cpu())
    folder = Path(config["run_dir"])
    files = run.data.save_filled(found.best, run.chosen, folder / "imputed")
    for number in range(draws):
        files += run.data.save_filled(found.draws[number], run.chosen, folder / f"imputed-{number + 1}")
    x = whole_set(run)
    display, shown = Display(run.data), slice(64)
    if display.can_draw(x):
        picture = display.pairs(x[shown], found.best[shown], f"inputs over imputations, {describe_set(run)}")
        files += save_picture(config, "imputed", picture)
    holes = ~is_observed(x)
    notes = [
        f"{int(holes.sum()):,} missing entries in {int(holes.flatten(1).any(1).sum()):,} of {len(x):,} "
        f"{run.data.noun}s are filled in"
    ]
    errors = run.data.imputation_errors(found.best, run.chosen)
    finish(run, config, "imputations", files, notes=notes, **({"errors": errors} if errors else {}))
    print("\n".join([*notes, *describe_errors(errors)]))


def require_missing(run: TrainedRun) -> None:
    """Raise a ConfigError if the model cannot leave out missing entries, or if none is missing."""
    if not run.model.likelihood.supports_missing:
        raise ConfigError(
            f"the model of {run.path} was trained without missing entries, so it cannot fill them in: train it on data "
            f"with missing entries, such as data.holes=0.2 of a table"
        )
    if reason := run.model.limits.get("impute"):
        raise ConfigError(f"the model of {run.path} cannot fill in missing entries: {reason}")
    if not run.data.has_missing:
        raise ConfigError(f"no entry of the {run.data.noun}s is missing, so there is nothing to fill in")


def whole_set(run: TrainedRun) -> Tensor:
    """Return the examples of the chosen set, as the model sees them, on the CPU."""
    return torch.cat([x.cpu() for x, _ in run.batches(run.chosen)])


def describe_errors(errors: dict[str, dict[str, float]]) -> list[str]:
    """Return the errors of imputed columns for people, a line each."""
    lines = ["hidden entries: error of the imputation, and of the training set's mean or most frequent category:"]
    for name, error in errors.items():
        lines.append(f"  {name}: {error['kind']} {error['model']:.4g}, {error['baseline']:.4g} ({error['num']:,})")
    return lines if errors else []
