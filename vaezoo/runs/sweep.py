"""The jobs of a sweep as a table."""

import csv
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaezoo.metrics.collapse import collapse_footnote, is_collapsed
from vaezoo.runs.folder import RunFolder, short_error

if TYPE_CHECKING:
    from rich.table import Table

NUMBERS = ("objective", "test_elbo", "test_kl", "test_distortion", "seconds")
COLUMNS = ("job", "model", "overrides", "scored", *NUMBERS, "status", "folder")
HEADS = {
    "scored": "log p of", "objective": "objective", "test_elbo": "test ELBO", "test_kl": "rate",
    "test_distortion": "distortion", "seconds": "seconds", "state": "status",
}  # fmt: skip
# Columns that the printed table leaves out, from the first one, until it is narrow enough for the terminal.
OPTIONAL = ("seconds", "test_distortion", "test_kl")


def sweep_rows(sweep_dir: Path) -> list[dict[str, Any]]:
    """Return a row for each job of a sweep, read from the folders of the jobs."""
    rows = []
    for folder, job in RunFolder(sweep_dir).read_jobs().items():
        summary = RunFolder(folder).read_summary()
        test = summary.get("test", {})
        rows.append(
            {
                "job": job["job"],
                "model": summary.get("model", ""),
                "overrides": " ".join(job["overrides"]),
                "override_list": job["overrides"],
                "scored": summary.get("scored", ""),
                "objective": summary.get("objective"),
                "test_elbo": test.get("elbo"),
                "test_kl": test.get("kl"),
                "test_distortion": -test["log_px"] if "log_px" in test else None,
                "seconds": summary.get("wall_seconds"),
                "state": summary.get("status", "failed" if "error" in summary else "not finished"),
                "status": short_error(summary.get("error") or summary.get("status", "not finished")),
                "folder": str(folder.relative_to(sweep_dir)),
            }
        )
    return sorted(rows, key=lambda row: row["job"])


def write_sweep_table(sweep_dir: Path) -> None:
    """Write the rows as ``summary.csv`` into the sweep's folder. Several processes may do so at the same time."""
    temporary = sweep_dir / f".summary-{os.getpid()}.csv"
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(sweep_rows(sweep_dir))
    temporary.replace(sweep_dir / "summary.csv")


def best_rows(rows: list[dict[str, Any]], number: str, direction: str = "maximize") -> list[dict[str, Any]]:
    """Return the best row of each kind of log p(x): those of different kinds cannot be compared.

    Args:
        rows: jobs.
        number: the name of the number that is compared. Rows without it are left out.
        direction: "maximize" or "minimize".
    """
    choose = max if direction == "maximize" else min
    having = [row for row in rows if row[number] is not None and row["state"] == "completed"]
    kinds = sorted({row["scored"] for row in having})
    return [choose((row for row in having if row["scored"] == kind), key=lambda row: row[number]) for kind in kinds]


def print_sweep_table(sweep_dir: Path, direction: str | None = None) -> None:
    """Write a sweep's ``summary.csv`` and print its table.

    Above the table stand the overrides of all jobs, in it those that differ, below it the reasons of failures and the
    file. The best test ELBO of each kind of log p(x) is in bold; in a search, the best objective. A star marks jobs
    whose posterior has collapsed.

    Args:
        sweep_dir: the sweep's folder.
        direction: "maximize" or "minimize" for a search; else None.
    """
    from rich.console import Console  # imported here, because Hydra imports this module at each start, for its launcher

    write_sweep_table(sweep_dir)
    rows = sweep_rows(sweep_dir)
    shared, varying = split_overrides([row["override_list"] for row in rows])
    kinds = sorted({row["scored"] for row in rows if row["scored"]})
    # 80 columns if the output is a file. Brackets in overrides and errors are not markup.
    console = Console(width=shutil.get_terminal_size((80, 24)).columns, markup=False, highlight=False)
    console.print(f"{len(rows)} job{'s' * (len(rows) != 1)}" + (f", all with {' '.join(shared)}" if shared else ""))
    console.print("test set, nats per example" + (f", log p of {kinds[0]}" if len(kinds) == 1 else ""))
    names = [name for name in HEADS if not (name == "scored" and len(kinds) < 2)]
    names = [name for name in names if not (name == "objective" and direction is None)]
    best = best_rows(rows, "objective" if direction else "test_elbo", direction or "maximize")
    for left_out in range(len(OPTIONAL) + 1):
        names = [name for name in names if name not in OPTIONAL[:left_out]]
        table = build_table(rows, short_columns(varying), names, best)
        if console.measure(table, options=console.options.update(max_width=1000)).maximum <= console.width:
            break
    else:
        words = [" ".join(f"{key}={own[key]}" for key in own) for own in varying]
        table = build_table(rows, {"overrides": words}, names, best)
    console.print(table)
    if any(is_collapsed(row["test_kl"]) for row in rows):
        console.print(collapse_footnote())
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row["state"] not in ("completed", "not finished"):
            reasons.setdefault(row["status"], []).append(str(row["job"]))
    for reason, jobs in reasons.items():
        console.print(f"job {', '.join(jobs)}: {reason}")
    print(f"table: {sweep_dir / 'summary.csv'}", flush=True)


def split_overrides(overrides: Sequence[Sequence[str]]) -> tuple[list[str], list[dict[str, str]]]:
    """Return the overrides that all jobs have, and for each job the others: values by key.

    >>> split_overrides([["model=iwae", "seed=0"], ["model=iwae", "seed=1"]])
    (['model=iwae'], [{'seed': '0'}, {'seed': '1'}])
    """
    shared = [text for text in (overrides[0] if overrides else ()) if all(text in own for own in overrides)]
    pairs = ([text.partition("=")[::2] for text in own if text not in shared] for own in overrides)
    return shared, [dict(own) for own in pairs]


def short_columns(varying: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    """Return a column for each key in which jobs differ, headed by the end of the key that no other one has.

    >>> short_columns([{"model.encoder.hidden": "[8]", "model.decoder.hidden": "[9]", "optimizer.lr": "0.00123456"}])
    {'encoder.hidden': ['[8]'], 'decoder.hidden': ['[9]'], 'lr': ['0.001235']}
    """
    keys = list(dict.fromkeys(key for own in varying for key in own))
    columns = {}
    for key in keys:
        ends = [key.split(".", n)[-1] for n in range(key.count("."), -1, -1)]
        others = [other for other in keys if other != key]
        end = next((end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)), key)
        columns[end] = [short_value(own.get(key, "")) for own in varying]
    return columns


def short_value(text: str) -> str:
    """Return a value with four significant digits if it is a floating-point number."""
    try:
        return f"{float(text):.4g}" if not text.lstrip("-").isdigit() else text
    except ValueError:
        return text


def build_table(
    rows: list[dict[str, Any]], varying: dict[str, list[str]], names: Sequence[str], best: list[dict[str, Any]]
) -> "Table":
    """Return a table of jobs.

    Args:
        rows: jobs.
        varying: columns of overrides: cells by head.
        names: names of the other columns.
        best: rows in bold.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("job", justify="right", no_wrap=True)
    for head in varying:
        table.add_column(head, overflow="fold")
    for name in names:
        justify: Any = "right" if name in NUMBERS else "left"
        table.add_column(HEADS[name], justify=justify, no_wrap=name != "scored", overflow="fold")
    for index, row in enumerate(rows):
        marked = row | {"state": row["state"] + " *" * is_collapsed(row["test_kl"])}
        numbers = (marked[name] for name in names)
        cells = ["" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in numbers]
        own = [column[index] for column in varying.values()]
        table.add_row(str(row["job"]), *own, *cells, style="bold" if row in best else None)
    return table
