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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from vaezoo.files import held, replace
from vaezoo.resume import alike, quoted
from vaezoo.signals import SIGNALS, Stopped
from vaezoo.sweep import JOB_RECORD, SWEEP_RECORD, essential, jobs, print_table, read_summary, rows, write_table


class SubprocessLauncher(Launcher):
    """A Hydra launcher that runs the jobs one after another as commands of their own.

    With ``resume=auto`` in a sweep's old folder it runs the jobs that are not complete, each in its old folder.
    A signal to stop is passed on to the running job; when that has ended, the sweep ends too.
    """

    def setup(self, *, hydra_context, task_function, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.process: subprocess.Popen | None = None
        self.stopped: int | None = None

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, write ``summary.csv`` in the sweep's folder and print it."""
        setup_globals()
        if not job_overrides:
            raise ValueError("the sweep has no job: a glob(...) in it matches no choice, `--help` lists them")
        sweep_dir = Path(self.config.hydra.sweep.dir)
        sweep_dir.mkdir(parents=True, exist_ok=True)
        with held(sweep_dir), self.relaying():
            replace(sweep_dir / SWEEP_RECORD, json.dumps(plain(self.config.hydra.overrides.task)))
            prepared = self.prepare(sweep_dir, job_overrides, initial_job_idx)
            results = []
            try:
                for job, folder in prepared:
                    if self.stopped is None:
                        results.append(self.run_job(job, folder))
            finally:
                print_table(sweep_dir)
        if self.stopped is not None:
            raise Stopped(self.stopped)
        failed = [row for row in rows(sweep_dir) if row["status"] != "completed"]
        if failed:
            first = f"job {failed[0]['job']}: {failed[0]['status']}"
            raise ChildProcessError(f"{len(failed)} of {len(rows(sweep_dir))} jobs failed, the first is {first}")
        return results

    def prepare(
        self, sweep_dir: Path, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[tuple[JobReturn, Path]]:
        """The jobs' configs and folders, made and labelled: a job that is there already keeps its folder."""
        there = jobs(sweep_dir) if self.config.resume else {}
        number = max([initial_job_idx - 1, *(job["job"] for job in there.values())])
        prepared = []
        for overrides in job_overrides:
            folder = next((f for f, job in there.items() if alike(job["overrides"], overrides)), None)
            job = there.pop(folder) if folder else {"job": (number := number + 1), "overrides": essential(overrides)}
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = str(job["job"]), job["job"]
            if folder is None:
                folder = sweep_dir / str(config.hydra.sweep.subdir)
                folder.mkdir(parents=True, exist_ok=True)
                replace(folder / JOB_RECORD, json.dumps(job))
            prepared.append((JobReturn(overrides=overrides, cfg=config, working_dir=str(folder)), folder))
        return prepared

    def run_job(self, job: JobReturn, folder: Path) -> JobReturn:
        """One job, to its end: its outcome, and a summary with the cause where it left none."""
        assert job.cfg is not None
        if not (self.config.resume and read_summary(folder).get("status") == "completed"):
            print(f"job {job.cfg.hydra.job.num}: {' '.join(essential(job.overrides))}", flush=True)
            (folder / "summary.json").unlink(missing_ok=True)  # an earlier attempt's
            code = self.call([*self.entry(), *job.overrides, f"hydra.run.dir={quoted(folder.resolve())}"])
            if code != 0 and "status" not in read_summary(folder):
                replace(folder / "summary.json", json.dumps({"status": "failed", "error": cause(code)}) + "\n")
            write_table(Path(self.config.hydra.sweep.dir))
        job.status = JobStatus.COMPLETED  # what failed is told once for the whole sweep
        job.return_value = read_summary(folder).get("objective")
        return job

    def call(self, command: list[str]) -> int:
        """Run a job's command and return its exit code."""
        environment = {"WANDB_RUN_GROUP": Path(self.config.hydra.sweep.dir).name} | os.environ
        # In a group of its own, it hears Ctrl-C from here alone: twice would mean to leave without saving.
        self.process = subprocess.Popen(command, env=environment, process_group=0)
        if self.stopped:  # while it started
            self.process.send_signal(self.stopped)
        return self.process.wait()

    @contextmanager
    def relaying(self) -> Iterator[None]:
        """Pass signals to stop on to the running job, and take note of them."""

        def relay(signum: int, frame: Any) -> None:
            self.stopped = signum
            if self.process is not None:
                self.process.send_signal(signum)

        heard = [s for s in (*SIGNALS, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN]  # as nohup sets it
        former = {signum: signal.signal(signum, relay) for signum in heard}
        try:
            yield
        finally:
            for signum, handler in former.items():
                signal.signal(signum, handler)

    def entry(self) -> list[str]:
        """This program's command, with Hydra's own options."""
        main = sys.modules["__main__"]
        program = ["-m", main.__spec__.name] if main.__spec__ else [os.path.abspath(sys.argv[0])]
        extra = [s.path for s in self.config.hydra.runtime.config_sources if s.provider == "command-line"]
        mine = ("hydra.sweep", "hydra.mode", "hydra/")
        own = [text for text in plain(self.config.hydra.overrides.hydra) if not text.startswith(mine)]
        return [sys.executable, *program, *(f"--config-dir={path}" for path in extra), *own]


def plain(words: ListConfig) -> list[str]:
    """The words as they were said: a ``${...}`` in one is for the job's own config."""
    return OmegaConf.to_container(words)  # type: ignore[return-value]


def cause(code: int) -> str:
    """What an exit code says of a job that left no word itself."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if code - 128 in SIGNALS:
        return f"interrupted by {signal.Signals(code - 128).name}"
    return f"ended with exit code {code}"
