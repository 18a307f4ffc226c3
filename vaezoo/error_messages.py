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
from vaezoo.errors import ConfigError, suggest
from vaezoo.instantiate import locate, signature

# Errors that nobody meant for a user: they are named by their class.
INTERNAL_ERRORS = (RuntimeError, TypeError, AttributeError, LookupError, AssertionError, NameError, ImportError)


def describe_error(error: BaseException, words: Sequence[str] | None = None) -> str:
    """An error in one line.

    Args:
        error: what was raised.
        words: the overrides that it may be about; by default those of the command line.
    """
    if isinstance(error, MissingConfigException) and error.options:
        return unknown_choice(str(error.missing_cfg_file), error.options)
    match = re.search(r"Could not override '(.+?)'", str(error))
    if isinstance(error, ConfigCompositionException) and match:
        return unknown_key(match[1], sys.argv[1:] if words is None else words)
    if "Config group override must be a string or a list" in str(error):
        pairs = [word.partition("=")[::2] for word in (sys.argv[1:] if words is None else words)]
        empty = (key for key, value in pairs if value == "null" and Path(config_folder(), key).is_dir())
        said = f"{next(empty, 'the group')}=null"
        return f"{said} is not a choice: name one of its group, `--help` lists them"
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
    return f"{type(error).__name__}: {text}" if isinstance(error, INTERNAL_ERRORS) else text


def unknown_choice(path: str, options: Sequence[str]) -> str:
    """The sentence for a choice such as ``model/mlp_va`` that a group does not have."""
    folders = [path[: mark.start()] for mark in re.finditer(r"(?<!/)/", path)]
    group = next((name for name in reversed(folders) if Path(config_folder(), name).is_dir()), folders[0])
    choice = path[len(group) + 1 :]
    names_folder = group == "data" and ("/" in choice or Path(choice).is_dir())
    hint = f"; a folder is named by data.root={choice}" if names_folder else ""
    return f"{group}={choice} is not a choice, {suggest(choice, options)}{hint}"


def unknown_key(key: str, overrides: Sequence[str]) -> str:
    """The sentence for an override of a key that the config does not have."""
    group, _, part = key.rpartition("/")
    if group and Path(config_folder(), key).is_dir():
        return f"{key}: the chosen {group} takes no {part}, leave it out"
    words = [text for text in overrides if "=" in text and not text.startswith("-")]
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
    if suggestion := find_accepting_target(node, name, parent, cfg):
        return f"{key}: the config does not list it, but {suggestion} takes it: {plus}"
    return f"{key}: there is no such key, {suggest_key(name, cfg, parent)}"


def compose(overrides: list[str]) -> DictConfig:
    """The config of as many of these overrides, from the first on, as go together."""
    running = GlobalHydra.instance().is_initialized()  # in a comparison
    while True:
        try:
            with nullcontext() if running else hydra.initialize_config_dir(config_folder(), version_base="1.3"):
                return hydra.compose("config", overrides)
        except HydraException:
            if not overrides:
                raise
            overrides = overrides[:-1]


def find_accepting_target(node: DictConfig, name: str, at: str, cfg: DictConfig) -> str | None:
    """The name of a node's class or function when that has this argument, though the config does not list it."""
    if "_target_" not in node:
        return None
    try:
        target = locate(node["_target_"], at, tuple(cfg.allow_packages))
    except ConfigError:
        return None
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
