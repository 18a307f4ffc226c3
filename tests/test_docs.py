"""The README and the documentation: commands, links, and a page for each model."""

import re
from pathlib import Path

import pytest
import yaml
from conftest import REPO, composed
from doc_commands import FENCE, blocks, commands, inline_commands
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException
from omegaconf import OmegaConf
from test_contract import ALL_MODELS

from vaezoo.cli import parse_arguments
from vaezoo.config_folder import config_folder

DOCS = REPO / "docs"
PAGES = [REPO / "README.md", *sorted(DOCS.rglob("*.md"))]
SECTIONS = ["Equation", "Paper", "When to use it", "Traps", "Command", "Measured", "Pictures"]
DATA_KEYS = {key for file in (REPO / "conf" / "data").rglob("*.yaml") for key in yaml.safe_load(file.read_text())}
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def name_of(file):
    return file.relative_to(REPO).as_posix()


def strip_code(text):
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


# Commands. Those of the README and of docs/data.md are also run (test_readme.py).


def one_job(words):
    """The groups and the keys of one job: of a sweep, the first choice; without options of Hydra."""
    groups, keys = {}, []
    for word in OverridesParser.create().parse_overrides(parse_arguments(words).overrides):
        name = word.key_or_group
        if name.split(".")[0].split("/")[0] == "hydra" or word.is_add():
            continue
        is_group = "/" in name or Path(config_folder(), name).is_dir()
        if not is_group:
            keys.append(name)
        elif not word.is_sweep_override():
            groups[name] = word.get_value_element_as_str()
        elif isinstance(word.value(), ChoiceSweep):  # others, such as glob, choose among what there is
            groups[name] = next(word.sweep_string_iterator())
    return groups, keys


def check_command(words):
    """Raise an error if a choice or an option of a command does not exist.

    The config of each top group (model with its parts, data, ...) is composed alone and only if needed, because
    composing takes 0.2 s and many commands share a group.
    """
    groups, keys = one_job(words)
    overrides = {}
    for name, choice in groups.items():
        overrides.setdefault("" if "experiment" in groups else name.split("/")[0], []).append(f"{name}={choice}")
        assert Path(config_folder(), name, f"{choice}.yaml").is_file(), f"there is no {name}={choice}"
    for parts in overrides.values():
        if len(parts) > 1 or "/" in parts[0]:
            composed(*parts)
    for key in keys:
        top = key.split(".")[0]
        parts = overrides.get(top) or overrides.get("") or overrides.get("task", [])  # options of a task are at the top
        cfg = composed(*parts)
        parent, _, name = key.rpartition(".")
        found = set((OmegaConf.select(cfg, parent) if parent else cfg) or ())
        if top == "data" and "run" in keys and "data" not in groups:  # the run's folder names the data
            found |= DATA_KEYS
        assert name in found, f"there is no option {key}"


@pytest.mark.parametrize("file", [page for page in PAGES if commands(page) or inline_commands(page)], ids=name_of)
def test_options_of_commands(file):
    """Every choice and every option of every command exists, also of the models of a comparison."""
    for words in commands(file) + inline_commands(file):
        if "--help" in words:
            continue
        check_command(words)
        (models,) = [word.removeprefix("models=") for word in words if word.startswith("models=")] or ["[]"]
        for model in yaml.safe_load(models):
            check_command(f"model={model}".split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-m model=beta_vae,iwae model.bta=3", "model.bta"),
        ("model=vq_vae model.num_samples=3", "model.num_samples"),
        ("model=vq_vae model/prior=vamp", "model/prior"),
        ("task=sample nmu=3 run=RUN", "nmu"),
        ("task=impute run=RUN data.hid=label", "data.hid"),
        ("callbacks/anneal=linear callbacks.anneal.period=3", "callbacks.anneal.period"),
        ("model=betavae", "betavae"),
    ],
)
def test_a_wrong_option_is_found(words, message):
    with pytest.raises((AssertionError, HydraException), match=message):
        check_command(words.split())


# Links.


def slugs(text):
    """The anchors of the headings that GitHub and mkdocs give the same name."""
    found = set()
    for title in re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", title.lower()).strip()
        if plain.replace(" ", "-") == re.sub(r"[-\s]+", "-", plain):
            found.add(plain.replace(" ", "-"))
    return found


@pytest.mark.parametrize("file", [*PAGES, REPO / ".github" / "CONTRIBUTING.md", REPO / "CHANGELOG.md"], ids=name_of)
def test_links(file):
    """Files and anchors exist; pages of the site link within docs/ alone; other links are https."""
    text = file.read_text(encoding="utf-8")
    wrong = []
    for target in LINK.findall(strip_code(text)):
        if "://" in target:
            wrong += [] if target.startswith("https://") else [target]
            continue
        path, _, anchor = target.partition("#")
        aim = (file.parent / path).resolve() if path else file
        is_there = aim.is_file() and (aim.is_relative_to(DOCS) or not file.is_relative_to(DOCS))
        if not is_there or (anchor and anchor not in slugs(aim.read_text(encoding="utf-8"))):
            wrong.append(target)
    assert not wrong


def pages_of(nav):
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [value] if isinstance(value, str) else pages_of(value)


def test_every_page_is_in_the_menu():
    config = yaml.safe_load((REPO / "mkdocs.yml").read_text(encoding="utf-8"))
    menu = list(pages_of(config["nav"]))
    assert sorted(menu) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES[1:])


# The zoo.


@pytest.mark.parametrize("name", ALL_MODELS)
def test_a_model_has_its_page(name):
    """The page has all sections in their order, an equation, the paper of the README, the command and the gallery."""
    text = (DOCS / "zoo" / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert blocks(text, "math")
    row = re.search(rf"^\| \[`{name}`\]\(docs/zoo/{name}\.md\) \| .*?\]\((.+?)\)", PAGES[0].read_text(), re.MULTILINE)
    assert row, "the README has no row for it"
    assert f"]({row[1]})" in text, "the link of the paper is not that of the README"
    assert any(name in word for words in commands(DOCS / "zoo" / f"{name}.md") for word in words)
    assert f"\n<!-- gallery: {name} -->\n" in text


def test_the_index_has_all_models():
    text = (DOCS / "zoo" / "index.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| \[`(\w+)`\]\(\1\.md\) \| \[", text, re.MULTILINE)) == ALL_MODELS
    assert sorted(page.stem for page in (DOCS / "zoo").glob("*.md")) == sorted([*ALL_MODELS, "index"])
