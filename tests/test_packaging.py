"""What an installed vaezoo has: all packages, all configs and all other files of the package, and one version."""

import tomllib
from fnmatch import fnmatch

import pytest
import yaml
from conftest import REPO

import vaezoo

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def files(folder):
    found = (path.relative_to(REPO) for path in (REPO / folder).rglob("*") if path.is_file())
    return [path for path in found if "__pycache__" not in path.parts and not path.suffix.startswith(".pyc")]


def test_all_folders_are_packages():
    code = {".".join(path.parent.parts) for path in files("vaezoo") if path.suffix == ".py"}
    configs = {".".join(["vaezoo", *path.parent.parts]) for path in files("conf")}
    parents = {name.rpartition(".")[0] for name in configs} - {"vaezoo"}  # folders that hold folders only
    assert set(SETUPTOOLS["packages"]) == code | configs | parents


@pytest.mark.parametrize("path", [path for path in files("vaezoo") if path.suffix != ".py"], ids=str)
def test_other_files_are_package_data(path):
    patterns = SETUPTOOLS["package-data"].get(".".join(path.parent.parts), [])
    assert any(fnmatch(path.name, pattern) for pattern in patterns)


def test_one_version():
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["project"]["version"] == vaezoo.__version__ == citation["version"]
    assert vaezoo.__version__ in (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
