"""The launcher of sweeps: each job is a process of its own.

If a job raises, exits, is killed or crashes, its row in the table shows the reason, and the next job starts. No random
state, cache or memory passes from one job to the next.

Hydra finds launchers only in the namespace ``hydra_plugins``, whose folder ``vaezoo.cli`` adds to the path. It imports
them at each start, also for ``--help``: therefore nothing here imports torch.
"""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, open_dict

from vaezoo.runs.folder import RunFolder
from vaezoo.runs.jobs import Jobs, program_command, unresolved_overrides
from vaezoo.runs.overrides import relevant_overrides
from vaezoo.runs.record import check_sweep
from vaezoo.runs.signals import Stopped
from vaezoo.runs.sweep import print_sweep_table, sweep_rows, write_sweep_table


class SubprocessLauncher(Launcher):
    """A Hydra launcher that runs the jobs of a sweep one after another, each as a command of its own.

    With ``resume=auto`` in a sweep's old folder it runs the jobs that are not complete, each in its old folder.
    A signal to stop is forwarded to the running job; when the job has ended, the sweep ends too.
    """

    def setup(self, *, hydra_context, task_function, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, write ``summary.csv`` into the sweep's folder and print it.

        Raises:
            ValueError: the sweep has no jobs.
            ConfigError: the folder is in use, or holds other results.
            ChildProcessError: jobs have failed; the table is written all the same.
            Stopped: a signal has stopped the sweep.
        """
        setup_globals()
        if not job_overrides:
            raise ValueError("the sweep has no job: a glob(...) in it matches no choice, `--help` lists them")
        sweep_dir = Path(self.config.hydra.sweep.dir)
        sweep_dir.mkdir(parents=True, exist_ok=True)
        sweep = RunFolder(sweep_dir)
        only_here = ("hydra.sweep", "hydra.mode", "hydra/")
        hydra_overrides = unresolved_overrides(self.config.hydra.overrides.hydra)
        passed_on = [text for text in hydra_overrides if not text.startswith(only_here)]
        program = [*program_command(self.config.hydra), *passed_on]
        with sweep.lock():
            resumes, overrides = bool(self.config.resume), unresolved_overrides(self.config.hydra.overrides.task)
            if initial_job_idx == 0:  # a later batch of the same sweep finds the jobs of the earlier ones
                check_sweep(sweep, overrides, resumes)
            jobs = Jobs(sweep_dir, program, resumes, group=sweep_dir.name, first=initial_job_idx)
            with jobs.forwarding_signals():
                sweep.write_sweep(overrides)
                prepared = [self.prepare(jobs, list(own)) for own in job_overrides]
                try:
                    for job, folder in prepared:
                        if jobs.stop_signal is None:
                            self.run_job(jobs, job, folder)
                finally:
                    print_sweep_table(sweep_dir)
        if jobs.stop_signal is not None:
            raise Stopped(jobs.stop_signal)
        rows = sweep_rows(sweep_dir)
        failed = [row for row in rows if row["status"] != "completed"]
        if failed:
            first = f"job {failed[0]['job']}: {failed[0]['status']}"
            raise ChildProcessError(f"{len(failed)} of {len(rows)} jobs failed, the first is {first}")
        return [job for job, _ in prepared]

    def prepare(self, jobs: Jobs, overrides: list[str]) -> tuple[JobReturn, Path]:
        """Compose a job's config and create its folder; a job that exists already keeps its folder."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        number, folder = jobs.find(overrides)
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        folder = folder or jobs.create_folder(number, overrides, str(config.hydra.sweep.subdir))
        return JobReturn(overrides=overrides, cfg=config, working_dir=str(folder)), folder

    def run_job(self, jobs: Jobs, job: JobReturn, folder: Path) -> None:
        """Run a job to its end, and set its return value."""
        assert job.cfg is not None
        assert job.overrides is not None
        if not jobs.is_complete(folder):
            print(f"job {job.cfg.hydra.job.num}: {' '.join(relevant_overrides(job.overrides))}", flush=True)
            jobs.run(job.overrides, folder)
            write_sweep_table(jobs.folder)
        job.status = JobStatus.COMPLETED  # the launcher reports failures once, for the whole sweep
        job.return_value = RunFolder(folder).read_summary().get("objective")
