"""The examples in the docstrings give what they show."""

import doctest
from importlib import import_module

import pytest
import torch
from conftest import REPO

MODULES = [
    ".".join(path.relative_to(REPO).with_suffix("").parts)
    for path in sorted((REPO / "vaezoo").rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    torch.manual_seed(0)
    result = doctest.testmod(import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
