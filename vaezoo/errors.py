"""Errors that a user can cause, and words for messages."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A config that cannot be built. The message is one sentence."""


class DoesNotApply(ValueError):
    """A group of metrics that cannot be computed for this model or these data. The message is the reason."""


def suggest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Return "did you mean PREFIX.NAME?" if one of the names is similar, otherwise the list of names.

    >>> suggest("bata", ["beta", "gamma"], "model.")
    'did you mean model.beta?'
    >>> suggest("x", ["beta", "gamma"])
    'choose from beta, gamma'
    """
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {prefix}{close[0]}?" if close else f"choose from {', '.join(names)}"


def name_some(names: Iterable[object], most: int = 6) -> str:
    """Return the first names of a list, and how many there are besides.

    >>> name_some("abc"), name_some(range(20), most=3)
    ('a, b, c', '0, 1, 2 and 17 more')
    """
    texts = list(map(str, names))
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def count_noun(num: int, noun: str) -> str:
    """Return a number and its noun.

    >>> count_noun(1, "cell"), count_noun(2000, "cell")
    ('1 cell', '2,000 cells')
    """
    return f"{num:,} {noun}{'s' * (num != 1)}"


def format_duration(seconds: float) -> str:
    """Return a duration in its largest suitable unit.

    >>> format_duration(0.03), format_duration(45), format_duration(350), format_duration(9000)
    ('0.03 s', '45 s', '5.8 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.2g} min" if seconds < 5400 else f"{seconds / 3600:.2g} h"


def escape_unprintable(text: str) -> str:
    r"""Return a text in which characters that cannot be printed are escaped, except for line breaks.

    Names in a stranger's file may have codes that change the terminal.

    >>> escape_unprintable("a\x1b[31mb\né")
    'a\\x1b[31mb\né'
    """
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )
