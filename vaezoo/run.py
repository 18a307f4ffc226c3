"""The command line: compose a config, run its task, and say in one sentence what went wrong.

Nothing heavy is imported at the top: ``--help``, completion and typing errors answer at once.
"""

import errno
import gc
import json
import os
import re
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaezoo.build import ConfigError, build, suggest
from vaezoo.files import held, replace
from vaezoo.resume import resumed
from vaezoo.signals import Stopped, requeue

# Errors that nobody meant for a user: they are named by their class.
UNWORDED = (RuntimeError, TypeError, AttributeError, LookupError, AssertionError, NameError, ImportError)


def config_folder() -> str:
    """conf/: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return str(next(path for path in (package / "conf", package.parent / "conf") if path.is_dir()))


def main() -> None:
    """Entry point of ``run.py``, ``python -m vaezoo`` and ``vaezoo``.

    Exit codes: 0 done, 1 an error, 128 + its number for a signal (130 Ctrl-C, 138 SIGUSR1, 143 SIGTERM).
    """
    # Hydra is to hand its errors over instead of printing them, since they are worded here.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.path.append(str(Path(__file__).parent / "plugins"))  # where Hydra finds the launcher of sweeps
    sys.path.append(os.getcwd())  # packages of the user's own, for the installed program too
    try:
        if first_process():  # which tells the others where to go
            arguments = resumed(sys.argv[1:], Path(config_folder(), "config.yaml"))
            if arguments is None:
                return
            sys.argv[1:] = arguments
        run()
    except (HydraException, OmegaConfBaseException, ConfigError, ValueError, OSError) as error:
        fail(error, debug="debug=true" in sys.argv)
    except Stopped as stop:
        then = requeue(stop) if first_process() else None
        print(f"{stop}; {then or 'the same command with resume=auto goes on'}", file=sys.stderr)
        sys.exit(128 + stop.signum)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


@hydra.main(version_base="1.3", config_path=config_folder(), config_name="config")
def run(cfg: DictConfig) -> None:
    """Run the task that the config names."""
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    if not first_process():
        return attempt(config)
    run_dir = Path(config["run_dir"])
    try:
        with held(run_dir):
            (run_dir / "summary.json").unlink(missing_ok=True)  # an earlier attempt's
            attempt(config)
    except (ConfigError, OSError) as error:  # of the folder: Hydra would put a line of its own before it
        fail(error, config["debug"])


def attempt(config: dict[str, Any]) -> None:
    """Run the task; an end before its end is told in ``summary.json``, where a sweep reads it."""
    try:
        gc.disable()  # looking for garbage is a quarter of the time that imports take, and they leave none
        try:
            if "wandb" in config["logger"] and config["run"] is None and first_process():  # evaluations log nothing
                # wandb.init imports this, and before Python 3.13 it takes the longer the more modules there are: half
                # a second after torch, whose turn is next.
                from wandb import Api  # noqa: F401
            task = build(config["task"], "task", tuple(config["trust"]))
        finally:
            gc.enable()
        task(config)
    except Exception as error:
        note(config, "failed", sentence(error))
        fail(error, config["debug"])
    except (KeyboardInterrupt, Stopped) as error:
        stop = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        note(config, "interrupted", f"interrupted by {stop.signum.name}")
        if first_process():  # Lightning would take the others' exit code for a crash, and kill the first
            raise stop from None


def note(config: dict[str, Any], status: str, cause: str) -> None:
    """Write the summary of a run that did not complete."""
    path = Path(config["run_dir"], "summary.json")
    if first_process() and not path.exists():
        summary = {"status": status, "error": cause, "model": config["name"], "config": config}
        replace(path, json.dumps(summary, indent=2) + "\n")


def first_process() -> bool:
    """Whether this is the process that keeps the run's books: of several, the first."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def fail(error: BaseException, debug: bool) -> None:
    """Print one sentence, or the traceback for who asks, and leave with exit code 1."""
    if debug:
        traceback.print_exception(error)
    hint = " (debug=true shows where)" if isinstance(error, UNWORDED) and not debug else ""
    print(f"error: {sentence(error)}{hint}", file=sys.stderr, flush=True)
    sys.exit(1)


def sentence(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={choice} is not a choice, {suggest(choice, error.options)}"
    match = re.search(r"Could not override '(.+?)'", str(error))
    if isinstance(error, ConfigCompositionException) and match:
        return unknown_key(match[1])
    if isinstance(error, OverrideParseException):
        reason = error.message.splitlines()[0]
        return f"{error.override} cannot be read ({reason}): lists and spaces need quotes, as in 'key=[1,2]'"
    if ambiguous := re.search(r"Ambiguous value for argument '(.+?)'", str(error)):
        return f"{ambiguous[1]} names several values: add -m for a sweep, or quote a list as in 'key=[1,2]'"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "no space left on the run's disk: make room, then the same command with resume=auto goes on"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if any(kind.__module__.startswith(("torch._dynamo", "torch._inductor")) for kind in type(error).__mro__):
        # All that the compiler said is in it, 100 kB at times: one line tells why.
        match = re.search(r"^.*\berror: .*$", str(error), re.MULTILINE)
        reason = match[0] if match else str(error).strip().partition("\n")[0]
        return f"torch.compile failed ({reason}): use compile=false, or install a C++ compiler that works, such as g++"
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {text}" if isinstance(error, UNWORDED) else text


def unknown_key(key: str) -> str:
    """The sentence for an override of a key that the config does not have."""
    group, _, part = key.rpartition("/")
    if group and Path(config_folder(), key).is_dir():
        return f"{key}: the chosen {group} takes no {part}, leave it out"
    overrides = [text for text in sys.argv[1:] if "=" in text and not text.startswith("-")]
    cfg = None
    while overrides and cfg is None:  # compose with what stands before the key that failed
        overrides = overrides[: next((i for i, o in enumerate(overrides) if o.lstrip("+~").startswith(key)), 0)]
        try:
            with hydra.initialize_config_dir(config_folder(), version_base="1.3"):
                cfg = hydra.compose("config", overrides)
        except HydraException:
            continue
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if cfg is not None and parent else cfg
    if not isinstance(node, DictConfig):
        return f"{key}: there is no such key; `--help` lists the choices and `--cfg job` the keys"
    names = [str(k) for k in node if not str(k).startswith("_")]
    return f"{key}: there is no such key, {suggest(name, names, f'{parent}.' if parent else '')}"
