"""The jobs of a sweep as a table."""

import csv
import math
import sys
from pathlib import Path
from typing import Any

from vaezoo.runs.folder import RunFolder, short_error

NUMBERS = ("test_elbo", "test_kl", "test_distortion", "seconds")
COLUMNS = ("job", "model", "overrides", "scored", *NUMBERS, "status", "folder")


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
                "scored": summary.get("scored", ""),
                "test_elbo": test.get("elbo"),
                "test_kl": test.get("kl"),
                "test_distortion": -test["log_px"] if "log_px" in test else None,
                "seconds": summary.get("wall_seconds"),
                "status": short_error(summary.get("error") or summary.get("status", "not finished")),
                "folder": str(folder.relative_to(sweep_dir)),
            }
        )
    return sorted(rows, key=lambda row: row["job"])


def write_sweep_table(sweep_dir: Path) -> None:
    """Write the rows as ``summary.csv`` into the sweep's folder."""
    with (sweep_dir / "summary.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(sweep_rows(sweep_dir))


def print_sweep_table(sweep_dir: Path) -> None:
    """Write a sweep's ``summary.csv`` and print its table, with the best test ELBO of each kind in bold."""
    from rich.console import Console  # imported here, because Hydra imports this module at each start, for its launcher
    from rich.table import Table

    write_sweep_table(sweep_dir)
    table = Table(title=f"{sweep_dir} · nats per example", title_justify="left")
    heads = {
        "job": "job", "model": "model", "overrides": "overrides", "scored": "log p of", "test_elbo": "test ELBO",
        "test_kl": "rate", "test_distortion": "distortion", "seconds": "seconds", "status": "status",
    }  # fmt: skip
    for name, head in heads.items():
        numeric = name == "job" or name in NUMBERS
        table.add_column(head, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    rows = sweep_rows(sweep_dir)
    best: dict[str, float] = {}
    for row in rows:
        if row["test_elbo"] is not None:
            best[row["scored"]] = max(row["test_elbo"], best.get(row["scored"], row["test_elbo"]))
    for row in rows:
        cells = ["" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in (row[h] for h in heads)]
        table.add_row(*cells, style="bold" if row["test_elbo"] == best.get(row["scored"], math.nan) else None)
    Console(width=None if sys.stdout.isatty() else 140, markup=False).print(table)  # [400] is an override, not markup
    print(f"table: {sweep_dir / 'summary.csv'}")
