"""Build objects from plain config nodes, from a closed list of classes.

A node ``{"_target_": "package.Class", **arguments}`` becomes an instance, or with ``"_partial_": True`` a
``functools.partial`` of it. This is Hydra's convention, read without Hydra, so that a checkpoint can rebuild its model
anywhere.

A config may come from a stranger's checkpoint or run folder, and then it is data: it must not run anything. Each place
of a config therefore admits classes of one kind alone (``PLACES``): subclasses of a base class that are defined in a
named package, and some targets by their full names. A target is checked before any of its arguments is built; names
are compared with the target's signature, and plain values with its type hints.
"""

import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from vaezoo.errors import ConfigError, suggest
from vaezoo.old_names import NEW_NAMES

SIMPLE = (bool, int, float, str)


class Place(NamedTuple):
    """What one place of a config may name.

    Args:
        noun: what it is, for messages.
        base: full name of a class: every subclass that is public and defined in ``packages`` is admitted.
        packages: names of packages.
        others: full names of further targets.
    """

    noun: str
    base: str | None = None
    packages: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


PARTS = ("vaezoo.families", "vaezoo.nets", "vaezoo.objectives", "vaezoo.priors")
TASKS = (
    "vaezoo.tasks.fit.fit", "vaezoo.tasks.evaluate.evaluate", "vaezoo.tasks.compare.compare",
    "vaezoo.tasks.report.report", "vaezoo.tasks.apply.sample", "vaezoo.tasks.apply.reconstruct",
    "vaezoo.tasks.apply.encode",
)  # fmt: skip

# No function is admitted except by its full name, and no class whose constructor writes, deletes or starts anything:
# tests/test_security.py calls all of them. Nodes inside the model's node are its parts; no other node holds nodes.
PLACES = {
    "model": Place("model", "vaezoo.models.LatentVariableModel", ("vaezoo.models",)),
    "model part": Place("part of a model", "torch.nn.Module", PARTS, ("vaezoo.families.diagonal_normal",)),
    "optimizer": Place("optimizer", "torch.optim.Optimizer", ("torch.optim",)),
    "scheduler": Place(
        "schedule", "torch.optim.lr_scheduler.LRScheduler", ("torch.optim",), ("vaezoo.training.schedulers.cosine",)
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
    """Build the object that a config node describes; containers are built item by item, plain values stay.

    Args:
        node: plain dicts, lists and values.
        at: the node's path, such as ``model.encoder``. Its first name says which classes are admitted (``PLACES``).
        allow_packages: the user's own packages: any of their classes and functions is admitted, at any place.
        **extra: further arguments of the outermost target, as they are.

    Raises:
        ConfigError: a number that is not finite; a target that does not exist or is not admitted; an unknown or missing
            argument; a wrong type; or a ValueError of the target itself, which then begins with the node's path.
    """
    if isinstance(node, list):
        return [build(item, f"{at}[{i}]", allow_packages) for i, item in enumerate(node)]
    if isinstance(node, float) and not math.isfinite(node):  # torch's optimizers and Lightning train with it
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
        raise


def is_below(name: str, packages: Iterable[str]) -> bool:
    """Whether a dotted name is one of the packages or lies below one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def find_place(at: str) -> Place:
    """The entry of ``PLACES`` for a node's path."""
    root = re.split(r"[.\[]", at, maxsplit=1)[0]
    return PLACES["model part" if root == "model" and at != "model" else root]


def locate(path: Any, at: str, allow_packages: Sequence[str] = ()) -> Callable:
    """Return the class or function with this full name, if it is admitted at this place of the config.

    Only a module that is loaded already, or one of vaezoo's own, is looked into; importing another one would run it.

    Raises:
        ConfigError: it is not admitted, or does not exist.
    """
    where = f"{at}._target_"
    place = find_place(at)
    path = NEW_NAMES.get(path, path) if isinstance(path, str) else path
    module, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    named = path in place.others
    public = all(part.isidentifier() and not part.startswith("_") for part in (*module.split("."), name))
    trusted = public and is_below(path, allow_packages)
    if not (trusted or named or (public and is_below(path, place.packages))):
        whose = ", ".join((*place.packages, *allow_packages)) or " or ".join(place.others)
        raise ConfigError(
            f"{where}={path} is not in a trusted package ({whose}): name a {place.noun} of these, "
            f"or if it is in a package that you wrote, add 'allow_packages=[PACKAGE]'"
        )
    try:
        importable = trusted or named or module in place.packages or is_below(module, ("vaezoo",))
        target = getattr(import_module(module) if importable else sys.modules[module], name)
    except (ImportError, AttributeError, KeyError) as error:
        raise ConfigError(f"{where}={path} does not exist ({error})") from error
    own = (
        trusted and callable(target) and is_below(target.__module__, allow_packages)
    )  # not what a trusted module imports
    if not (own or named or is_subclass(target, place)):
        raise ConfigError(f"{where}={path} is not a {place.noun}: name a class that is one, or leave it out")
    return target


def is_subclass(target: Any, place: Place) -> bool:
    """Whether a target is a class that a place admits by its base class and by the package that defines it."""
    if place.base is None or not isinstance(target, type) or not is_below(target.__module__, place.packages):
        return False
    module, _, name = place.base.rpartition(".")
    return issubclass(target, getattr(import_module(module), name))


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
    prefix = f"{at}."
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
