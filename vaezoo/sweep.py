"""Sweeps: each job in a process of its own, then one table over them.

A job that raises, exits, is killed or crashes becomes a row with its cause and the rest go on; no
random state, cache or memory passes from one job to the next.
"""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

COLUMNS = ("job", "model", "overrides", "test_elbo", "test_kl", "test_distortion", "seconds", "status", "folder")


class SubprocessLauncher(Launcher):
    """A Hydra launcher that runs the jobs one after another as commands of their own."""

    def setup(self, *, hydra_context, task_function, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, write ``summary.csv`` in the sweep's folder and print it."""
        setup_globals()
        sweep_dir = Path(self.config.hydra.sweep.dir)
        sweep_dir.mkdir(parents=True, exist_ok=True)
        results = []
        try:
            for number, overrides in enumerate(job_overrides, initial_job_idx):
                print(f"job {number}: {' '.join(filter_overrides(overrides))}", flush=True)
                results.append(self.run_job(number, overrides))
                write_table(sweep_dir)
        finally:
            print_table(sweep_dir)
        return results

    def run_job(self, number: int, overrides: Sequence[str]) -> JobReturn:
        """One job, to its end."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        folder = Path(config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "job.json").write_text(json.dumps({"job": number, "overrides": filter_overrides(overrides)}))
        command = [*self.entry(), *overrides, f"hydra.run.dir={quoted(folder)}"]
        environment = os.environ | {"WANDB_RUN_GROUP": os.environ.get("WANDB_RUN_GROUP", Path(config.hydra.sweep.dir).name)}
        code = subprocess.run(command, env=environment, check=False).returncode
        summary = read_summary(folder)
        if code != 0 and "error" not in summary:
            cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            summary = {"status": "failed", "error": cause}
            (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        result = JobReturn(overrides=overrides, cfg=config, working_dir=str(folder))
        result.status = JobStatus.FAILED if code else JobStatus.COMPLETED
        result.return_value = RuntimeError(summary["error"]) if code else summary.get("objective")
        return result

    def entry(self) -> list[str]:
        """This program's command, with Hydra's own options."""
        main = sys.modules["__main__"]
        program = ["-m", main.__spec__.name] if main.__spec__ else [os.path.abspath(sys.argv[0])]
        extra = [s.path for s in self.config.hydra.runtime.config_sources if s.provider == "command-line"]
        own = [o for o in self.config.hydra.overrides.hydra if not o.startswith(("hydra.sweep", "hydra.mode", "hydra/"))]
        return [sys.executable, *program, *(f"--config-dir={path}" for path in extra), *own]


def quoted(path: Path) -> str:
    """A path as the value of a Hydra override."""
    text = str(path.resolve()).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def read_summary(folder: Path) -> dict[str, Any]:
    """A job's ``summary.json``; empty where it wrote none."""
    try:
        return json.loads((folder / "summary.json").read_text())
    except (OSError, json.JSONDecodeError):
        return {}


def rows(sweep_dir: Path) -> list[dict[str, Any]]:
    """A row for each job of a sweep, read from its folders."""
    table = []
    for file in sweep_dir.rglob("job.json"):
        job, summary = json.loads(file.read_text()), read_summary(file.parent)
        test = summary.get("test", {})
        table.append(
            {
                "job": job["job"],
                "model": summary.get("model", ""),
                "overrides": " ".join(job["overrides"]),
                "test_elbo": test.get("elbo"),
                "test_kl": test.get("kl"),
                "test_distortion": -test["log_px"] if "log_px" in test else None,
                "seconds": summary.get("wall_seconds"),
                "status": summary.get("error") or summary.get("status", "not finished"),
                "folder": str(file.parent.relative_to(sweep_dir)),
            }
        )
    return sorted(table, key=lambda row: row["job"])


def write_table(sweep_dir: Path) -> None:
    """Write ``summary.csv`` anew."""
    with (sweep_dir / "summary.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows(sweep_dir))


def print_table(sweep_dir: Path) -> None:
    """The sweep on the terminal: nats per image, best test ELBO in bold."""
    from rich.console import Console
    from rich.table import Table

    write_table(sweep_dir)
    table = Table(title=f"{sweep_dir} · nats per image", title_justify="left")
    heads = {
        "job": "job", "model": "model", "overrides": "overrides", "test_elbo": "test ELBO", "test_kl": "rate",
        "test_distortion": "distortion", "seconds": "seconds", "status": "status",
    }  # fmt: skip
    for name, head in heads.items():
        numeric = name not in ("model", "overrides", "status")
        table.add_column(head, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    data = rows(sweep_dir)
    best = max((row["test_elbo"] for row in data if row["test_elbo"] is not None), default=None)
    for row in data:
        cells = ["" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in (row[h] for h in heads)]
        table.add_row(*cells, style="bold" if row["test_elbo"] == best is not None else None)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    print(f"table: {sweep_dir / 'summary.csv'}")
