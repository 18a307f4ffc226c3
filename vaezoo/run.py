"""The command line: compose a config, run its task, and say in one sentence what went wrong.

Nothing heavy is imported at the top: ``--help``, completion and typing errors answer at once.
"""

import json
import os
import re
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

# Errors that nobody meant for a user: they are named by their class.
UNWORDED = (RuntimeError, TypeError, AttributeError, LookupError, AssertionError, NameError, ImportError)


def config_folder() -> str:
    """conf/: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return str(next(path for path in (package / "conf", package.parent / "conf") if path.is_dir()))


def main() -> None:
    """Entry point of ``run.py``, ``python -m vaezoo`` and ``vaezoo``."""
    # Hydra is to hand its errors over instead of printing them, since they are worded here.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.path.append(str(Path(__file__).parent / "plugins"))  # where Hydra finds the launcher of sweeps
    sys.path.append(os.getcwd())  # packages of the user's own, for the installed program too
    try:
        run()
    except (HydraException, OmegaConfBaseException, ConfigError, ValueError, OSError) as error:
        fail(error, debug="debug=true" in sys.argv)
    except KeyboardInterrupt as stop:
        print(f"interrupted; {stop}" if str(stop) else "interrupted", file=sys.stderr)
        sys.exit(130)


@hydra.main(version_base="1.3", config_path=config_folder(), config_name="config")
def run(cfg: DictConfig) -> None:
    """Run the task that the config names."""
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    run_dir = Path(config["run_dir"])
    try:
        build(config["task"], "task", tuple(config["trust"]))(config)
    except (Exception, KeyboardInterrupt) as error:
        stopped = isinstance(error, KeyboardInterrupt)
        # A sweep reads the cause of a failed job here. The first process alone writes it.
        if os.environ.get("LOCAL_RANK", "0") == "0" and not (run_dir / "summary.json").exists():
            cause = "interrupted" if stopped else sentence(error)
            summary = {"status": "failed", "error": cause, "model": config["name"], "config": config}
            (run_dir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        if stopped:
            raise
        fail(error, config["debug"])


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
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
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
