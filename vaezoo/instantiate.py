"""Build objects from plain config nodes, from a closed list of classes.

A node ``{"_target_": "package.Class", **arguments}`` becomes an instance, or with ``"_partial_": True`` a
``functools.partial`` of the class. This is Hydra's convention, but Hydra is not needed, so that a checkpoint can
rebuild its model anywhere.

A config may come from the checkpoint or run folder of a stranger, and must not execute anything. Therefore each place
of a config admits only classes of one kind (``PLACES``): subclasses of a base class that are defined in a given
package, and some targets by their full names. A target is checked before any of its arguments is built. Argument names
are compared with the target's signature, and plain values with its type hints.
"""

import inspect
import math
import numbers
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple, Self

from vaezoo.errors import ConfigError, suggest
from vaezoo.old_names import NEW_NAMES

SIMPLE = (bool, int, float, str)


class Place(NamedTuple):
    """The classes and functions that one place of a config admits.

    Args:
        noun: the word for such an object, for messages.
        base: the full name of a class: every public subclass that is defined in ``packages`` is admitted.
        packages: the names of packages.
        others: the full names of further targets.
    """

    noun: str
    base: str | None = None
    packages: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


PARTS = ("vaezoo.families", "vaezoo.nets", "vaezoo.objectives", "vaezoo.priors")
TASKS = (
    "vaezoo.tasks.fit.fit", "vaezoo.tasks.evaluate.evaluate", "vaezoo.tasks.compare.compare",
    "vaezoo.tasks.report.report", "vaezoo.tasks.apply.sample", "vaezoo.tasks.apply.reconstruct",
    "vaezoo.tasks.apply.encode", "vaezoo.tasks.apply.interpolate", "vaezoo.tasks.score.score",
    "vaezoo.tasks.impute.impute_missing", "vaezoo.tasks.check.check", "vaezoo.tasks.export.export",
    "vaezoo.tasks.explore.explore",
)  # fmt: skip

# Functions are admitted only by their full names, and no class is admitted whose constructor writes, deletes or starts
# anything: tests/test_security.py calls all of them. Nodes inside the model's node are its parts; no other node has
# nodes inside.
PLACES = {
    "model": Place("model", "vaezoo.models.LatentVariableModel", ("vaezoo.models",)),
    "model part": Place("part of a model", "torch.nn.Module", PARTS, ("vaezoo.families.diagonal_normal",)),
    "optimizer": Place("optimizer", "torch.optim.Optimizer", ("torch.optim",)),
    "scheduler": Place(
        "schedule",
        "torch.optim.lr_scheduler.LRScheduler",
        ("torch.optim",),
        ("vaezoo.training.schedulers.cosine", "vaezoo.training.schedulers.one_cycle"),
    ),
    "data": Place("data module", "lightning.pytorch.LightningDataModule", ("vaezoo.data",)),
    "trainer": Place("trainer", others=("lightning.pytorch.Trainer",)),
    "callbacks": Place("callback", "lightning.pytorch.Callback", ("vaezoo.callbacks", "lightning.pytorch.callbacks")),
    "logger": Place(
        "logger",
        "lightning.pytorch.loggers.Logger",
        ("vaezoo.loggers", "lightning.pytorch.loggers"),
        ("vaezoo.loggers.wandb_logger",),
    ),
    "task": Place("task", others=TASKS),
}


def build(node: Any, at: str, allow_packages: Sequence[str] = (), **extra: Any) -> Any:
    """Build the object that a config node describes. Lists and dicts are built item by item, plain values stay.

    Args:
        node: plain dicts, lists and values.
        at: the node's path, such as ``model.encoder``. Its first name says which classes are admitted (``PLACES``).
        allow_packages: the user's own packages. All their classes and functions are admitted, at any place.
        **extra: further arguments of the outermost target. They are passed on unchanged.

    Raises:
        ConfigError: a number is not finite; a target does not exist or is not admitted; an argument is unknown,
            missing or of a wrong type; or the target raises a ValueError, to which the node's path is added.
    """
    if isinstance(node, list):
        return [build(item, f"{at}[{i}]", allow_packages) for i, item in enumerate(node)]
    if isinstance(node, float) and not math.isfinite(node):  # torch's optimizers and Lightning accept it silently
        raise ConfigError(f"{at}={node} should be a finite number")
    if not isinstance(node, dict):
        return node
    target = locate(node["_target_"], at, allow_packages) if "_target_" in node else None
    arguments = {
        key: build(value, f"{at}.{key}", allow_packages)
        for key, value in node.items()
        if key not in ("_target_", "_partial_")
    }
    if target is None:
        return arguments
    check(target, arguments, at, complete=not node.get("_partial_") and not extra)
    if node.get("_partial_"):
        return partial(target, **arguments, **extra)
    try:
        return target(**arguments, **extra)
    except ValueError as error:
        raise ConfigError(str(error) if str(error).startswith(at) else f"{at}: {error}") from error
    except TypeError as error:
        if twice := re.search(r"multiple values for keyword argument '(\w+)'", str(error)):
            raise ConfigError(
                f"{at}.{twice[1]}: {target.__qualname__} sets this argument itself, remove it from the config"
            ) from error
        missing = re.search(r"missing \d+ required (?:positional|keyword-only) arguments?: '(\w+)'", str(error))
        if missing and missing[1] in signature(target)[0]:  # a parent needs it, or ``extra`` might have had it
            raise ConfigError(f"{at}.{missing[1]} is missing: {target.__qualname__} needs it") from error
        raise


def is_below(name: str, packages: Iterable[str]) -> bool:
    """Return whether a dotted name is one of the packages or is inside one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def find_place(at: str) -> Place:
    """Return the entry of ``PLACES`` for a node's path."""
    root = re.split(r"[.\[]", at, maxsplit=1)[0]
    return PLACES["model part" if root == "model" and at != "model" else root]


def locate(path: Any, at: str, allow_packages: Sequence[str] = ()) -> Callable:
    """Return the class or function with this full name, if it is admitted at this place of the config.

    Only modules that are loaded already, and those of vaezoo, are searched: importing another one would execute it.

    Args:
        path: the full name.
        at: the node's path.
        allow_packages: the user's own packages.

    Raises:
        ConfigError: the target is not admitted, or does not exist.
    """
    key = f"{at}._target_"
    place = find_place(at)
    path = NEW_NAMES.get(path, path) if isinstance(path, str) else path
    module, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    is_listed = path in place.others
    public = all(part.isidentifier() and not part.startswith("_") for part in (*module.split("."), name))
    in_own_package = public and is_below(path, allow_packages)
    if not (in_own_package or is_listed or (public and is_below(path, place.packages))):
        packages = ", ".join((*place.packages, *allow_packages)) or " or ".join(place.others)
        raise ConfigError(
            f"{key}={path} is not in an allowed package ({packages}): name a {place.noun} of these, "
            f"or if it is in a package that you wrote, add 'allow_packages=[PACKAGE]'"
        )
    try:
        importable = in_own_package or is_listed or module in place.packages or is_below(module, ("vaezoo",))
        target = getattr(import_module(module) if importable else sys.modules[module], name)
    except (ImportError, AttributeError, KeyError) as error:
        raise ConfigError(f"{key}={path} does not exist ({error})") from error
    # Not what a module of the user's own package has imported from elsewhere.
    is_own = in_own_package and callable(target) and is_below(target.__module__, allow_packages)
    if not (is_own or is_listed or is_subclass(target, place)):
        raise ConfigError(f"{key}={path} is not a {place.noun}: name a class that is one, or remove the override")
    return target


def is_subclass(target: Any, place: Place) -> bool:
    """Return whether a target is a class that a place admits by its base class and by the package that defines it."""
    if place.base is None or not isinstance(target, type) or not is_below(target.__module__, place.packages):
        return False
    module, _, name = place.base.rpartition(".")
    return issubclass(target, getattr(import_module(module), name))


def signature(target: Callable) -> tuple[set[str], dict[str, Any], list[str], bool]:
    """Return parameter names, their type hints, the names that are required, and whether any other name is accepted.

    If a class forwards ``**kwargs``, the parameters of its parents count too, but the class may supply their required
    ones itself.
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
        with suppress(NameError, TypeError):  # hints that only a type checker can evaluate
            hints = typing.get_type_hints(function) | hints
        passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values())
        if not passes_on:
            break
    return names, hints, required, passes_on


def check(target: Callable, arguments: dict[str, Any], at: str, complete: bool) -> None:
    """Raise a ConfigError if arguments do not fit the target's signature: an unknown or missing name, a wrong type."""
    names, hints, required, any_name = signature(target)
    prefix = f"{at}."
    for name, value in arguments.items():
        if name not in names and not any_name:
            hint = suggest(name, names, prefix)
            raise ConfigError(f"{prefix}{name}: {target.__qualname__} has no such option, {hint}")
        if value == "???":  # stands in a config for a value that the user must give
            raise ConfigError(f"{prefix}{name} is missing: {target.__qualname__} needs it")
        if not fits(value, hints.get(name, Any)):
            raise ConfigError(f"{prefix}{name}={value!r} should be {describe(hints[name])}")
    for name in required if complete else ():
        if name not in arguments:
            raise ConfigError(f"{prefix}{name} is missing: {target.__qualname__} needs it")


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type itself; without tensors, which cannot come from a config."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return tuple(kind for kind in kinds if getattr(kind, "__name__", "") != "Tensor")


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value has a type of the hint. Any value fits a hint that has other types than plain values."""
    kinds = alternatives(hint)
    if not all(kind in SIMPLE or kind is type(None) for kind in kinds):
        return True
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, int):
        return int in kinds or float in kinds
    return type(value) in kinds


def describe(hint: Any) -> str:
    """Describe a type hint in words."""
    words = {bool: "true or false", int: "an integer", float: "a number", str: "text", type(None): "null"}
    return " or ".join(words.get(kind, str(kind)) for kind in alternatives(hint))


class Recorded:
    """Base class of objects that keep the config node from which ``build`` makes them again.

    Attributes:
        config_node: the config node; or the reason why there is none, such as an argument that is a local function.
        not_recorded: names of arguments that are left out of the node.
    """

    config_node: dict[str, Any] | str
    not_recorded: tuple[str, ...] = ()

    def __new__(cls, *arguments: Any, **named: Any) -> Self:
        made = super().__new__(cls)
        try:
            constructor = inspect.signature(cls.__init__)
            given = dict(list(constructor.bind(made, *arguments, **named).arguments.items())[1:])  # without self
            for parameter in constructor.parameters.values():
                if parameter.kind is parameter.VAR_KEYWORD:
                    given |= given.pop(parameter.name, {})
            kept = {key: to_node(value, key) for key, value in given.items() if key not in cls.not_recorded}
            made.__dict__["config_node"] = {"_target_": full_name(cls), **kept}  # before torch's __init__
        except (TypeError, ValueError) as error:  # copying calls this method without arguments
            made.__dict__["config_node"] = str(error)
        return made


def to_node(value: Any, name: str) -> Any:
    """Return a config node from which ``build`` makes an equal value.

    Args:
        value: a plain value, a list, a ``Recorded`` object, a class, or a ``functools.partial`` of one.
        name: name of the argument, for the message.

    Raises:
        ValueError: the value is something else, or is defined where no other process finds it.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Real):  # also one of NumPy
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    if isinstance(value, list | tuple):
        return [to_node(item, name) for item in value]
    if isinstance(value, Recorded):
        if isinstance(value.config_node, str):
            raise ValueError(value.config_node)
        return value.config_node
    if isinstance(value, partial) and not value.args:
        named = {key: to_node(item, f"{name}.{key}") for key, item in value.keywords.items()}
        return {**to_node(value.func, name), **named}
    if isinstance(value, type | types.FunctionType):
        return {"_target_": full_name(value), "_partial_": True}
    raise ValueError(f"{name} is a {type(value).__name__}, which a config cannot describe")


def full_name(target: Any) -> str:
    """Return the full name of a class or function.

    Raises:
        ValueError: it is defined in a notebook, in a program or in a function, where no other process finds it.
    """
    module, name = target.__module__, target.__qualname__
    if module == "__main__" or not name.isidentifier():
        raise ValueError(f"{name} is not defined in a module that can be imported")
    return f"{module}.{name}"
