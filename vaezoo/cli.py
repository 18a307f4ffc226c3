"""The command line: from ``python run.py`` to the exit code.

1. ``main`` reads the arguments and, for ``resume=auto`` and ``run=FOLDER``, finds the folder in which the command
   continues (``runs.resume``).
2. ``run`` gets the config that Hydra composes from conf/ and the overrides, locks the run's folder and records the
   command in it.
3. ``run_task`` builds the task that the config names (``tasks``) and calls it. If it fails or is interrupted, the
   reason is written to ``summary.json``.
4. An error is printed as one sentence. The exit code is 0 if the task is done, 1 after an error, and 128 plus the
   signal's number after a signal.

Nothing heavy is imported at the top, so that ``--help``, completion and typing errors answer at once.
"""

import argparse
import atexit
import gc
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser  # Hydra has no public parser of its flags
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaezoo.config_folder import config_folder, help_text, offer_plugins
from vaezoo.error_messages import INTERNAL_ERRORS, compose, describe_error, suggest_key
from vaezoo.errors import ConfigError
from vaezoo.instantiate import build
from vaezoo.runs.folder import RunFolder
from vaezoo.runs.overrides import quote_unreadable
from vaezoo.runs.record import record_command
from vaezoo.runs.resume import can_resume, choose_task_folder, resolve_resume
from vaezoo.runs.signals import Stopped, handling_signals, requeue_slurm_job, stopping_with_parent
from vaezoo.runs.sweep_callback import reporting_sweep
from vaezoo.streams import protect_output

TRAINING_TASKS = ("fit", "compare")  # their folders are kept if they are refused: sweeps and reports say why


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command: the entry point of ``run.py``, ``python -m vaezoo`` and ``vaezoo``.

    In a notebook, call ``main(["model=iwae"])``. Exit codes: 0 done, 1 an error, 128 + its number for a signal
    (130 Ctrl-C, 138 SIGUSR1, 143 SIGTERM).

    Args:
        arguments: the command line without the program; by default that of this process.
    """
    protect_output()
    atexit.register(gc.freeze)  # otherwise the interpreter looks for garbage in all modules before it exits: 1 to 2 s
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors; without this it prints them and exits
    offer_plugins()
    sys.path.append(os.getcwd())  # the user's own packages, also for the installed program
    argv = sys.argv
    try:
        if arguments is None and hasattr(sys, "ps1"):  # sys.argv is that of the notebook or the interpreter
            raise ConfigError('main() has no command line here: give a list, such as main(["model=mlp_vae", "seed=1"])')
        args = parse_arguments(argv[1:] if arguments is None else arguments)
        if args.help:
            print(help_text([config_folder(), *filter(None, [args.config_dir])]))
            return
        program = argv[0] if arguments is None else str(Path(__file__).with_name("__main__.py"))
        shows_only = args.hydra_help or args.cfg or args.info or args.shell_completion
        if is_first_process() and not shows_only:  # the first process passes its arguments on to the others
            overrides = resolve_resume(args.overrides, args.multirun)
            if overrides is None:  # the run is complete
                return
            args.overrides = overrides if args.multirun else choose_task_folder(overrides)
        sys.argv = [program, *to_argv(args)]  # Hydra, and Lightning for its other processes, read it
        with stopping_with_parent(), reporting_sweep():
            run()
    except (HydraException, OmegaConfBaseException, ConfigError, ValueError, OSError) as error:
        exit_with_error(error, debug="debug=true" in sys.argv)
    except Stopped as stop:
        requeued = requeue_slurm_job(stop) if is_first_process() else None
        again = "repeat the command" + " with resume=auto to continue" * can_resume(sys.argv)
        print(f"{stop}; {requeued or again}", file=sys.stderr)
        sys.exit(128 + stop.signum)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    finally:
        sys.argv = argv


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return Hydra's flags and the overrides, in any order.

    An override may begin with two dashes, as those of ``wandb agent`` do (``--model.beta=4``). The agent also writes
    None for the null of a sweep's YAML file. A value that Hydra's grammar cannot read is text, and gets quotes.

    Raises:
        ConfigError: an unknown flag.
    """

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}: see `--help`")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]  # otherwise it prints seven lines and exits
    parser.allow_abbrev = False  # otherwise --experiment=mnist would be Hydra's --experimental-rerun
    with_value = {f"--{name.replace('_', '-')}" for name, value in vars(parser.parse_args([])).items() if value is None}

    def without_dashes(text: str) -> str:
        name, equals, _ = text.partition("=")
        is_override = text.startswith("--") and equals and name not in with_value
        return re.sub("=None$", "=null", text[2:]) if is_override else text

    args, unknown = parser.parse_known_intermixed_args([without_dashes(text) for text in arguments])
    if unknown:
        name = unknown[0].lstrip("-").replace("-", "_")
        suggestion = suggest_key(name, compose([]))
        raise ConfigError(f"{unknown[0]} is not an option, keys are set as in KEY=VALUE: {suggestion}")
    args.overrides = list(map(quote_unreadable, args.overrides))
    return args


def to_argv(args: argparse.Namespace) -> list[str]:
    """Return arguments as a command line, with Hydra's flags before the overrides."""
    flags = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in vars(args).items()
        if name != "overrides" and value not in (None, False)
    ]
    return [*flags, *args.overrides]


@hydra.main(version_base="1.3", config_path=config_folder(), config_name="config")
def run(cfg: DictConfig) -> float | None:
    """Lock the run's folder, record the command in it and run the task that the config names.

    Returns:
        The objective in ``summary.json``, for sweepers; None if there is none. If Hydra runs the jobs of a sweep in its
        own processes, a job that fails does not end its process.
    """
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    folder, is_job = RunFolder(config["run_dir"]), HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        if not (is_job and config["resume"] and folder.is_completed):
            run_in_folder(folder, cfg, config)
    except SystemExit:
        if not is_job:
            raise
        return None
    return folder.read_summary().get("objective")


def run_in_folder(folder: RunFolder, cfg: DictConfig, config: dict[str, Any]) -> None:
    """Lock the run's folder, record the command in it and run the task.

    Args:
        folder: the run's folder.
        cfg: the config.
        config: the same config, resolved.
    """
    try:
        packages = config["allow_packages"]
        if not isinstance(packages, list) or not all(isinstance(name, str) for name in packages):
            raise ConfigError(
                f"allow_packages={packages} should be a list of packages, such as 'allow_packages=[mypackage]'"
            )
        if not is_first_process():
            return run_task(config)
        with folder.lock():
            record_command(folder, cfg)
            run_task(config)
    except (ConfigError, OSError) as error:  # of the folder; Hydra would print a line of its own before the message
        exit_with_error(error, config["debug"])


def run_task(config: dict[str, Any]) -> None:
    """Run the task. If it fails or is interrupted, record the reason in ``summary.json``, where a sweep reads it."""
    try:
        announce(config)
        gc.disable()  # garbage collection takes a quarter of the import time and frees nothing
        try:
            if "wandb" in config["logger"] and config["run"] is None and is_first_process():
                # wandb.init imports this module, and before Python 3.13 that takes longer the more modules are loaded:
                # half a second after torch, which is imported next.
                from wandb import Api  # noqa: F401
            task = build(config["task"], "task", tuple(config["allow_packages"]))
        finally:
            gc.enable()
        with handling_signals():
            task(config)
    except Exception as error:
        record_failure(config, "failed", describe_error(error))
        if isinstance(error, ConfigError) and HydraConfig.get().runtime.choices["task"] not in TRAINING_TASKS:
            RunFolder(config["run_dir"]).remove_record()
        exit_with_error(error, config["debug"])
    except (KeyboardInterrupt, Stopped) as error:
        stop = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        record_failure(config, "interrupted", f"interrupted by {stop.signum.name}")
        if is_first_process():  # a non-zero exit code of another process would make Lightning kill the first one
            raise stop from None


def announce(config: dict[str, Any]) -> None:
    """Say what will be trained, before the seconds of imports; a process that has imported torch starts at once."""
    choices = HydraConfig.get().runtime.choices
    if choices["task"] == "fit" and is_first_process() and "torch" not in sys.modules:
        print(f"starting {config['name']} on {choices['data']}, seed {config['seed']}", file=sys.stderr, flush=True)


def record_failure(config: dict[str, Any], status: str, error: str) -> None:
    """Write the summary of a run that did not complete, unless it has one."""
    folder = RunFolder(config["run_dir"])
    if is_first_process() and not folder.has_summary:
        folder.write_summary({"status": status, "error": error, "model": config["name"], "config": config})


def is_first_process() -> bool:
    """Return whether this process writes the files of the run: of several processes, the first one does."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def exit_with_error(error: BaseException, debug: bool) -> NoReturn:
    """Print an error as one sentence, with ``debug=true`` also the traceback, and exit with code 1."""
    if debug:
        traceback.print_exception(error)
    hint = " (debug=true shows where)" if isinstance(error, INTERNAL_ERRORS) and not debug else ""
    print(f"error: {describe_error(error)}{hint}", file=sys.stderr, flush=True)
    sys.exit(1)
