"""The commands of the README and the documentation, as they are written there."""

import re
import shlex
from pathlib import Path

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`python run\.py ([^`]+)`")


def blocks(text: str, language: str) -> list[str]:
    """Return the content of all blocks of code in a language."""
    return [content for name, content in FENCE.findall(text) if name == language]


def commands(file: Path) -> list[list[str]]:
    """Return the words after ``python run.py`` of each command in a block of a file; comments are left out."""
    text = file.read_text(encoding="utf-8")
    lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[2:] for line in words if line[:2] == ["python", "run.py"]]


def inline_commands(file: Path) -> list[list[str]]:
    """Return the words of each command within a sentence of a file, without the "..." of one that is cut short."""
    text = FENCE.sub("", file.read_text(encoding="utf-8"))
    return [[word for word in shlex.split(found) if word != "..."] for found in INLINE.findall(text)]
