"""Models over seeds, side by side: means with their intervals, and differences seed by seed."""

import csv
import io
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vaezoo.metrics.quantities import Quantity
from vaezoo.report.columns import COST, LEADING
from vaezoo.report.read import Run
from vaezoo.report.statistics import Comparison, Interval, compare, difference, protocol
from vaezoo.runs.sweep import NUMBERS, sweep_rows, write_sweep_table

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


ARROWS = {1: "↑", 0: " ", -1: "↓"}  # what is better


def print_results(title: str, values: dict[str, float], quantities: dict[str, Quantity], notes: list[str]) -> None:
    """The numbers on the terminal, each ± its standard error and with its bound or reference if they are known."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    for name, quantity in quantities.items():
        if name in values and not name.endswith("_error"):
            shown = f"{values[name]:.{0 if float(values[name]).is_integer() else 3}f}"
            if (error := values.get(f"{name}_error")) is not None:
                shown += f" ± {error:.3f}"
            if (ceiling := values.get(f"{name}_ceiling")) is not None:
                shown += f" (at best {ceiling:.3g})"
            if (reference := values.get(f"{name}_reference")) is not None:
                shown += f" (training images: {reference:.3g})"
            table.add_row(f"{name} {ARROWS[quantity.better]}", shown, f"{quantity.unit}, {quantity.meaning}")
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
    console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True)


def print_comparison(part: Comparison) -> None:
    """The table over models, on the terminal: as many of the first columns as there is room for."""
    heads, lines = table(part)
    console = Console(width=None if sys.stdout.isatty() else 200, markup=False)
    printed = Table(title=part.scale, title_justify="left")
    used, shown = 1, 0
    for head, *cells in zip(heads, *lines, strict=True):
        used += 3 + max(map(len, [*head.split(), *cells]))  # heads may break between words, numbers may not
        if used > console.width and shown >= 4:
            break
        printed.add_column(head, justify="left" if head == "model" else "right")
        shown += 1
    for cells in lines:
        printed.add_row(*cells[:shown], style="bold" if "best" in cells else None)
    console.print(printed)


def print_table(sweep_dir: Path) -> None:
    """The sweep on the terminal: nats per image, the best test ELBO of each kind of data in bold."""
    from rich.console import Console
    from rich.table import Table

    write_sweep_table(sweep_dir)
    table = Table(title=f"{sweep_dir} · nats per image", title_justify="left")
    heads = {
        "job": "job", "model": "model", "overrides": "overrides", "scored": "log p of", "test_elbo": "test ELBO",
        "test_kl": "rate", "test_distortion": "distortion", "seconds": "seconds", "status": "status",
    }  # fmt: skip
    for name, head in heads.items():
        numeric = name == "job" or name in NUMBERS
        table.add_column(head, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    data = sweep_rows(sweep_dir)
    best: dict[str, float] = {}
    for row in data:
        if row["test_elbo"] is not None:
            best[row["scored"]] = max(row["test_elbo"], best.get(row["scored"], row["test_elbo"]))
    for row in data:
        cells = ["" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in (row[h] for h in heads)]
        table.add_row(*cells, style="bold" if row["test_elbo"] == best.get(row["scored"], math.nan) else None)
    Console(width=None if sys.stdout.isatty() else 140, markup=False).print(table)  # [400] is a word
    print(f"table: {sweep_dir / 'summary.csv'}")
