"""Errors in one sentence: what is wrong, the value, and what to do."""

import difflib
import errno
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from vaezoo.config_folder import config_folder
from vaezoo.errors import ConfigError, escape_unprintable, suggest
from vaezoo.instantiate import locate, signature
from vaezoo.old_names import NEW_KEYS

# Internal errors: the message is prefixed with the class name.
INTERNAL_ERRORS = (RuntimeError, TypeError, AttributeError, LookupError, AssertionError, NameError, ImportError)


def describe_error(error: BaseException, overrides: Sequence[str] | None = None) -> str:
    """Describe an error in one sentence.

    Args:
        error: the exception.
        overrides: the overrides that may have caused it; by default those of the command line.
    """
    overrides = sys.argv[1:] if overrides is None else overrides
    if isinstance(error, MissingConfigException) and error.options:
        return describe_unknown_choice(str(error.missing_cfg_file), error.options)
    match = re.search(r"Could not override '(.+?)'", str(error))
    if isinstance(error, ConfigCompositionException) and match:
        return describe_unknown_key(match[1], overrides)
    if "Config group override must be a string or a list" in str(error):
        pairs = [text.partition("=")[::2] for text in overrides]
        groups = (key for key, value in pairs if value == "null" and Path(config_folder(), key).is_dir())
        return f"{next(groups, 'the group')}=null is not a choice: name one of its group, `--help` lists them"
    if isinstance(error, OverrideParseException):
        reason = error.message.splitlines()[0]
        quotes = """lists and spaces need quotes, as in 'key=[1,2]', other signs two kinds, as in 'key="a name"'"""
        return f"{error.override} cannot be read ({reason}): {quotes}"
    if ambiguous := re.search(r"Ambiguous value for argument '(.+?)'", str(error)):
        return f"{ambiguous[1]} names several values: add -m for a sweep, or quote a list as in 'key=[1,2]'"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "no space left on the run's disk: make room, then repeat the command with resume=auto to continue"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if any(kind.__module__.startswith(("torch._dynamo", "torch._inductor")) for kind in type(error).__mro__):
        # The message has all output of the compiler, up to 100 kB. One line of it tells the reason.
        match = re.search(r"^.*\berror: .*$", str(error), re.MULTILINE)
        reason = match[0] if match else str(error).strip().partition("\n")[0]
        return f"torch.compile failed ({reason}): use compile=false, or install a C++ compiler that works, such as g++"
    text = escape_unprintable(" ".join(str(error).split())) or type(error).__name__
    return f"{type(error).__name__}: {text}" if isinstance(error, INTERNAL_ERRORS) else text


# The data module that reads a file, by its suffix.
READERS = {
    ".csv": "table", ".tsv": "table", ".parquet": "table", ".txt": "text",
    ".npy": "array", ".npz": "array", ".pt": "array", ".h5": "array",
}  # fmt: skip


def describe_unknown_choice(path: str, options: Sequence[str]) -> str:
    """Describe a choice that a config group does not have.

    Args:
        path: group and choice, such as ``model/mlp_va``.
        options: the choices of the group.
    """
    if path.startswith(("hydra/launcher/", "hydra/sweeper/")):
        group, _, choice = path.rpartition("/")
        extra = "optuna, joblib and submitit need pip install 'vaezoo[sweep]'"
        return f"{group}={choice} is not a choice, {suggest(choice, options)}; {extra}"
    folders = [path[: mark.start()] for mark in re.finditer(r"(?<!/)/", path)]
    group = next((name for name in reversed(folders) if Path(config_folder(), name).is_dir()), folders[0])
    choice = path[len(group) + 1 :]
    hint = suggest(choice, options)
    if group == "data" and (reader := READERS.get(Path(choice).suffix.lower())):
        hint = f"a file of this kind is read by data={reader} data.path={choice}"
    elif group == "data" and ("/" in choice or Path(choice).is_dir()):
        hint = f"a folder of pictures is read by data=folder data.root={choice}"
    return f"{group}={choice} is not a choice, {hint}"


def describe_unknown_key(key: str, overrides: Sequence[str]) -> str:
    """Describe an override of a key that the config does not have.

    Args:
        key: the key that Hydra could not override.
        overrides: those of the command.
    """
    if key in NEW_KEYS:
        return f"{key} has a new name: use {NEW_KEYS[key]}"
    group, _, part = key.rpartition("/")
    if group and Path(config_folder(), key).is_dir():
        return f"{key}: the chosen {group} has no {part}, remove this override"
    overrides = [text for text in overrides if "=" in text and not text.startswith("-")]
    index = next((i for i, text in enumerate(overrides) if text.lstrip("+~").startswith(key)), 0)
    cfg = compose(overrides[:index])
    parent, _, name = key.rpartition(".")
    plus = f"add it with a plus, +{overrides[index] if overrides else f'{key}=VALUE'}"
    if name.startswith("_"):
        return f"{key}: the config does not list it, {plus}"
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if not isinstance(node, DictConfig):
        return f"{key}: there is no such key; `--help` lists the choices and `--cfg job` the keys"
    if not node:
        return f"{key}: there is no such key, {parent} is empty: choose a {parent}, or {plus}"
    if target := find_accepting_target(node, name, parent, cfg):
        return f"{key}: the config does not list it, but {target} takes it: {plus}"
    return f"{key}: there is no such key, {suggest_key(name, cfg, parent)}"


def compose(overrides: list[str]) -> DictConfig:
    """Compose the config of overrides, without those at the end that cannot be composed."""
    is_initialized = GlobalHydra.instance().is_initialized()  # in a comparison
    while True:
        try:
            with nullcontext() if is_initialized else hydra.initialize_config_dir(config_folder(), version_base="1.3"):
                return hydra.compose("config", overrides)
        except HydraException:
            if not overrides:
                raise
            overrides = overrides[:-1]


def find_accepting_target(node: DictConfig, name: str, at: str, cfg: DictConfig) -> str | None:
    """Return the name of a node's class or function if it has an argument that the config does not list; else None."""
    if "_target_" not in node:
        return None
    try:
        target = locate(node["_target_"], at, tuple(cfg.allow_packages))
    except ConfigError:
        return None
    names, _, _, takes_any = signature(target)
    listed = [str(key) for key in node]
    is_argument = name in names or (takes_any and not difflib.get_close_matches(name, listed, n=1))
    return target.__qualname__ if is_argument else None


def suggest_key(name: str, cfg: DictConfig, parent: str = "") -> str:
    """Suggest a key in place of one that does not exist: the same name elsewhere, a similar name beside it, or a
    similar name elsewhere.
    """
    node = OmegaConf.select(cfg, parent) if parent else cfg
    siblings = [str(key) for key in node if not str(key).startswith("_")]
    by_name: dict[str, list[str]] = {}
    for key in leaf_keys(OmegaConf.to_container(cfg)):
        by_name.setdefault(key.rpartition(".")[2], []).append(key)
    similar = difflib.get_close_matches(name, by_name, n=1)
    if name not in by_name and (difflib.get_close_matches(name, siblings, n=1) or not similar):
        return suggest(name, siblings, f"{parent}." if parent else "")
    return f"did you mean {' or '.join(by_name[name] if name in by_name else by_name[similar[0]])}?"


def leaf_keys(node: Any, at: str = "") -> Iterator[str]:
    """Yield the dotted keys of the values in nested dicts."""
    if isinstance(node, dict):
        for key, value in node.items():
            if not str(key).startswith("_"):
                yield from leaf_keys(value, f"{at}.{key}" if at else str(key))
    else:
        yield at
