"""The launcher of sweeps: each job is a process of its own, and several run at the same time (``jobs``).

If a job raises, exits, is killed or crashes, its row in the table shows the reason, and the others go on. No random
state, cache or memory passes from one job to the next.

Hydra finds launchers only in the namespace ``hydra_plugins``, whose folder ``vaezoo.cli`` adds to the path. It imports
them at each start, also for ``--help``: therefore nothing here imports torch.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, open_dict

from vaezoo.runs.folder import RunFolder, short_error
from vaezoo.runs.jobs import Jobs, program_command, unresolved_overrides
from vaezoo.runs.overrides import relevant_overrides
from vaezoo.runs.shares import divide_machine
from vaezoo.runs.signals import Stopped
from vaezoo.runs.sweep import write_sweep_table
from vaezoo.runs.sweep_callback import SweepCallback
from vaezoo.runs.warm import WarmProcess


class SubprocessLauncher(Launcher):
    """A Hydra launcher that runs the jobs of a sweep, ``jobs`` of them at a time, each as a command of its own.

    With ``resume=auto`` in a sweep's old folder it runs the jobs that are not complete, each in its old folder.
    A signal to stop is forwarded to the running jobs; when they have ended, the sweep ends too.

    Attributes:
        warm: the process whose forks are the jobs. A search launches each trial by itself, so it is kept until the
            sweep ends.
    """

    warm: WarmProcess | None = None

    def setup(self, *, hydra_context, task_function, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs. The value of a job that has failed is None, so that a search goes on without it.

        Raises:
            ValueError: the sweep has no jobs.
            Stopped: a signal has stopped the sweep.
            ConfigError: ``jobs`` is neither an integer >= 1 nor auto.
        """
        setup_globals()
        if not job_overrides:
            raise ValueError("the sweep has no job: a glob(...) in it matches no choice, `--help` lists them")
        sweep_dir = Path(self.config.hydra.sweep.dir)
        only_here = ("hydra.sweep", "hydra.mode", "hydra/")
        hydra_overrides = unresolved_overrides(self.config.hydra.overrides.hydra)
        passed_on = [text for text in hydra_overrides if not text.startswith(only_here)]
        program = [*program_command(self.config.hydra), *passed_on]
        jobs = Jobs(sweep_dir, program, bool(self.config.resume), group=sweep_dir.name, first=initial_job_idx)
        jobs.warm = self.warm
        with jobs.forwarding_signals():
            prepared = [self.prepare(jobs, list(own)) for own in job_overrides]
            left = [job for job in prepared if not jobs.is_complete(Path(job.working_dir))]
            shares = divide_machine(self.config.jobs, [job.cfg for job in left], len(left), sweep_dir / ".training")
            jobs.log = len(shares) > 1  # otherwise the output of several jobs would be mixed
            for job in jobs.run_all(partial(self.run_job, jobs), left, shares):
                write_sweep_table(sweep_dir)
                if jobs.log:
                    print(f"job {job.cfg.hydra.job.num}: {job_status(job)}", flush=True)
        for job in prepared:
            job.status = JobStatus.COMPLETED  # failures are reported once, for the whole sweep
            job.return_value = RunFolder(job.working_dir).read_summary().get("objective")
        if self.warm is None and SweepCallback.running is not None:
            SweepCallback.running.resources.callback(self.close)
        self.warm = jobs.warm
        if jobs.stop_signal is not None:
            raise Stopped(jobs.stop_signal)
        return prepared

    def close(self) -> None:
        """End the warm process, if there is one."""
        if self.warm is not None:
            self.warm.close()
            self.warm = None

    def prepare(self, jobs: Jobs, overrides: list[str]) -> JobReturn:
        """Compose a job's config and create its folder; a job that exists already keeps its folder."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        number, folder = jobs.find(overrides)
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        folder = folder or jobs.create_folder(number, overrides, str(config.hydra.sweep.subdir))
        return JobReturn(overrides=overrides, cfg=config, working_dir=str(folder))

    def run_job(self, jobs: Jobs, job: JobReturn, share: Mapping[str, str]) -> None:
        """Run a job to its end, unless a signal has stopped the sweep."""
        if jobs.stop_signal is None:
            text = f"job {job.cfg.hydra.job.num}: {' '.join(relevant_overrides(job.overrides))}\n"
            print(text, end="", flush=True)  # in one piece: other threads print, too
            jobs.run(job.overrides, Path(job.working_dir), share)


def job_status(job: JobReturn) -> str:
    """Describe how a job has ended: its test ELBO, or the reason why it has none."""
    summary = RunFolder(job.working_dir).read_summary()
    elbo = summary.get("test", {}).get("elbo")
    status = short_error(summary.get("error") or summary.get("status", "not finished"))
    return status if elbo is None else f"{status}, test ELBO {elbo:.2f}"
