"""The task ``impute``: fill the missing entries of examples with a trained model."""

from pathlib import Path
from typing import Any

import torch

from vaezoo.data.pairs import ImagePairs
from vaezoo.errors import ConfigError, count_noun
from vaezoo.evaluation.base import with_start_index
from vaezoo.evaluation.progress import example_progress
from vaezoo.inference.imputation import Imputation, impute
from vaezoo.missing import is_observed
from vaezoo.pictures import Display
from vaezoo.runs.rows import join_columns, write_rows
from vaezoo.runs.trained import TrainedRun, open_run
from vaezoo.tasks.apply import check_num, describe_run, describe_set, finish, first_column, save_picture


def impute_missing(
    config: dict[str, Any], split: str | None = None, num: int | None = None, num_samples: int = 1000, draws: int = 0
) -> None:
    """Write the examples of a set with their missing entries filled in, in the form and the units of the data; and, as
    the model sees them, with their keys, as ``imputed.npz``.

    A number becomes its expectation given the observed entries, and a category the most probable one. Draws of the
    missing entries given the observed ones are written beside it if they are asked for (multiple imputation).

    A part of a pair that is missing, such as a caption, is filled in as a whole (``data.hide``). If entries were hidden
    for an experiment (``data.holes``, ``data.hide``), the errors of what was filled in are reported, next to
    those of the training set's means and most frequent categories.

    Args:
        config: the resolved config.
        split: the set, as in ``open_run``.
        num: number of examples, evenly spaced over the set, at least 1; None: all.
        num_samples: K, importance samples of each example.
        draws: number of draws of all missing entries.
    """
    for name, value, least in (("num_samples", num_samples, 1), ("draws", draws, 0)):
        if type(value) is not int or value < least:
            raise ConfigError(f"{name}={value} should be an integer >= {least}")
    check_num(num)
    run = open_run(config, ("split", "num", "num_samples", "draws", "seed"), split)
    require_missing(run)
    x = torch.cat([x.cpu() for x, _ in run.batches(run.chosen, num)])
    found = fill_in(run, num, num_samples, max(1, draws), config["seed"])
    folder, which = Path(config["run_dir"]), run.places(run.chosen, num)
    files = run.data.save_filled(found.best, run.chosen, which, folder / "imputed")
    for number in range(draws):
        files += run.data.save_filled(found.draws[number], run.chosen, which, folder / f"imputed-{number + 1}")
    drawn = {"draws": found.draws.movedim(0, 1)} if draws else {}
    columns = join_columns(run.keys(num), run.data.to_arrays(found.best) | drawn)
    files += [write_rows(folder / "imputed", columns, "npz")]
    display, shown = Display(run.data), slice(64)
    if display.can_draw(x):
        picture = display.pairs(
            x[shown],
            found.best[shown],
            "inputs with missing entries, and below each the input with these entries filled in",
            f"{describe_run(run)}, {describe_set(run)}",
            "imputed",
            first_column(run.keys(num))[shown],
        )
        files += save_picture(config, "imputed", picture)
    holes = ~is_observed(x)
    notes = [
        f"{run.data.count_holes(holes)} in {int(holes.flatten(1).any(1).sum()):,} of {len(x):,} "
        f"{run.data.noun}s are filled in"
    ]
    errors = run.data.imputation_errors(found.best, run.chosen, which)
    finish(run, config, "imputations", files, notes=notes, **({"errors": errors} if errors else {}))
    print("\n".join([*notes, *describe_errors(errors)]))


def fill_in(run: TrainedRun, num: int | None, num_samples: int, num_draws: int, seed: int) -> Imputation:
    """Return the examples of the chosen set without missing entries, on the CPU.

    Args:
        run: the trained run.
        num: number of examples, evenly spaced; None: all.
        num_samples: K, importance samples of each example.
        num_draws: draws of the missing entries.
        seed: seed of the samples.
    """
    model, device = run.model, run.model.device
    is_category, groups = run.data.is_category.to(device), [group.to(device) for group in run.data.grouped_entries]
    total, samples = len(run.places(run.chosen, num)), count_noun(num_samples, "importance sample")
    work = f"task=impute of {count_noun(total, run.data.noun)} by {samples}"
    with example_progress(total, "impute", work, "num and num_samples", device) as progress:
        parts = [
            impute(model, x, y, is_category, num_samples, num_draws, seed, start_index, groups, progress)
            for start_index, x, y in with_start_index(run.batches(run.chosen, num))
        ]
    return Imputation(torch.cat([p.best for p in parts]).cpu(), torch.cat([p.draws for p in parts], 1).cpu())


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
        hide = f": hide one by data.hide=image or data.hide={run.data.part}" if isinstance(run.data, ImagePairs) else ""
        raise ConfigError(f"no entry of the {run.data.noun}s is missing, so there is nothing to fill in{hide}")


def describe_errors(errors: dict[str, dict[str, float]]) -> list[str]:
    """Return the errors of imputed columns for people, a line each."""
    lines = ["hidden entries: error of the imputation, and of the training set's mean or most frequent category:"]
    for name, error in errors.items():
        lines.append(f"  {name}: {error['kind']} {error['model']:.4g}, {error['baseline']:.4g} ({error['num']:,})")
    return lines if errors else []
