"""The callback of Hydra for sweeps and their jobs. It is the same for every launcher and sweeper."""

import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.utils import JobReturn, env_override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from vaezoo.errors import ConfigError
from vaezoo.runs.folder import RunFolder, write_atomic
from vaezoo.runs.jobs import config_dirs, unresolved_overrides
from vaezoo.runs.record import check_sweep
from vaezoo.runs.shares import check_jobs
from vaezoo.runs.sweep import best_rows, print_sweep_table, sweep_rows, write_sweep_table


@dataclass
class Sweep:
    """A sweep that runs in this process.

    Args:
        folder: its folder.
        direction: "maximize" or "minimize" if it searches for the best objective of a run; else None.
        program: how the user starts this program: ``python run.py`` or ``vaezoo``, with folders of configs.
        resources: what it holds: the lock of the folder and environment variables.
    """

    folder: Path
    direction: str | None
    program: str
    resources: ExitStack


class SweepCallback(Callback):
    """Functions that Hydra calls when a sweep and its jobs start and end (``hydra.callbacks`` in conf/config.yaml).

    Attributes:
        running: the sweep of this process; None if there is none. It belongs to the class, because Hydra creates the
            object and sends copies of it to the processes of jobs.
    """

    running: ClassVar[Sweep | None] = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Lock the sweep's folder, record the command in it, and print what a search optimizes.

        If the folder holds other results, exit with the reason: Hydra would turn an exception into a warning.
        """
        try:
            SweepCallback.running = start_sweep(config)
        except (ConfigError, OmegaConfBaseException, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Record the number and the overrides of a job in its folder."""
        if config.hydra.mode == RunMode.MULTIRUN:  # the launcher of vaezoo starts commands of their own
            overrides = unresolved_overrides(config.hydra.overrides.task)
            RunFolder(config.hydra.runtime.output_dir).write_job(config.hydra.job.num, overrides)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Write the table anew. (Hydra calls ``on_multirun_end`` only if no job has failed.)"""
        if config.hydra.mode == RunMode.MULTIRUN:
            write_sweep_table(Path(config.hydra.sweep.dir))


def start_sweep(config: DictConfig) -> Sweep:
    """Lock the folder of a sweep and record its command.

    Args:
        config: the config of the sweep, with Hydra's own part.

    Raises:
        ConfigError: ``jobs`` is wrong, the folder is in use or holds other results, or several values are to be
            optimized.
    """
    check_jobs(config.jobs)
    folder = RunFolder(config.hydra.sweep.dir)
    try:
        direction = OmegaConf.select(config, "hydra.sweeper.direction")
    except InterpolationResolutionError as error:
        raise ConfigError(
            "the direction of the search follows callbacks.checkpoint_best, which is null: add "
            "hydra.sweeper.direction=maximize, or minimize"
        ) from error
    if direction not in (None, "maximize", "minimize"):
        raise ConfigError(f"hydra.sweeper.direction={direction}: use maximize or minimize, a run has one objective")
    folder.path.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(folder.lock())
        overrides = unresolved_overrides(config.hydra.overrides.task)
        check_sweep(folder, overrides, resumes=bool(config.resume))
        folder.write_sweep(overrides)
        stack.enter_context(env_override(job_environment(folder.path)))
        if direction:
            silence_optuna()
            monitor = OmegaConf.select(config, "callbacks.checkpoint_best.monitor")
            monitor = f"{monitor} of a run" if monitor else "val/elbo of a run (val/log_px of a model without an ELBO)"
            print(f"{config.hydra.sweeper.n_trials} trials {direction} the best {monitor}", flush=True)
        return Sweep(folder.path, direction, shown_program(config.hydra), stack.pop_all())


def silence_optuna() -> None:
    """Silence Optuna's log and that of its sweeper: the table tells which trials have failed, and why."""
    with suppress(ImportError):  # a search by another sweeper
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.CRITICAL)


def shown_program(hydra: Any) -> str:
    """Return the command that starts this program, without overrides, as a user types it.

    Args:
        hydra: Hydra's own part of the config.
    """
    script = Path(sys.argv[0])
    if script.name == "__main__.py":
        start = ["python", "-m", "vaezoo"]
    else:
        start = ["python", str(script)] if script.suffix == ".py" else [script.name]
    return shlex.join([*start, *config_dirs(hydra)])


def job_environment(sweep_dir: Path) -> dict[str, str]:
    """Return environment variables for jobs of other launchers: the folder of vaezoo's plugins, and the W&B group."""
    path = (os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[1] / "plugins"))
    group = os.environ.get("WANDB_RUN_GROUP", sweep_dir.name)
    return {"PYTHONPATH": os.pathsep.join(filter(None, path)), "WANDB_RUN_GROUP": group}


@contextmanager
def reporting_sweep() -> Iterator[None]:
    """Print the table of a sweep that Hydra runs in a block, also if it is interrupted.

    Raises:
        ChildProcessError: jobs have failed. In a search, a failed trial is no error unless all of them have failed.
    """
    try:
        yield
    except Exception as error:
        failures = finish_sweep()
        if not failures or isinstance(error, ConfigError | HydraException | OmegaConfBaseException):
            raise
        raise ChildProcessError(failures) from error  # errors of sweepers and launchers do not say what has failed
    except BaseException:
        finish_sweep()
        raise
    if failures := finish_sweep():
        raise ChildProcessError(failures)


def finish_sweep() -> str:
    """Print the table of the sweep of this process, if there is one, and release what it holds.

    Returns:
        How many jobs failed, and why the first one did. Empty if none did, or if a search has a best job all the same.
    """
    sweep, SweepCallback.running = SweepCallback.running, None
    if sweep is None:
        return ""
    with sweep.resources:
        rows = sweep_rows(sweep.folder)
        if not rows:
            return ""
        print_sweep_table(sweep.folder, sweep.direction)
        failed = [row for row in rows if row["status"] != "completed"]
        found = sweep.direction is not None and print_best(sweep, rows)
        if found or not failed:
            return ""
        return f"{len(failed)} of {len(rows)} jobs failed, the first is job {failed[0]['job']}: {failed[0]['status']}"


def print_best(sweep: Sweep, rows: list[dict[str, Any]]) -> bool:
    """Print the best trial of a search as a command, and write the command into the sweep's folder.

    Args:
        sweep: the search.
        rows: its jobs.

    Returns:
        Whether there is a trial with a value.
    """
    assert sweep.direction is not None
    best = best_rows(rows, "objective", sweep.direction)
    kinds = [row["scored"] for row in best]
    if len(best) > 1:
        print(f"no best trial: log p(x) of {', '.join(kinds)} cannot be compared")
    elif best:
        (row,) = best
        command = f"{sweep.program} {shlex.join(row['override_list'])}"
        write_atomic(sweep.folder / "best_command.txt", command + "\n")
        print(f"best: job {row['job']}, objective {row['objective']:.4f}; {sweep.folder / 'best_command.txt'}:")
        print(command, flush=True)
    return bool(best)
