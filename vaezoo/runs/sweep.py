"""The jobs of a sweep as a table."""

import csv
from pathlib import Path
from typing import Any

from vaezoo.runs.folder import read_jobs, read_summary, short_error

NUMBERS = ("test_elbo", "test_kl", "test_distortion", "seconds")
COLUMNS = ("job", "model", "overrides", "scored", *NUMBERS, "status", "folder")


def sweep_rows(sweep_dir: Path) -> list[dict[str, Any]]:
    """A row for each job of a sweep, read from its folders."""
    table = []
    for folder, job in read_jobs(sweep_dir).items():
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
                "status": short_error(summary.get("error") or summary.get("status", "not finished")),
                "folder": str(folder.relative_to(sweep_dir)),
            }
        )
    return sorted(table, key=lambda row: row["job"])


def write_sweep_table(sweep_dir: Path) -> None:
    """Write ``summary.csv`` anew."""
    with (sweep_dir / "summary.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(sweep_rows(sweep_dir))
