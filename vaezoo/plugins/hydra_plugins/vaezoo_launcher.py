"""The launcher of sweeps: each job in a process of its own.

A job that raises, exits, is killed or crashes becomes a row with its cause and the rest go on; no
random state, cache or memory passes from one job to the next. Hydra takes launchers from the
namespace ``hydra_plugins`` only; ``vaezoo.run`` puts this one on the path.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, open_dict

from vaezoo.sweep import print_table, read_summary, rows, write_table


class SubprocessLauncher(Launcher):
    """A Hydra launcher that runs the jobs one after another as commands of their own."""

    def setup(self, *, hydra_context, task_function, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, write ``summary.csv`` in the sweep's folder and print it."""
        setup_globals()
        if not job_overrides:
            raise ValueError("the sweep has no job: a glob(...) in it matches no choice, `--help` lists them")
        sweep_dir = Path(self.config.hydra.sweep.dir)
        sweep_dir.mkdir(parents=True, exist_ok=True)
        jobs = [self.prepare(number, overrides) for number, overrides in enumerate(job_overrides, initial_job_idx)]
        try:
            results = [self.run_job(*job) for job in jobs]
        finally:
            print_table(sweep_dir)
        failed = [row for row in rows(sweep_dir) if row["status"] != "completed"]
        if failed:
            first = f"job {failed[0]['job']}: {failed[0]['status']}"
            raise ChildProcessError(f"{len(failed)} of {len(rows(sweep_dir))} jobs failed, the first is {first}")
        return results

    def prepare(self, number: int, overrides: Sequence[str]) -> tuple[JobReturn, Path]:
        """A job's config and its folder, made and labelled."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        folder = Path(config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "job.json").write_text(json.dumps({"job": number, "overrides": filter_overrides(overrides)}))
        return JobReturn(overrides=overrides, cfg=config, working_dir=str(folder)), folder

    def run_job(self, job: JobReturn, folder: Path) -> JobReturn:
        """One job, to its end: its outcome, and a summary with the cause where it left none."""
        assert job.cfg is not None
        print(f"job {job.cfg.hydra.job.num}: {' '.join(filter_overrides(job.overrides))}", flush=True)
        command = [*self.entry(), *job.overrides, f"hydra.run.dir={quoted(folder)}"]
        environment = {"WANDB_RUN_GROUP": Path(self.config.hydra.sweep.dir).name} | os.environ
        code = subprocess.run(command, env=environment, check=False).returncode
        summary = read_summary(folder)
        if code != 0 and "error" not in summary:
            cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            summary = {"status": "failed", "error": cause}
            (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        write_table(Path(self.config.hydra.sweep.dir))
        job.status = JobStatus.COMPLETED  # what failed is told once for the whole sweep
        job.return_value = summary.get("objective")
        return job

    def entry(self) -> list[str]:
        """This program's command, with Hydra's own options."""
        main = sys.modules["__main__"]
        program = ["-m", main.__spec__.name] if main.__spec__ else [os.path.abspath(sys.argv[0])]
        extra = [s.path for s in self.config.hydra.runtime.config_sources if s.provider == "command-line"]
        mine = ("hydra.sweep", "hydra.mode", "hydra/")
        own = [text for text in self.config.hydra.overrides.hydra if not text.startswith(mine)]
        return [sys.executable, *program, *(f"--config-dir={path}" for path in extra), *own]


def quoted(path: Path) -> str:
    """A path as the value of a Hydra override."""
    text = str(path.resolve()).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
