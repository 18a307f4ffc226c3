"""The command line: compose a config, run its task, and say in one sentence what went wrong.

Nothing heavy is imported at the top: ``--help``, completion and typing errors answer at once.
"""

import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaezoo.error_messages import INTERNAL_ERRORS, compose, describe_error, suggest_key
from vaezoo.errors import ConfigError
from vaezoo.instantiate import build
from vaezoo.runs.folder import locked, write_atomic
from vaezoo.runs.record import record_command
from vaezoo.runs.resume import config_folder, resolve_resume_args
from vaezoo.runs.signals import Stopped, requeue_slurm_job, stopping_with_parent
from vaezoo.streams import protect_output


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``run.py``, ``python -m vaezoo`` and ``vaezoo``; in a notebook, ``main(["model=iwae"])``.

    Exit codes: 0 done, 1 an error, 128 + its number for a signal (130 Ctrl-C, 138 SIGUSR1, 143 SIGTERM).

    Args:
        arguments: the command line without the program; by default that of this process.
    """
    protect_output()
    # Hydra is to hand its errors over instead of printing them, since they are worded here.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.path.append(str(Path(__file__).parent / "plugins"))  # where Hydra finds the launcher of sweeps
    sys.path.append(os.getcwd())  # packages of the user's own, for the installed program too
    command = sys.argv
    try:
        if arguments is None and hasattr(sys, "ps1"):  # sys.argv is that of the notebook or the interpreter
            raise ConfigError('main() has no command line here: give a list, such as main(["model=mlp_vae", "seed=1"])')
        words = command[1:] if arguments is None else arguments
        program = command[0] if arguments is None else str(Path(__file__).with_name("__main__.py"))
        sys.argv = [program, *normalize_arguments(words)]
        if is_first_process():  # which tells the others where to go
            resuming = resolve_resume_args(sys.argv[1:], Path(config_folder(), "config.yaml"))
            if resuming is None:
                return
            sys.argv[1:] = resuming
        with stopping_with_parent():
            run()
    except (HydraException, OmegaConfBaseException, ConfigError, ValueError, OSError) as error:
        exit_with_error(error, debug="debug=true" in sys.argv)
    except Stopped as stop:
        then = requeue_slurm_job(stop) if is_first_process() else None
        print(f"{stop}; {then or 'the same command with resume=auto goes on'}", file=sys.stderr)
        sys.exit(128 + stop.signum)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    finally:
        sys.argv = command


def normalize_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the command line with Hydra's flags first, and ``--model.beta=4`` (W&B's agent) as an override.

    Raises:
        ConfigError: an unknown flag.
    """

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}: `--help` shows how a command looks")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]  # otherwise it prints seven lines and exits
    _, unknown = parser.parse_known_intermixed_args(arguments)
    words = [word.lstrip("-") if word in unknown and "=" in word else word for word in arguments]
    known, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        name = unknown[0].lstrip("-").replace("-", "_")
        fix = suggest_key(name, compose([]))
        raise ConfigError(f"{unknown[0]} is not an option, keys are set as in KEY=VALUE: {fix}")
    flags = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in vars(known).items()
        if name != "overrides" and value not in (None, False)
    ]
    return [*flags, *known.overrides]


@hydra.main(version_base="1.3", config_path=config_folder(), config_name="config")
def run(cfg: DictConfig) -> None:
    """Run the task that the config names."""
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    packages = config["allow_packages"]
    if not isinstance(packages, list) or not all(isinstance(name, str) for name in packages):
        exit_with_error(
            ConfigError(
                f"allow_packages={packages} should be a list of packages, such as 'allow_packages=[mypackage]'"
            ),
            config["debug"],
        )
    if not is_first_process():
        return run_task(config)
    run_dir = Path(config["run_dir"])
    try:
        with locked(run_dir):
            record_command(run_dir, cfg)
            run_task(config)
    except (ConfigError, OSError) as error:  # of the folder: Hydra would put a line of its own before it
        exit_with_error(error, config["debug"])


def run_task(config: dict[str, Any]) -> None:
    """Run the task; an end before its end is told in ``summary.json``, where a sweep reads it."""
    try:
        gc.disable()  # looking for garbage is a quarter of the time that imports take, and they leave none
        try:
            if "wandb" in config["logger"] and config["run"] is None and is_first_process():  # evaluations log nothing
                # wandb.init imports this, and before Python 3.13 it takes the longer the more modules there are: half
                # a second after torch, whose turn is next.
                from wandb import Api  # noqa: F401
            task = build(config["task"], "task", tuple(config["allow_packages"]))
        finally:
            gc.enable()
        task(config)
    except Exception as error:
        record_failure(config, "failed", describe_error(error))
        exit_with_error(error, config["debug"])
    except (KeyboardInterrupt, Stopped) as error:
        stop = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        record_failure(config, "interrupted", f"interrupted by {stop.signum.name}")
        if is_first_process():  # Lightning would take the others' exit code for a crash, and kill the first
            raise stop from None


def record_failure(config: dict[str, Any], status: str, cause: str) -> None:
    """Write the summary of a run that did not complete."""
    path = Path(config["run_dir"], "summary.json")
    if is_first_process() and not path.exists():
        summary = {"status": status, "error": cause, "model": config["name"], "config": config}
        write_atomic(path, json.dumps(summary, indent=2) + "\n")


def is_first_process() -> bool:
    """Whether this is the process that keeps the run's books: of several, the first."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def exit_with_error(error: BaseException, debug: bool) -> None:
    """Print one sentence, or the traceback for who asks, and leave with exit code 1."""
    if debug:
        traceback.print_exception(error)
    hint = " (debug=true shows where)" if isinstance(error, INTERNAL_ERRORS) and not debug else ""
    print(f"error: {describe_error(error)}{hint}", file=sys.stderr, flush=True)
    sys.exit(1)
