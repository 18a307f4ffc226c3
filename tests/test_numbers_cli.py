"""What a run writes and prints about itself: its length, its objective, and valid JSON."""

import json

import pytest
import torch
from lightning.pytorch import Trainer
from test_training import BITS, QUIET, loader

from vaezoo.models import VAE, BetaVAE, LatentVariableModel

TINY = ("trainer.max_epochs=1", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "logger=none",
        "callbacks.images=null")  # fmt: skip


def read(folder, name="summary.json"):
    """Read the summary as a browser does: NaN and Infinity are not valid JSON."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads((folder / name).read_text(), parse_constant=refuse)


@pytest.fixture
def nan_in_validation(monkeypatch):
    """Make val/elbo NaN, as in a model that diverges."""
    values = LatentVariableModel.stage_values

    def broken(self, stage):
        return values(self, stage) | ({"elbo": float("nan")} if stage == "val" else {})

    monkeypatch.setattr(LatentVariableModel, "stage_values", broken)


def test_the_objective_is_a_validation_score(cli):
    """The best score, else the last score, else None; never a test score."""
    _code, _out, _err, run = cli(*TINY)
    summary = read(run)
    assert summary["objective"] == pytest.approx(summary["last_val"]["elbo"], rel=1e-6)
    _code, _out, _err, run = cli(*TINY, "callbacks.checkpoint_best=null")
    assert read(run)["objective"] == read(run)["last_val"]["elbo"]
    code, _out, _err, run = cli(*TINY, "trainer.limit_val_batches=0")
    assert code == 0
    assert read(run)["objective"] is None


@pytest.mark.usefixtures("nan_in_validation")
def test_nan_in_validation(cli):
    code, _out, err, run = cli(*TINY)
    assert code == 1
    assert "error: training diverged: val/elbo is nan in the validation after step 20: try a smaller" in err
    assert read(run)["status"] == "failed"
    code, _out, err, run = cli(*TINY, "on_nan=skip")
    assert code == 0
    assert "val/elbo is nan in the validation after step 20: these weights cannot become the best checkpoint" in err
    assert not (run / "checkpoints" / "best.ckpt").exists()
    summary = read(run)
    assert (summary["objective"], summary["last_val"]["elbo"]) == (None, None)
    assert summary["test"]["elbo"] < 0


def test_a_fraction_of_an_epoch_is_reported(cli):
    code, out, err, run = cli(*TINY[:-1], "trainer.max_steps=5")
    assert code == 0
    assert "5 steps (0.25 epochs) in " in out
    assert "cpu with 1 thread, 1 epoch or 5 steps" in err
    assert "epoch 0.25/1, step 5/5" in err
    assert (read(run)["epochs"], read(run)["steps"]) == (0.25, 5)
    assert (run / "panels" / "samples-0000.250.png").exists()


def test_a_checkpoint_has_its_own_config(cli, tmp_path):
    """``load_from_checkpoint`` builds the trained model; arguments that contradict it are refused with both values."""
    _code, _out, _err, run = cli(*TINY, "model/likelihood=normal", "model.latent_dim=3")
    best = run / "checkpoints" / "best.ckpt"
    for model in (
        VAE.load_from_checkpoint(best, data_shape=(1, 8, 8)),
        LatentVariableModel.load_from_checkpoint(run, map_location="cpu", latent_dim=3, data_shape=[1, 8, 8], seed=0),
    ):
        assert type(model.likelihood).__name__ == "FixedScaleNormal"
        assert not model.training
    with pytest.raises(ValueError, match=r"latent_dim=20 contradicts the config of .*best.ckpt, latent_dim=3: leave"):
        VAE.load_from_checkpoint(best, latent_dim=20)
    with pytest.raises(ValueError, match=r"data_shape=\(1, 9, 9\) contradicts .*, data_shape=\[1, 8, 8\]: leave"):
        VAE.load_from_checkpoint(best, data_shape=(1, 9, 9))
    with pytest.raises(ValueError, match=r"on_nan='skip' is not in the config of .*, which decides: leave it out"):
        VAE.load_from_checkpoint(best, on_nan="skip")
    with pytest.raises(ValueError, match=r"holds a VAE, not a BetaVAE: use VAE.load_from_checkpoint"):
        BetaVAE.load_from_checkpoint(best)


def test_a_checkpoint_of_a_plain_lightning_trainer(tmp_path):
    """It has no config, so arguments define the model, as in any Lightning program."""
    trainer = Trainer(accelerator="cpu", **QUIET, max_epochs=1)
    trainer.fit(model := VAE((1, 8, 8), latent_dim=3), loader(BITS))
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    other = VAE.load_from_checkpoint(tmp_path / "own.ckpt", data_shape=(1, 8, 8), latent_dim=3)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
