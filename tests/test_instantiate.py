"""From configs to objects, and back from disk."""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import config

from vaezoo.errors import ConfigError
from vaezoo.instantiate import build
from vaezoo.models import VAE, BetaVAE
from vaezoo.nets import MLP
from vaezoo.runs.load import load

NODE = {"_target_": "vaezoo.models.BetaVAE", "data_shape": [1, 4, 4], "beta": 2, "latent_dim": 3}


def test_builds_nested_nodes_and_partials():
    model = build({**NODE, "encoder": {"_target_": "vaezoo.nets.MLP", "_partial_": True, "hidden": [7]}}, "model")
    assert type(model) is BetaVAE
    assert model.objective.configured_weights["beta"] == 2
    assert model.encoder.net.layers[0].out_features == 7
    factory = build({"_target_": "vaezoo.nets.MLP", "_partial_": True}, "model.encoder")
    assert isinstance(factory, partial)
    assert factory.func is MLP


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"latnet_dim": 3}, "model.latnet_dim: BetaVAE has no such option, did you mean model.latent_dim?"),
        ({"beta": "four"}, "model.beta='four' should be a number"),
        ({"latent_dim": 2.5}, "latent_dim should be an integer, or a list of integers, got 2.5"),
        ({"latent_dim": True}, "latent_dim should be an integer, or a list of integers, got True"),
        ({"latent_dim": 0}, "latent_dim must be >= 1, got 0"),
        ({"num_samples": 0}, "num_samples must be >= 1"),
        ({"beta": -1}, "beta must be a finite number >= 0"),
        ({"free_bits": float("nan")}, "model.free_bits=nan should be a finite number"),
        ({"_target_": "vaezoo.models.GammaVAE"}, "model._target_=vaezoo.models.GammaVAE does not exist"),
        ({"encoder": {"_target_": "vaezoo.nets.MLP", "_partial_": True, "hiden": [1]}}, "model.encoder.hiden"),
        ({"encoder": {"_target_": "vaezoo.nets.MLP", "_partial_": True, "activation": "relux"}}, "activation=relux"),
    ],
)
def test_messages_of_bad_nodes(change, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        build({**NODE, **change}, "model")


def test_missing_argument():
    with pytest.raises(ConfigError, match=r"model\.data_shape is missing: VAE needs it"):
        build({"_target_": "vaezoo.models.VAE"}, "model")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "torch.load",
        "subprocess.Popen",
        "vaezoo.instantiate.import_module",  # what an allowed module imports is not allowed
        "vaezoo.runs.checkpoint.torch.load",
        "torch.nn.functional.boolean_dispatch.__globals__",
        "vaezooevil.run",
    ],
)
def test_targets_outside_the_allowed_packages_never_run(target):
    """A config cannot name a function outside the allowed packages."""
    with pytest.raises(ConfigError):
        build({"_target_": target}, "model")


def test_own_packages_can_be_allowed():
    assert build({"_target_": "fractions.Fraction", "numerator": 3}, "model", allow_packages=("fractions",)) == 3


def test_every_choice_of_every_part_builds():
    for kind in ("encoder", "decoder"):
        for net in ("mlp", "conv"):
            build(config("model", f"model/{kind}={net}", "data=mnist"), "model")
    for data in ("digits", "mnist", "fashion_mnist", "kmnist", "cifar10"):
        node = config("data", f"data={data}", "data.binarize=none")
        assert build(node, "data").shape == tuple(node["shape"])
    for name in ("adam", "adamw"):
        build(config("optimizer", f"optimizer={name}"), "optimizer")([torch.nn.Parameter(torch.zeros(1))])


def save(folder: Path, model, node):
    (folder / "checkpoints").mkdir(parents=True)
    content = {"state_dict": model.state_dict(), "vaezoo_config": {"model": node, "seed": 0}}
    torch.save(content, folder / "checkpoints" / "best.ckpt")
    return folder / "checkpoints" / "best.ckpt"


def test_load_refuses_broken_checkpoints(tmp_path):
    """Truncated, empty, foreign, non-finite, misfitting and missing checkpoints give one sentence each."""
    node = json.loads(json.dumps(NODE))
    good = save(tmp_path / "run", build(NODE, "model"), node)
    assert isinstance(load(tmp_path / "run"), VAE)

    def bad(content: bytes | None = None, **change):
        path = tmp_path / "bad.ckpt"
        if content is not None:
            path.write_bytes(content)
        else:
            torch.save(torch.load(good, weights_only=True) | change, path)
        return path

    state = torch.load(good, weights_only=True)["state_dict"]
    broken = {name: value * torch.nan if value.is_floating_point() else value for name, value in state.items()}
    for path, words in [
        (bad(good.read_bytes()[:1000]), "not a readable checkpoint"),
        (bad(b""), "not a readable checkpoint"),
        (bad(b"hello"), "not a readable checkpoint"),
    ]:
        with pytest.raises(ValueError, match=words):
            load(path)
    with pytest.raises(ValueError, match="not finite"):
        load(bad(state_dict=broken))
    with pytest.raises(ValueError, match="does not fit its own config"):
        load(bad(vaezoo_config={"model": {**node, "latent_dim": 9}, "seed": 0}))
    torch.save({"state_dict": state}, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match="not a checkpoint of a vaezoo run"):
        load(tmp_path / "bad.ckpt")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(FileNotFoundError, match=r"has no checkpoints/best\.ckpt"):
        load(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load(tmp_path / "nowhere")
