"""Models over seeds, side by side: means with their intervals, and differences seed by seed."""

import csv
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaezoo.report.runs import COST, LEADING, Comparison, Interval, Run, compare, difference, protocol

# Of what the table shows: heading and digits.
HEADS = {
    "elbo": ("test ELBO", 2), "log_p": ("log p(x)", 2), "inference_gap": ("inference gap", 2),
    "bits_per_dim": ("bits/dim", 3), "kl": ("rate", 2), "distortion": ("distortion", 2),
    "active_units": ("active units", 1), "codes_used": ("codes used", 1), "linear_probe": ("linear probe", 3),
    "fid": ("FID", 2), "mig": ("MIG", 3), "udr": ("UDR", 3), "wall_seconds": ("seconds", 0),
    "train_images_per_second": ("images/s", 0), "parameters": ("parameters", 0), "peak_memory_mb": ("memory (MiB)", 0),
}  # fmt: skip

READING = (
    "Means over seeds ± half the width of the 95 % interval (Student's t). Differences are taken seed by seed, so what "
    "a seed does to both falls out of them: where the interval holds 0, these seeds do not tell the two apart; each is "
    "for itself, not corrected for their number. log p(x) is an importance-weighted bound, of as many of the test "
    "images as its head says; the inference gap is by how much it is above the ELBO of the same images and draws. "
    "These, rate and distortion are in nats per image of the test set. 'At best' is what perfect codes get; "
    "'training images' is what as many of these get in place of generated ones, a reference that a model may surpass. "
    "Costs are means, and seconds those of the training."
)


def text(value: Interval, digits: int) -> str:
    """``-91.10 ± 0.20``; without an interval where there is but one value, or all are alike."""
    mean = f"{value.mean:z,.{digits}f}"
    return f"{mean} ± {value.half:,.{digits}f}" if value.half > 0 else mean


def cell(value: Interval | None, digits: int, seeds: int) -> str:
    """A value of a model; and of how many of its seeds, where not all of them have it."""
    if value is None:
        return "-"
    return text(value, digits) + (f" (of {value.num})" if value.num < seeds else "")


def table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Heads and cells, the best test ELBO first; after the ELBO stands the difference to it."""
    numbers = [variant.numbers for variant in comparison.variants]
    columns = [(name, *HEADS[name]) for name in (*LEADING, *COST) if any(name in row for row in numbers)]
    told = {name: protocol(name, comparison.runs) for name, _, _ in columns}
    best = comparison.variants[0]
    heads = ["model", "seeds", *(f"{head} ({told[name]})" if told[name] else head for name, head, _ in columns)]
    lines = []
    for variant, row in zip(comparison.variants, numbers, strict=True):
        cells = [cell(row.get(name), digits, len(variant.runs)) for name, _, digits in columns]
        lines.append([variant.label, f"{len(variant.runs)}/{variant.tried}", *cells])
    if any("elbo" in row for row in numbers):  # then it is the first column, and the best comes first
        place = heads.index("test ELBO") + 1
        heads.insert(place, "difference to the best")
        for variant, line in zip(comparison.variants, lines, strict=True):
            gap = difference(variant, best)
            line.insert(place, "best" if variant is best else text(gap, 2) if gap else "-")
    return heads, lines


def markdown(runs: Sequence[Run], title: str, root: Path) -> str:
    """A table for each kind of data that log p is of, differences between all pairs, and every run; paths from root."""
    lines = [f"# {title}", ""]
    for comparison in compare(runs):
        lines += [f"## {comparison.scale}", "", *pipes(*table(comparison)), "", READING, ""]
        variants = comparison.variants
        said = [f"- {verdict}" for verdict in comparison.verdicts]
        lines += [*said, ""] if said else []
        pairs = [
            [f"{a.label} - {b.label}", text(gap, 2)]
            for i, a in enumerate(variants)
            for b in variants[i + 1 :]
            if (gap := difference(a, b))
        ]
        if pairs:
            lines += ["Test ELBO, seed by seed:", "", *pipes(["models", "difference (nats)"], pairs), ""]
    rows = []
    for run in runs:
        checkpoint = run.summary.get("checkpoint", f"{run.folder}/checkpoints/best.ckpt")  # an evaluation names its own
        place = os.path.relpath(checkpoint if run.completed else run.folder, root)
        elbo = f"{run.test.get('elbo', math.nan):.3f}" if run.completed else "-"
        row = [elbo, "completed" if run.completed else run.cause, place]
        rows.append([run.folder.name, *row])
    heads = ["run", "test ELBO", "status", "best checkpoint, or folder"]
    return "\n".join([*lines, "## Runs", "", *pipes(heads, rows), ""])


def pipes(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(heads), "|" + "---|" * len(heads), *map(line, lines)]


def as_csv(runs: Sequence[Run], root: Path) -> str:
    """Every run with every number; folders from root."""
    names = sorted({name for run in runs for name in run.numbers})
    out = io.StringIO()
    writer = csv.DictWriter(out, ["model", "seed", "status", "scored", *names, "folder"])
    writer.writeheader()
    for run in runs:
        status = "completed" if run.completed else run.cause
        folder = os.path.relpath(run.folder, root)
        row: dict[str, Any] = {"model": run.model, "seed": run.seed, "status": status, "folder": folder}
        writer.writerow(run.numbers | row | {"scored": run.summary.get("scored", "")})
    return out.getvalue()
