"""The table over a sweep's jobs, read from their folders."""

import csv
import json
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NUMBERS = ("test_elbo", "test_kl", "test_distortion", "seconds")
COLUMNS = ("job", "model", "overrides", "scored", *NUMBERS, "status", "folder")

# The words of a sweep's command, in its folder; and those of each job with its number, in the job's.
SWEEP_RECORD, JOB_RECORD = "sweep.json", "job.json"


def essential(words: Iterable[str]) -> list[str]:
    """The words of a command that say what is computed: neither Hydra's own nor whether it goes on."""
    return [word for word in words if not word.lstrip("+~").startswith(("hydra.", "hydra/", "resume="))]


def read_summary(folder: Path) -> dict[str, Any]:
    """Return a folder's ``summary.json``; an empty dict if there is none, or none that can be read."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}


def brief(error: str) -> str:
    """An error without the examples that a diverged training names: they are dozens."""
    return re.sub(r" \(training examples [\d, ]+\)", "", error)


def jobs(sweep_dir: Path) -> dict[Path, dict[str, Any]]:
    """The folders of a sweep's jobs, with each job's number and overrides."""
    return {file.parent: json.loads(file.read_text(encoding="utf-8")) for file in sweep_dir.rglob(JOB_RECORD)}


def rows(sweep_dir: Path) -> list[dict[str, Any]]:
    """A row for each job of a sweep, read from its folders."""
    table = []
    for folder, job in jobs(sweep_dir).items():
        summary = read_summary(folder)
        test = summary.get("test", {})
        table.append(
            {
                "job": job["job"],
                "model": summary.get("model", ""),
                "overrides": " ".join(job["overrides"]),
                "scored": summary.get("scored", ""),
                "test_elbo": test.get("elbo"),
                "test_kl": test.get("kl"),
                "test_distortion": -test["log_px"] if "log_px" in test else None,
                "seconds": summary.get("wall_seconds"),
                "status": brief(summary.get("error") or summary.get("status", "not finished")),
                "folder": str(folder.relative_to(sweep_dir)),
            }
        )
    return sorted(table, key=lambda row: row["job"])


def write_table(sweep_dir: Path) -> None:
    """Write ``summary.csv`` anew."""
    with (sweep_dir / "summary.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows(sweep_dir))


def print_table(sweep_dir: Path) -> None:
    """The sweep on the terminal: nats per image, the best test ELBO of each kind of data in bold."""
    from rich.console import Console
    from rich.table import Table

    write_table(sweep_dir)
    table = Table(title=f"{sweep_dir} · nats per image", title_justify="left")
    heads = {
        "job": "job", "model": "model", "overrides": "overrides", "scored": "log p of", "test_elbo": "test ELBO",
        "test_kl": "rate", "test_distortion": "distortion", "seconds": "seconds", "status": "status",
    }  # fmt: skip
    for name, head in heads.items():
        numeric = name == "job" or name in NUMBERS
        table.add_column(head, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    data = rows(sweep_dir)
    best: dict[str, float] = {}
    for row in data:
        if row["test_elbo"] is not None:
            best[row["scored"]] = max(row["test_elbo"], best.get(row["scored"], row["test_elbo"]))
    for row in data:
        cells = ["" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in (row[h] for h in heads)]
        table.add_row(*cells, style="bold" if row["test_elbo"] == best.get(row["scored"], math.nan) else None)
    Console(width=None if sys.stdout.isatty() else 140, markup=False).print(table)  # [400] is a word
    print(f"table: {sweep_dir / 'summary.csv'}")
