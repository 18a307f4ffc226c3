"""Tables of runs, in Markdown, as CSV and on the terminal."""

import csv
import io
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from vaezoo.errors import count_noun
from vaezoo.metrics.collapse import collapse_footnote
from vaezoo.metrics.quantities import BOUNDS, GROUPS, KEY, Quantity, use_noun
from vaezoo.report.labels import leading_columns, protocol
from vaezoo.report.read import CONTINUE, Run, has_resumable
from vaezoo.report.statistics import Comparison, Interval, compare, difference

if TYPE_CHECKING:
    from vaezoo.runs.comparison import ComparisonJob

DIGITS = 3  # of numbers that set none
LEAST_MEANING = 40  # columns of the meanings of numbers, before bounds are moved from the numbers to the meanings
LONGEST_LABEL = 30  # columns of the labels of models, before they are broken
GAP = 2  # columns between two columns of a table
ARROWS = {1: "↑", 0: " ", -1: "↓"}  # larger or smaller is better
EXPLANATION = (
    "Means over seeds ± half the width of the 95 % confidence interval (Student's t). Differences are taken seed by "
    "seed, so an effect that a seed has on both models cancels: if the interval contains 0, these seeds do not "
    "distinguish the two models. The intervals are not corrected for the number of comparisons. log p(x) is an "
    "importance-weighted bound on as many test examples as its head says; the inference gap is log p(x) minus the "
    "ELBO of the same examples and draws. These, rate and distortion are in nats per example of the test set. 'At "
    "best' is the score of perfect codes; 'training images' is the score of as many training images in place of "
    "generated ones, a reference that a model may surpass. Costs are means; the time is that of the training."
)


def format_interval(value: Interval, digits: int) -> str:
    """``-91.10 ± 0.20``; without an interval if there is one value, or all are equal."""
    mean = f"{value.mean:z,.{digits}f}"
    return f"{mean} ± {value.half:,.{digits}f}" if value.half > 0 else mean


def cell(value: Interval | None, digits: int | None, seeds: int) -> str:
    """A variant's number, with the number of its seeds that have it if not all do."""
    if value is None:
        return "-"
    text = format_interval(value, DIGITS if digits is None else digits)
    return text + (f" (of {value.num})" if value.num < seeds else "")


def table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Heads and cells, the best test ELBO first. The difference to the best follows the ELBO."""
    quantities, variants = comparison.quantities, comparison.variants
    numbers = [variant.numbers for variant in variants]
    columns = leading_columns(quantities, {name for row in numbers for name in row})
    heads = ["model", "seeds"]
    for name in columns:
        quantity = quantities[name]
        beside = quantity.unit if quantity.column == "cost" else protocol(name, comparison.runs, quantities)
        heads.append(f"{quantity.title(name)} ({beside})" if beside else quantity.title(name))
    lines = []
    for variant, row in zip(variants, numbers, strict=True):
        cells = [cell(row.get(name), quantities[name].digits, len(variant.runs)) for name in columns]
        lines.append([variant.label, f"{len(variant.runs)}/{variant.tried}", *cells])
    if "elbo" in columns:
        place = 2 + columns.index("elbo") + 1
        heads.insert(place, "difference to the best")
        best = variants[0]
        for variant, line in zip(variants, lines, strict=True):
            gap = difference(variant, best)
            line.insert(place, "best" if variant is best else format_interval(gap, 2) if gap else "-")
    return heads, lines


def markdown(runs: Sequence[Run], title: str, root: Path) -> str:
    """A table for each kind of ELBO with the differences between all pairs of models, then a table of all runs.

    Args:
        runs: the runs.
        title: the heading.
        root: the folder that paths are relative to.
    """
    lines = [f"# {title}", ""]
    for comparison in compare(runs):
        explanation = use_noun(EXPLANATION, comparison.runs[0].noun)
        lines += [f"## {comparison.elbo_kind}", "", *pipes(*table(comparison)), "", explanation, ""]
        variants = comparison.variants
        verdicts = [f"- {verdict}" for verdict in comparison.verdicts]
        lines += [*verdicts, ""] if verdicts else []
        pairs = [
            [f"{a.label} - {b.label}", format_interval(gap, 2)]
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
        rows.append([run.folder.name, elbo, run.status, place])
    heads = ["run", "test ELBO", "status", "best checkpoint, or folder"]
    lines += ["## Runs", "", *pipes(heads, rows), ""]
    return "\n".join([*lines, f"{CONTINUE}.", ""] if has_resumable(runs) else lines)


def pipes(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(heads), "|" + "---|" * len(heads), *map(line, lines)]


def as_csv(runs: Sequence[Run], root: Path) -> str:
    """A row for each run with all its numbers; folders are relative to ``root``."""
    names = sorted({name for run in runs for name in run.numbers})
    out = io.StringIO()
    writer = csv.DictWriter(out, ["model", "seed", "status", "scored", *names, "folder"])
    writer.writeheader()
    for run in runs:
        folder = os.path.relpath(run.folder, root)
        row: dict[str, Any] = {"model": run.model, "seed": run.seed, "status": run.status, "folder": folder}
        writer.writerow(run.numbers | row | {"scored": run.summary.get("scored", "")})
    return out.getvalue()


def terminal_width() -> int:
    """Return the number of columns of the terminal; 80 if the output is a file and COLUMNS is not set."""
    return shutil.get_terminal_size((80, 24)).columns


def print_results(title: str, values: dict[str, float], quantities: dict[str, Quantity], notes: list[str]) -> None:
    """Print numbers by their keys and in groups, each ± its standard error and with its bound or reference if known.

    Numbers that only say how others were measured are the last group.

    Args:
        title: heading of the table.
        values: numbers by key.
        quantities: what they are; only these are printed, those of a group in this order.
        notes: sentences below the table.
    """
    helpers = {key for quantity in quantities.values() for key in KEY.findall(quantity.protocol)}
    groups: dict[str, list[tuple[str, str, str, str]]] = {}
    for name, quantity in quantities.items():
        if name in values and not name.endswith("_error"):
            text = f"{values[name]:.{0 if float(values[name]).is_integer() else DIGITS}f}"
            if (error := values.get(f"{name}_error")) is not None:
                text += f" ± {error:.{DIGITS}f}"
            known = ((words, values.get(f"{name}{ending}")) for ending, words in BOUNDS.items())
            bounds = ", ".join(f"{words} {bound:.3g}" for words, bound in known if bound is not None)
            row = f"{name} {ARROWS[quantity.better]}", text, bounds, f"{quantity.unit}, {quantity.meaning}"
            groups.setdefault("counts" if name in helpers else quantity.group, []).append(row)
    rows = [row for group in groups.values() for row in group]
    names, numbers, meanings = (max((len(row[i]) for row in rows), default=0) for i in (0, 1, 3))
    with_bounds = max((len(f"{text} ({bounds})") for _, text, bounds, _ in rows if bounds), default=0)
    width = terminal_width()
    if numbers < with_bounds <= width - names - 6 - min(meanings, LEAST_MEANING):
        numbers = with_bounds
    console = Console(width=width, highlight=False, markup=False)
    console.print(title, style="bold", soft_wrap=True)
    order = [*(group for group in [*GROUPS, *groups] if group != "counts"), "counts"]
    for group in sorted(groups, key=order.index):
        style = "dim" if group == "counts" else ""
        console.print(GROUPS.get(group, group), style=style or "italic", soft_wrap=True)
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column(width=0)  # indents the rows
        table.add_column(width=names, no_wrap=True)
        table.add_column(width=numbers, no_wrap=True)
        table.add_column(overflow="fold")
        for name, text, bounds, meaning in groups[group]:
            if bounds and len(f"{text} ({bounds})") <= numbers:
                text += f" ({bounds})"
            elif bounds:
                meaning += f"; {bounds}"
            table.add_row("", name, text, meaning, style=style)
        console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True)


def print_comparison(comparison: Comparison) -> None:
    """Print the table of models on the terminal, in as many parts as its columns need.

    A star marks models with a run whose posterior has collapsed.
    """
    heads, lines = table(comparison)
    console = Console(width=terminal_width(), markup=False, highlight=False)
    console.print(comparison.elbo_kind, style="bold", soft_wrap=True)
    collapsed = []
    for cells, variant in zip(lines, comparison.variants, strict=True):
        if count := sum(run.collapsed for run in variant.runs):
            collapsed.append(f"{count} of {count_noun(len(variant.runs), 'run')} of {variant.label}")
            cells[0] += " *"
    # Heads and long labels may break between words, numbers may not.
    labels = [cells[0] for cells in lines]
    longest_word = max(len(word) for label in labels for word in label.split())
    first = max(longest_word, min(LONGEST_LABEL, max(map(len, labels))))
    widths = [max(map(len, [*head.split(), *cells])) for head, *cells in zip(heads, *lines, strict=True)]
    parts: list[list[int]] = [[]]
    used = first
    for place in range(1, len(heads)):
        used += GAP + widths[place]
        if used > console.width:
            parts.append([])
            used = first + GAP + widths[place]
        parts[-1].append(place)
    for part in filter(None, parts):
        printed = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, GAP - 1, 0, 0), pad_edge=False)
        printed.add_column(heads[0], width=first)
        for _ in range(console.width - first - sum(GAP + widths[place] for place in part)):
            tallest = max(part, key=lambda place: len(wrap(heads[place], widths[place])))
            widths[tallest] += len(wrap(heads[tallest], widths[tallest])) > 2
        for place in part:
            printed.add_column(heads[place], justify="right", width=widths[place])
        for cells in lines:
            printed.add_row(*(cells[place] for place in (0, *part)), style="bold" if "best" in cells else None)
        console.print(printed, "")
    if collapsed:
        console.print(collapse_footnote(f" in {', '.join(collapsed)}"))


@contextmanager
def live_status_table(members: Sequence["ComparisonJob"]) -> Iterator[Console]:
    """Show a table with the status of each job of a comparison, on a terminal, while a block runs."""

    def status_table() -> Table:
        heads = ("model", "seed", "status", "test ELBO")
        table = Table(*heads, title="test ELBO in nats per example", title_justify="left")
        for member in members:
            table.add_row(*member.status())
        return table

    console = Console(stderr=True, markup=False)
    live = Live(get_renderable=status_table, refresh_per_second=1, console=console)
    with live if console.is_terminal else nullcontext():
        yield console
