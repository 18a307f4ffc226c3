"""Overrides, the ``KEY=VALUE`` arguments of a command, and when two commands ask for the same.

Commands are compared by their overrides, not by the configs that these compose. A sweep has no config of its own; a
config of an earlier version has other keys and defaults; and composing one takes half a second, which is too long for
each folder that a resumed run may be in.
"""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from vaezoo.config_folder import config_folder

# Keys that do not affect the trained weights.
NON_TRAINING_KEYS = (
    "trainer.enable_progress_bar", "trainer.log_every_n_steps", "callbacks.checkpoint_last", "callbacks.images",
    "callbacks.progress", "logger", "data.root", "data.num_workers", "debug", "allow_packages",
)  # fmt: skip
# Keys that may change when a run is resumed: these, and the length of the training.
CHANGEABLE_KEYS = ("trainer.max_epochs", "trainer.max_time", *NON_TRAINING_KEYS)
# Keys of a comparison with a list, to which a resumed comparison may add.
LIST_KEYS = ("models", "seeds")


def relevant_overrides(overrides: Iterable[str]) -> list[str]:
    """Return the overrides that say what is computed: without those of Hydra itself, ``resume`` and ``jobs``."""
    others = ("hydra.", "hydra/", "resume=", "jobs=")
    return [text for text in overrides if not text.lstrip("+~").startswith(others)]


def training_overrides(overrides: Iterable[str]) -> list[str]:
    """Return the overrides that affect the trained weights."""
    return [text for text in relevant_overrides(overrides) if not has_key(text, NON_TRAINING_KEYS)]


def same_overrides(overrides: Iterable[str], others: Iterable[str]) -> bool:
    """Return whether two commands ask for the same: they have the same relevant overrides, in any order."""
    return sorted(relevant_overrides(overrides)) == sorted(relevant_overrides(others))


def may_resume(overrides: Iterable[str], recorded: Iterable[str]) -> bool:
    """Return whether a command may resume the run of a recorded command: they differ only in keys that may change when
    resuming, or the command is the same comparison with more models or seeds.
    """
    now, then = ({"task": "task=fit"} | by_key(relevant_overrides(several)) for several in (overrides, recorded))
    changed = [key for key in now.keys() | then.keys() if now.get(key) != then.get(key)]
    return all(has_key(key, CHANGEABLE_KEYS) for key in changed) or is_larger_comparison(now, then)


def is_larger_comparison(now: dict[str, str], then: dict[str, str]) -> bool:
    """Return whether a comparison has all models and seeds of another one, whose trainings it can then use.

    Other metrics (``task.*``) are allowed, because the evaluations are run again.

    Args:
        now: overrides by key.
        then: overrides by key, of the comparison that may be the smaller one.
    """
    if get_value(now, "task") != "compare" or get_value(then, "task") != "compare":
        return False
    has_all = all(listed(now, key) >= listed(then, key) for key in LIST_KEYS)
    rest, other_rest = (
        [text for text in overrides.values() if not has_key(text, (*LIST_KEYS, "task"))] for overrides in (now, then)
    )
    return has_all and same_overrides(rest, other_rest)


def listed(overrides: dict[str, str], key: str) -> set[str]:
    """Return the models or the seeds of a comparison as a set of texts; a number N of seeds stands for 0 to N - 1."""
    value = get_value(overrides, key, default=comparison_defaults()[key])
    return set(map(str, range(value) if type(value) is int else value if isinstance(value, list) else ()))


@cache
def comparison_defaults() -> dict[str, Any]:
    """Return the keys of ``task=compare`` with their default values."""
    return yaml.safe_load(Path(config_folder(), "task", "compare.yaml").read_text(encoding="utf-8"))


def has_key(override: str, keys: Iterable[str]) -> bool:
    """Return whether an override sets one of the keys, or a key below one of them."""
    return bool(re.match(rf"[+~]*({'|'.join(map(re.escape, keys))})\b", override))


def by_key(overrides: Iterable[str]) -> dict[str, str]:
    """Return overrides by their keys; of two with the same key the last one, as in Hydra."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return {override.get_key_element(): str(override.input_line) for override in parsed}


def get_value(overrides: dict[str, str], key: str, default: Any = None) -> Any:
    """Return the value that overrides give to a key, or the default without such an override."""
    return OverridesParser.create().parse_override(overrides[key]).value() if key in overrides else default


def quote(text: Path | str) -> str:
    r"""Return a path, or any text, as the value of an override. Only backslashes before a quote have to be escaped.

    >>> print(quote(r"a\b"), quote("an 'a'"))
    'a\b' 'an \'a\''
    """
    escaped = re.sub(r"(\\*)('|\Z)", lambda match: 2 * match[1] + (r"\'" if match[2] else ""), str(text))
    return f"'{escaped}'"


def quote_unreadable(override: str) -> str:
    """Return an override whose value Hydra cannot read, such as ``data.root=Klänge``, with the value in quotes.

    A value with a comma is a sweep, and one that begins with a bracket, a brace or a quote is meant for Hydra's
    grammar: these stay as they are, also if they have a mistake.
    """
    key, equals, value = override.partition("=")
    quoted = f"{key}={quote(value)}"
    is_text = equals and "," not in value and not value.startswith(tuple("[{'\""))
    return quoted if is_text and not is_readable(override) and is_readable(quoted) else override


def is_readable(override: str) -> bool:
    """Return whether Hydra can read an override."""
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def set_values(config: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a config in which the values of overrides are set, as Hydra reads them."""
    node = OmegaConf.create(config)
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        OmegaConf.update(node, override.key_or_group, override.value())
    values: Any = OmegaConf.to_container(node)
    return values
