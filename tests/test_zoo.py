"""The structure of the zoo: models that only choose parts, configs with their names, no copied code."""

import ast
import inspect
from collections import Counter
from pathlib import Path

import pytest
from conftest import REPO, config
from test_contract import ALL_MODELS, bits

from vaezoo.errors import ConfigError
from vaezoo.instantiate import build, locate
from vaezoo.models import CIWAE, IWAE, MIWAE, PIWAE, VAE, LadderVAE

# Configs of the same class as another, with other networks or options.
OF_THE_CLASS_OF_ANOTHER = {
    "mlp_vae", "conv_vae", "audio_vae", "deep_kalman", "jmvae", "mmvae", "mopoe_vae", "mvtcae",
}  # fmt: skip
HAVE_OWN_METHODS = {"vq_vae", "ladder_vae", "cvae", "m2_vae", "multimodal_vae"}


@pytest.mark.parametrize("name", sorted({p.stem for p in (REPO / "vaezoo" / "models").glob("*ae.py")} - {"vae"}))
def test_a_model_only_chooses_parts(name):
    """The file has one class with ``__init__`` and nothing else, and a link to the paper."""
    tree = ast.parse((REPO / "vaezoo" / "models" / f"{name}.py").read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert len(classes) == 1, "one class to a paper: a new objective goes to vaezoo/objectives/"
    assert "https://" in (ast.get_docstring(classes[0]) or ""), "the docstring needs the paper's link"
    if name not in HAVE_OWN_METHODS:
        defined = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        body = [node.name if isinstance(node, ast.FunctionDef) else type(node).__name__ for node in classes[0].body]
        assert not defined
        assert body == ["Expr", "__init__"]  # the docstring, and that


@pytest.mark.parametrize("name", ALL_MODELS)
def test_a_config_is_named_after_its_class(name):
    target = config("model", f"model={name}")["_target_"]
    assert target.startswith("vaezoo.models.")
    if name not in OF_THE_CLASS_OF_ANOTHER:
        assert target.rpartition(".")[2].lower() == name.replace("_", "")


@pytest.mark.parametrize("name", ALL_MODELS)
def test_readme_has_its_row(name):
    readme = (REPO / "README.md").read_text()
    assert readme.count(f"\n| [`{name}`](docs/zoo/{name}.md) |") == 1, f"the README's table needs one row `{name}`"


# These values leave a loss as it is. They are the defaults of the classes, and conf/model shows them.
NEUTRAL = {"num_samples": 1, "free_bits": 0.0, "free_bits_per": "dim", "gradient": "reparam"}


def defaults(cls):
    """The defaults of a class and of the parents that it passes **kwargs to."""
    found = {}
    for parent in reversed(cls.__mro__[:-1]):
        parameters = inspect.signature(parent.__init__).parameters if "__init__" in vars(parent) else {}
        found |= {name: p.default for name, p in parameters.items()}
    return {name: value for name, value in found.items() if value is not inspect.Parameter.empty}


@pytest.mark.parametrize("name", ALL_MODELS)
def test_a_models_settings_stand_in_its_config_alone(name):
    """The class has no default for what its config sets, except for the neutral values."""
    node = config("model", f"model={name}")
    given = {key: value for key, value in node.items() if key in defaults(locate(node["_target_"], "model"))}
    parts = {key for key, value in given.items() if value is None or isinstance(value, dict)}
    assert given.keys() - parts <= NEUTRAL.keys()


@pytest.mark.parametrize("cls", [VAE, IWAE, MIWAE, CIWAE, PIWAE, LadderVAE], ids=lambda cls: cls.__name__)
def test_neutral_defaults(cls):
    found = defaults(cls)
    assert found.items() >= {key: NEUTRAL[key] for key in found.keys() & NEUTRAL.keys()}.items()


@pytest.mark.parametrize(("given", "missing"), [("beta", "latent_dim"), ("latent_dim", "beta")])
def test_a_missing_setting_is_named(given, missing):
    node = {"_target_": "vaezoo.models.BetaVAE", "data_shape": [1, 4, 4], given: 3}
    with pytest.raises(ConfigError, match=rf"^model\.{missing} is missing: BetaVAE needs it$"):
        build(node, "model", seed=0)


def test_little_is_copied():
    """Less than 5 % of the package's lines are in a block of 6 lines that occurs twice."""
    texts = [path.read_text().splitlines() for path in Path(REPO, "vaezoo").rglob("*.py")]
    files = [[line.strip() for line in text if line.strip()] for text in texts]
    size = 6
    blocks = Counter(tuple(lines[i : i + size]) for lines in files for i in range(len(lines) - size + 1))
    copied = total = 0
    for lines in files:
        inside = set()
        for i in range(len(lines) - size + 1):
            if blocks[tuple(lines[i : i + size])] > 1:
                inside |= set(range(i, i + size))
        copied, total = copied + len(inside), total + len(lines)
    assert total > 3000
    assert copied / total < 0.05, f"{copied} of {total} lines"


@pytest.mark.parametrize("name", sorted(path.stem for path in (REPO / "conf" / "experiment").glob("*.yaml")))
def test_an_experiment_can_be_built(name):
    """Its model is built, and a page of the zoo has its results."""
    model = build(config("model", f"experiment={name}"), "model")
    x = bits(2, *config("data.shape", f"experiment={name}"))
    assert model(x).elbo.isfinite().all()
    assert any(f"experiment={name}" in page.read_text() for page in (REPO / "docs" / "zoo").glob("*.md"))
