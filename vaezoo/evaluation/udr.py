"""Unsupervised disentanglement ranking (UDR) of a comparison: it compares runs of several seeds."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from vaezoo.evaluation.base import CODES
from vaezoo.report.read import Run
from vaezoo.report.statistics import Variant, compare
from vaezoo.runs.checkpoint import find_checkpoint, read_checkpoint
from vaezoo.runs.folder import RunFolder
from vaezoo.runs.trained import load_run


def add_udr(runs: Sequence[Run], evaluations: Path, allow_packages: list[str]) -> None:
    """Write the UDR of each variant that allows it into the summaries of its evaluations.

    Args:
        runs: trained runs.
        evaluations: the folder of the evaluations, each with the name of its run's folder.
        allow_packages: packages whose classes may be loaded.
    """
    for comparison in compare(runs):
        for variant in comparison.variants:
            try:
                add_variant_udr(variant, evaluations, allow_packages)
            except (ValueError, OSError) as error:  # a missing checkpoint, missing data, codes that are not finite
                print(f"no UDR of {variant.label}: {error}", file=sys.stderr)


def add_variant_udr(variant: Variant, evaluations: Path, allow_packages: list[str]) -> None:
    """Write the UDR of a variant with several seeds into the summaries of its evaluations."""
    from vaezoo.metrics import disentanglement

    summaries = {run.folder: RunFolder(evaluations / run.folder.name).read_summary() for run in variant.runs}
    runs = [run for run in variant.runs if summaries[run.folder].get("status") == "completed"]
    kls = [torch.tensor(run.per_dimension.get("kl_dim", [])) for run in runs]
    if len(runs) < 2 or min(map(len, kls)) == 0:  # UDR needs one layer of independent dimensions
        return
    codes = []
    for run in tqdm(runs, f"UDR of {variant.label}", disable=None, leave=False):
        path = find_checkpoint(run.folder)
        trained = load_run(run.config | {"allow_packages": allow_packages}, path, read_checkpoint(path))
        codes.append(trained.codes("test", CODES)[0].flatten(1))
    for run, score in zip(runs, disentanglement.udr(codes, kls), strict=True):
        summary = summaries[run.folder]
        summary["test"] |= {"udr": score, "udr_ceiling": disentanglement.UDR_CEILING, "udr_models": float(len(runs))}
        summary["units"] |= {name: quantity.to_json() for name, quantity in disentanglement.UDR.items()}
        RunFolder(evaluations / run.folder.name).write_summary(summary)
