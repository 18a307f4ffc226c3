"""The command line: compose a config, run its task, and say in one sentence what went wrong.

Nothing heavy is imported at the top: ``--help``, completion and typing errors answer at once.
"""

import difflib
import errno
import gc
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaezoo.build import ConfigError, build, locate, signature, suggest
from vaezoo.files import held, replace
from vaezoo.record import claim
from vaezoo.resume import config_folder, resumed
from vaezoo.signals import Stopped, requeue, tied
from vaezoo.streams import protect

# Errors that nobody meant for a user: they are named by their class.
UNWORDED = (RuntimeError, TypeError, AttributeError, LookupError, AssertionError, NameError, ImportError)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``run.py``, ``python -m vaezoo`` and ``vaezoo``; in a notebook, ``main(["model=iwae"])``.

    Exit codes: 0 done, 1 an error, 128 + its number for a signal (130 Ctrl-C, 138 SIGUSR1, 143 SIGTERM).

    Args:
        arguments: the command line without the program; by default that of this process.
    """
    protect()
    # Hydra is to hand its errors over instead of printing them, since they are worded here.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.path.append(str(Path(__file__).parent / "plugins"))  # where Hydra finds the launcher of sweeps
    sys.path.append(os.getcwd())  # packages of the user's own, for the installed program too
    command = sys.argv
    try:
        if arguments is None and hasattr(sys, "ps1"):  # sys.argv is that of the notebook or the interpreter
            raise ConfigError('main() has no command line here: give a list, such as main(["model=mlp_vae", "seed=1"])')
        words = command[1:] if arguments is None else arguments
        sys.argv = [command[0] if arguments is None else "vaezoo", *arranged(words)]
        if first_process():  # which tells the others where to go
            resuming = resumed(sys.argv[1:], Path(config_folder(), "config.yaml"))
            if resuming is None:
                return
            sys.argv[1:] = resuming
        with tied():
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
    finally:
        sys.argv = command


def arranged(arguments: Sequence[str]) -> list[str]:
    """The command line as Hydra reads it: its flags first, and ``--model.beta=4``, as W&B's agent puts it, a word.

    Raises:
        ConfigError: a flag that there is not.
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
    if not first_process():
        return attempt(config)
    run_dir = Path(config["run_dir"])
    try:
        with held(run_dir):
            claim(run_dir, cfg)
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
        return unknown_choice(str(error.missing_cfg_file), error.options)
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


def unknown_choice(path: str, options: Sequence[str]) -> str:
    """The sentence for a choice such as ``model/mlp_va`` that a group does not have."""
    folders = [path[: mark.start()] for mark in re.finditer(r"(?<!/)/", path)]
    group = next((name for name in reversed(folders) if Path(config_folder(), name).is_dir()), folders[0])
    choice = path[len(group) + 1 :]
    names_folder = group == "data" and ("/" in choice or Path(choice).is_dir())
    hint = f"; a folder is named by data.root={choice}" if names_folder else ""
    return f"{group}={choice} is not a choice, {suggest(choice, options)}{hint}"


def unknown_key(key: str) -> str:
    """The sentence for an override of a key that the config does not have."""
    group, _, part = key.rpartition("/")
    if group and Path(config_folder(), key).is_dir():
        return f"{key}: the chosen {group} takes no {part}, leave it out"
    words = [text for text in sys.argv[1:] if "=" in text and not text.startswith("-")]
    number = next((i for i, word in enumerate(words) if word.lstrip("+~").startswith(key)), 0)
    cfg = compose(words[:number])
    parent, _, name = key.rpartition(".")
    plus = f"add it with a plus, +{words[number]}" if words else f"add it with a plus, +{key}=VALUE"
    if name.startswith("_"):
        return f"{key}: the config does not list it, {plus}"
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if not isinstance(node, DictConfig):
        return f"{key}: there is no such key; `--help` lists the choices and `--cfg job` the keys"
    if not node:
        return f"{key}: there is no such key, {parent} is empty: choose a {parent}, or {plus}"
    if suggestion := accepting(node, name, parent, cfg):
        return f"{key}: the config does not list it, but {suggestion} takes it: {plus}"
    return f"{key}: there is no such key, {suggest_key(name, cfg, parent)}"


def compose(overrides: list[str]) -> DictConfig:
    """The config of as many of these overrides, from the first on, as go together."""
    while True:
        try:
            with hydra.initialize_config_dir(config_folder(), version_base="1.3"):
                return hydra.compose("config", overrides)
        except HydraException:
            if not overrides:
                raise
            overrides = overrides[:-1]


def accepting(node: DictConfig, name: str, at: str, cfg: DictConfig) -> str | None:
    """The name of a node's class or function when that has this argument, though the config does not list it."""
    if "_target_" not in node:
        return None
    target = locate(node["_target_"], at, tuple(cfg.trust))
    names, _, _, takes_any = signature(target)
    listed = [str(key) for key in node]
    known = name in names or (takes_any and not difflib.get_close_matches(name, listed, n=1))
    return target.__qualname__ if known else None


def suggest_key(name: str, cfg: DictConfig, parent: str = "") -> str:
    """What a key that does not exist may stand for: one of that name elsewhere, one beside it of a similar name, or
    one elsewhere of a similar name.
    """
    node = OmegaConf.select(cfg, parent) if parent else cfg
    beside = [str(key) for key in node if not str(key).startswith("_")]
    elsewhere: dict[str, list[str]] = {}
    for key in leaves(OmegaConf.to_container(cfg)):
        elsewhere.setdefault(key.rpartition(".")[2], []).append(key)
    similar = difflib.get_close_matches(name, elsewhere, n=1)
    if name not in elsewhere and (difflib.get_close_matches(name, beside, n=1) or not similar):
        return suggest(name, beside, f"{parent}." if parent else "")
    return f"did you mean {' or '.join(elsewhere[name] if name in elsewhere else elsewhere[similar[0]])}?"


def leaves(node: Any, at: str = "") -> Iterator[str]:
    """The dotted keys of the values in nested dicts."""
    if isinstance(node, dict):
        for key, value in node.items():
            if not str(key).startswith("_"):
                yield from leaves(value, f"{at}.{key}" if at else str(key))
    else:
        yield at
