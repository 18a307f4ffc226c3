"""From a plain config to objects: the one place where a name becomes a class.

A node ``{"_target_": "package.Class", **arguments}`` becomes an instance, with ``"_partial_": True``
a ``functools.partial`` of it. This is Hydra's convention, read without Hydra so that a checkpoint
can rebuild its model anywhere; and since a checkpoint may come from anywhere, only names below
trusted packages are followed. Names and simple types are compared with the signature first.
"""

import difflib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

TRUSTED = ("vaezoo", "torch.nn", "torch.optim", "torchmetrics", "lightning.pytorch")
SIMPLE = (bool, int, float, str)


class ConfigError(ValueError):
    """A config that cannot be built, in one sentence."""


def suggest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """"did you mean PREFIX.NAME?" where one of the names is close, else the names."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {prefix}{close[0]}?" if close else f"choose from {', '.join(names)}"


def build(node: Any, at: str = "", trust: Sequence[str] = (), **extra: Any) -> Any:
    """The object that a config node describes; containers and plain values are themselves.

    Args:
        node: plain dicts, lists and values.
        at: the node's path, for messages.
        trust: packages trusted beside vaezoo's own parts.
        **extra: further arguments of the outermost target, as they are.

    Raises:
        ConfigError: a number that is not finite, an unknown or untrusted target, an unknown or missing argument, a
            wrong type, or a ValueError of the target itself, which then begins with the node's path.
    """
    if isinstance(node, list):
        return [build(item, f"{at}[{i}]", trust) for i, item in enumerate(node)]
    if isinstance(node, float) and not math.isfinite(node):  # torch's optimizers and Lightning train with it
        raise ConfigError(f"{at}={node} should be a finite number")
    if not isinstance(node, dict):
        return node
    arguments = {
        key: build(value, f"{at}.{key}" if at else key, trust)
        for key, value in node.items()
        if key not in ("_target_", "_partial_")
    }
    if "_target_" not in node:
        return arguments
    target = locate(node["_target_"], at, trust)
    check(target, arguments, at, complete=not node.get("_partial_") and not extra)
    if node.get("_partial_"):
        return partial(target, **arguments, **extra)
    try:
        return target(**arguments, **extra)
    except ValueError as error:
        raise ConfigError(str(error) if str(error).startswith(at) else f"{at}: {error}") from error
    except TypeError as error:
        if twice := re.search(r"multiple values for keyword argument '(\w+)'", str(error)):
            raise ConfigError(f"{at}.{twice[1]}: {target.__qualname__} brings its own, leave it out") from error
        raise


def locate(path: str, at: str, trust: Sequence[str] = ()) -> Callable:
    """The class or function with this dotted name, in a trusted package by both name and origin."""
    trusted = (*TRUSTED, *trust)

    def inside(name: str) -> bool:
        return any(name == package or name.startswith(f"{package}.") for package in trusted)

    where = f"{at}._target_" if at else "_target_"
    if not inside(path):
        raise ConfigError(
            f"{where}={path} is not in a trusted package ({', '.join(trusted)}): name your own with 'trust=[PACKAGE]'"
        )
    module, _, name = path.rpartition(".")
    try:
        target = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}={path} does not exist ({error})") from error
    if not callable(target) or not inside(target.__module__):  # a trusted module also holds what it imports
        raise ConfigError(f"{where}={path} is not a class or function of a trusted package")
    return target


def signature(target: Callable) -> tuple[set[str], dict[str, Any], list[str], bool]:
    """Parameter names, their type hints, the names that must be given, and whether any other is taken.

    A class that passes ``**kwargs`` on is followed to its parents, whose own needs it may meet.
    """
    chain: list[Any] = [target]
    if inspect.isclass(target):
        chain = [vars(c)["__init__"] for c in target.__mro__[:-1] if "__init__" in vars(c)] or [target]
    names: set[str] = set()
    hints: dict[str, Any] = {}
    required: list[str] = []
    passes_on = False
    for depth, function in enumerate(chain):
        own = inspect.signature(function).parameters
        for name, parameter in own.items():
            if name != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                names.add(name)
                if depth == 0 and parameter.default is parameter.empty:
                    required.append(name)
        with suppress(NameError, TypeError):  # hints that only a type checker can read
            hints = typing.get_type_hints(function) | hints
        passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values())
        if not passes_on:
            break
    return names, hints, required, passes_on


def check(target: Callable, arguments: dict[str, Any], at: str, complete: bool) -> None:
    """Compare arguments with the target's signature: names, simple types, and what is missing."""
    names, hints, required, any_name = signature(target)
    prefix = f"{at}." if at else ""
    for name, value in arguments.items():
        if name not in names and not any_name:
            hint = suggest(name, names, prefix)
            raise ConfigError(f"{prefix}{name}: {target.__qualname__} has no such option, {hint}")
        if value == "???":  # a config's word for what has no default
            raise ConfigError(f"{prefix}{name} is missing: {target.__qualname__} needs it")
        if not fits(value, hints.get(name, Any)):
            raise ConfigError(f"{prefix}{name}={value!r} should be {describe(hints[name])}")
    for name in required if complete else ():
        if name not in arguments:
            raise ConfigError(f"{prefix}{name} is missing: {target.__qualname__} needs it")


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return tuple(kind for kind in kinds if getattr(kind, "__name__", "") != "Tensor")  # which no config holds


def fits(value: Any, hint: Any) -> bool:
    """Whether a value has a type that the hint names; hints beyond plain values are not judged."""
    kinds = alternatives(hint)
    if not all(kind in SIMPLE or kind is type(None) for kind in kinds):
        return True
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, int):
        return int in kinds or float in kinds
    return type(value) in kinds


def describe(hint: Any) -> str:
    """A type hint in words."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    return " or ".join(words.get(kind, str(kind)) for kind in alternatives(hint))
