"""The jobs of a sweep as a table."""

import csv
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
