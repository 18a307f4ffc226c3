"""The launcher of sweeps: each job in a process of its own.

A job that raises, exits, is killed or crashes becomes a row with its cause and the rest go on; no
random state, cache or memory passes from one job to the next. Hydra takes launchers from the
namespace ``hydra_plugins`` only; ``vaezoo.cli`` puts this one on the path.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, open_dict

from vaezoo.report.tables import print_table
from vaezoo.runs.folder import SWEEP_RECORD, locked, read_summary, relevant_overrides, write_atomic
from vaezoo.runs.jobs import Jobs, program_command, unresolved_overrides
from vaezoo.runs.record import check_sweep
from vaezoo.runs.signals import Stopped
from vaezoo.runs.sweep import sweep_rows, write_sweep_table


class SubprocessLauncher(Launcher):
    """A Hydra launcher that runs the jobs one after another as commands of their own.

    With ``resume=auto`` in a sweep's old folder it runs the jobs that are not complete, each in its old folder.
    A signal to stop is passed on to the running job; when that has ended, the sweep ends too.
    """

    def setup(self, *, hydra_context, task_function, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, write ``summary.csv`` in the sweep's folder and print it."""
        setup_globals()
        if not job_overrides:
            raise ValueError("the sweep has no job: a glob(...) in it matches no choice, `--help` lists them")
        sweep_dir = Path(self.config.hydra.sweep.dir)
        sweep_dir.mkdir(parents=True, exist_ok=True)
        mine = ("hydra.sweep", "hydra.mode", "hydra/")
        own = [text for text in unresolved_overrides(self.config.hydra.overrides.hydra) if not text.startswith(mine)]
        command = [*program_command(self.config.hydra), *own]
        with locked(sweep_dir):
            again, words = bool(self.config.resume), unresolved_overrides(self.config.hydra.overrides.task)
            if initial_job_idx == 0:  # a later batch of the same sweep finds the jobs of the earlier ones
                check_sweep(sweep_dir, words, again)
            jobs = Jobs(sweep_dir, command, again, group=sweep_dir.name, first=initial_job_idx)
            with jobs.forwarding_signals():
                write_atomic(sweep_dir / SWEEP_RECORD, json.dumps(words))
                prepared = [self.prepare(jobs, list(overrides)) for overrides in job_overrides]
                try:
                    for job, folder in prepared:
                        if jobs.stop_signal is None:
                            self.run_job(jobs, job, folder)
                finally:
                    print_table(sweep_dir)
        if jobs.stop_signal is not None:
            raise Stopped(jobs.stop_signal)
        failed = [row for row in sweep_rows(sweep_dir) if row["status"] != "completed"]
        if failed:
            first = f"job {failed[0]['job']}: {failed[0]['status']}"
            raise ChildProcessError(f"{len(failed)} of {len(sweep_rows(sweep_dir))} jobs failed, the first is {first}")
        return [job for job, _ in prepared]

    def prepare(self, jobs: Jobs, overrides: list[str]) -> tuple[JobReturn, Path]:
        """A job's config and folder, made and labelled: a job that is there already keeps its folder."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        number, folder = jobs.find(overrides)
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        folder = folder or jobs.create_folder(number, overrides, str(config.hydra.sweep.subdir))
        return JobReturn(overrides=overrides, cfg=config, working_dir=str(folder)), folder

    def run_job(self, jobs: Jobs, job: JobReturn, folder: Path) -> None:
        """One job, to its end, and its outcome."""
        assert job.cfg is not None
        assert job.overrides is not None
        if not jobs.complete(folder):
            print(f"job {job.cfg.hydra.job.num}: {' '.join(relevant_overrides(job.overrides))}", flush=True)
            jobs.run(job.overrides, folder)
            write_sweep_table(jobs.folder)
        job.status = JobStatus.COMPLETED  # what failed is told once for the whole sweep
        job.return_value = read_summary(folder).get("objective")
