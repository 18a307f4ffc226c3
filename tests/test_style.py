"""The package is written in plain English: names of the field, docstrings that say what a thing does."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "vaezoo"
FILES = sorted(PACKAGE.rglob("*.py"))

# Names that a reader has to look up, and the ones to use.
NAMES = {
    "alike": "same_overrides", "beaten": "fraction_below", "essential": "relevant_overrides", "go_on": "prepare_resume",
    "hopeless": "failed_variants", "in_turn": "cycle_classes", "judge_of": "get_sample_evaluator",
    "joined": "concat or merge_...", "said": "overrides, message or command", "sound": "is_finite",
    "strange": "outlier_run", "taken": "saved_options", "told": "message or printed",
    "what_diverged": "describe_divergence",
    "whole": "complete or stacked", "wide": "accumulation_dtype",
}  # fmt: skip

# A docstring says what the thing is or does; it does not begin with a question or a clause.
FIRST_WORDS = {"How", "Itself", "That", "What", "Where", "Whether", "Which", "Who"}

PHRASES = re.compile(
    r"told anew|to be had|at hand|where there (is|are) (none|no\b|one)|where it is none|goes before|is heard|"
    r"hangs on|is had\b|nothing of the kind|so and so|by itself alone|stands? for itself",
    re.IGNORECASE,
)


def definitions(tree):
    """Every class and function, with the names that it defines: its own, its arguments, its variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node, node.name
        if isinstance(node, ast.arg):
            yield node, node.arg
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node, node.id
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node, node.attr


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_plain_words(file):
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    found = [f"line {node.lineno}: {name}, say {NAMES[name]}" for node, name in definitions(tree) if name in NAMES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            words = (ast.get_docstring(node) or "").split()
            if words and words[0] in FIRST_WORDS:
                found.append(f"line {getattr(node, 'lineno', 1)}: a docstring begins with {words[0]!r}")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING) and (match := PHRASES.search(token.string)):
            found.append(f"line {token.start[0]}: {match[0]!r}")
    assert not found, "\n".join([str(file), *found])
