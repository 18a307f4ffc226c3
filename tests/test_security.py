"""Nothing in a checkpoint or run folder of a stranger is executed, and a broken one gives one sentence."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import REPO, config
from test_contract import MODELS

from vaezoo.errors import ConfigError
from vaezoo.instantiate import build
from vaezoo.models import BetaVAE
from vaezoo.runs.checkpoint import read_checkpoint
from vaezoo.runs.load import load

OLD = REPO / "tests" / "data" / "f317a8e.ckpt"  # written by the version of that commit


def test_nothing_of_a_stranger_is_executed():
    """A part of the campaign: calls of all that a config can name, payloads, archives, records; the hook notices."""
    words = [sys.executable, str(REPO / "tests" / "campaign" / "security.py"), "--json", "--every", "29"]
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert {kind: found["effects"] for kind, found in figures.items() if found["effects"]} == {}
    assert done.returncode == 0
    assert figures["control"]["actions"] == 6
    assert figures["called at model"]["targets"] >= len(MODELS) - 2  # mlp_vae and conv_vae are one class
    assert figures["called at model.encoder"]["targets"] > 40
    assert figures["payloads"]["payloads"] >= 60
    assert figures["payloads"]["attempts"] > 200


@pytest.mark.parametrize("name", MODELS)
def test_every_model_loads_from_its_checkpoint(name, tmp_path):
    """Every model of the zoo is admitted, and its weights are loaded to the bit."""
    small = [f"model.{part}.hidden=[8]" for part in ("encoder", "decoder")]
    nets = ["model/encoder=mlp", "model/decoder=mlp", "data.shape=[1,5,3]", "model.latent_dim=3"]
    node = config("model", f"model={name}", *nets, *small)
    model = build(node, "model", seed=3)
    content = {"state_dict": model.state_dict(), "vaezoo_config": {"model": node, "seed": 3}}
    torch.save(content, tmp_path / "a.ckpt")
    before = torch.random.get_rng_state()
    loaded = load(tmp_path / "a.ckpt")
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's random stream stays as it was
    assert type(loaded) is type(model)
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, content["state_dict"][key]), key


def test_a_checkpoint_of_an_earlier_version_loads(cli):
    model = load(OLD)
    assert type(model) is BetaVAE
    assert model.objective.configured_weights["beta"] == 4.0
    code, _out, err, run = cli("task=evaluate", f"run={OLD}", "task.metrics=[]", "threads=1")
    assert code == 0, err
    test = json.loads((run / "summary.json").read_text())["test"]
    assert test["elbo"] == pytest.approx(ELBO, abs=1e-3)
    assert test["kl"] == pytest.approx(KL, abs=1e-3)


ELBO, KL = -27.85479547712538, 0.5082562488089833  # from that version's own summary


@pytest.mark.parametrize(
    ("at", "target"),
    [
        ("model", "vaezoo.nets.MLP"),  # of the right package, of another kind
        ("model.encoder", "vaezoo.models.base.math.sqrt"),
        ("model.encoder", "vaezoo.nets.mlp.init_glorot"),  # a function
        ("model.encoder", "torch.nn.functional.relu"),
        ("model.encoder", "vaezoo.metrics.inception.Inception"),  # reads a file
        ("optimizer", "torch.nn.Linear"),
        ("optimizer", "torch.optim.optimizer.torch.load"),
        ("scheduler", "torch.optim.Adam"),
        ("scheduler", "vaezoo.training.schedulers.LambdaLR.__init__"),
        ("data", "vaezoo.models.VAE"),
        ("data", "lightning.pytorch.LightningDataModule"),
        ("trainer", "lightning.pytorch.Callback"),
        ("trainer", "vaezoo.tasks.fit.fit"),
        ("callbacks", "lightning.pytorch.Trainer"),
        ("callbacks.checkpoint_best", "vaezoo.runs.folder.write_atomic"),
        ("logger", "vaezoo.loggers.find_wandb_id"),
        ("task", "vaezoo.runs.summary.write_summary"),
        ("task", "vaezoo.runs.checkpoint.read_checkpoint"),
    ],
)
def test_each_place_admits_only_its_own_kind(at, target):
    with pytest.raises(ConfigError, match=rf"^{at}\._target_="):
        build({"_target_": target}, at)


def test_a_target_is_checked_before_its_arguments_are_built():
    """The inner node is valid, but must not be built before the outer target is refused."""
    built = []

    class Recording(dict):
        def items(self):
            built.append(True)
            return super().items()

    inner = Recording(_target_="vaezoo.nets.MLP", _partial_=True)
    with pytest.raises(ConfigError, match="not in an allowed package"):
        build({"_target_": "os.system", "command": inner}, "model.encoder")
    assert not built
    build({"_target_": "vaezoo.models.VAE", "data_shape": [1, 3, 3], "latent_dim": 2, "encoder": inner}, "model")
    assert built


def changed(tmp_path, **parts):
    """Write the old checkpoint with other parts."""
    path = tmp_path / "changed.ckpt"
    torch.save(read_checkpoint(OLD) | parts, path)
    return path


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_weights_of_another_dtype_are_refused(tmp_path, dtype):
    """Without a check they would be cast silently."""
    state = read_checkpoint(OLD)["state_dict"]
    name = next(key for key in state if key.endswith("weight"))
    with pytest.raises(ValueError, match=rf"does not fit its own config \({name} is {dtype}"):
        load(changed(tmp_path, state_dict=state | {name: state[name].to(dtype)}))
    half = {key: value.bfloat16() if value.is_floating_point() else value for key, value in state.items()}
    assert load(changed(tmp_path, state_dict=half)).dtype == torch.float32  # as trainer.precision=bf16-true saves it


def test_a_checkpoint_of_another_trainer(tmp_path):
    """It has weights and no config: the message says how to use it."""
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.6"}, tmp_path / "own.ckpt")
    with pytest.raises(ValueError, match=r"it has no vaezoo_config\): if a Trainer of your own .*load_state_dict"):
        load(tmp_path / "own.ckpt")


@pytest.fixture
def own_package(tmp_path, monkeypatch):
    """Write a package of the user's own into the working directory. It creates a file if it is imported."""
    text = f"import pathlib\nfrom vaezoo.models import VAE\npathlib.Path({str(tmp_path / 'imported')!r}).touch()\n"
    (tmp_path / "ownpackage.py").write_text(text + "class Mine(VAE):\n    pass\n")
    yield tmp_path / "imported"
    sys.modules.pop("ownpackage", None)


def test_allowed_packages_are_never_inherited_from_a_file(cli, own_package, tmp_path):
    """Neither from a checkpoint's config nor from a run's record; only the present command line counts."""
    short = ("logger=none", "callbacks.images=null", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]")
    mine = "model._target_=ownpackage.Mine"
    code, _out, err, run = cli(*short, "allow_packages=[ownpackage]", mine, "trainer.max_epochs=1")
    assert code == 0, err
    own_package.unlink()
    sys.modules.pop("ownpackage")
    assert read_checkpoint(run)["vaezoo_config"]["allow_packages"] == ["ownpackage"]
    with pytest.raises(ConfigError, match="in a package that you wrote"):
        load(run)
    for words in (["task=sample", f"run={run}", "num=2"], [f"run={run}", "trainer.max_epochs=2"]):
        code, _out, err, _ = cli(*words)
        assert code == 1
        assert "model._target_=ownpackage.Mine is not in an allowed package" in err
        assert not own_package.exists()
    for words in (["task=sample", f"run={run}", "num=2"], [f"run={run}", "trainer.max_epochs=2"]):
        code, _out, err, _ = cli(*words, "allow_packages=[ownpackage]")
        assert code == 0, err
    assert own_package.exists()
    assert load(run, allow_packages=("ownpackage",)).latent_shape == (20,)


def test_a_link_out_of_a_run_folder_is_not_written_through(cli, tmp_path):
    """A stranger's folder may have links to files of the user."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    short = ("logger=csv", "callbacks.images=null", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]")
    _code, _out, _err, run = cli(*short, "trainer.max_epochs=1")
    for name in (".lock", "metrics.csv"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(victim)
        code, _out, err, _ = cli(f"run={run}", "trainer.max_epochs=2")
        assert code == 1
        assert f"{name} is a link out of the run's folder" in err
        assert victim.read_text() == "untouched"
        (run / name).unlink()


def test_data_are_not_downloaded_into_a_folder_that_a_file_names(cli, tmp_path, monkeypatch):
    """Data are read from the folder in a checkpoint's config, but never written there."""
    from torchvision.datasets import mnist

    def download(*_, **__):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(mnist, "download_and_extract_archive", download)
    saved = read_checkpoint(OLD)["vaezoo_config"]
    root = tmp_path / "elsewhere"
    data = saved["data"] | {"_target_": "vaezoo.data.MNIST", "root": str(root)}
    path = changed(tmp_path, vaezoo_config=saved | {"data": data})
    code, _out, err, _ = cli("task=sample", f"run={path}", "num=2")
    assert code == 1
    assert "MNIST" in err
    assert str(root) in err
    assert not root.exists()
