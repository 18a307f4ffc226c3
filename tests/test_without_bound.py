"""A model whose code has no density: everything works, and nothing like an ELBO is printed or logged."""

import csv
import json

import pytest

PACKAGE = """
import torch
from vaezoo.distributions import Deterministic
from vaezoo.models import VAE
from vaezoo.objectives import Objective
from vaezoo.trace import Latent, Trace


class Distortion(Objective):
    has_kl_term = False

    @property
    def limits(self):
        reason = "the code has no density"
        return {"elbo": reason, "kl_per_dim": reason, "active_units": reason}

    def forward(self, trace):
        return {"loss": -trace.mean_log_px}


class Autoencoder(VAE):
    def __init__(self, data_shape, latent_dim, **kwargs):
        super().__init__(data_shape, latent_dim, objective=Distortion(), **kwargs)

    def forward(self, x, context=None, num_samples=None):
        q = Deterministic(self.encode(x, context), event_dims=1)
        z = q.rsample(torch.Size([num_samples or 1]))
        return Trace(x, self.decoder(z, context), (Latent(q, self.prior(context), z),), context)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "own_autoencoder.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)


def test_training_evaluation_and_samples(cli, package):
    own = ["allow_packages=[own_autoencoder]", "model._target_=own_autoencoder.Autoencoder"]
    short = ["trainer.max_epochs=2", "callbacks.early_stopping.patience=5", "callbacks/early_stopping=default"]
    code, out, err, folder = cli("logger=csv", *own, *short)
    assert code == 0, err
    assert "log_px" in out
    summary = json.loads((folder / "summary.json").read_text())
    assert "elbo" not in summary["test"]
    assert "kl" not in summary["test"]
    assert {"log_px", "log_px_error", "loss"} <= summary["test"].keys()
    best = max(float(row["val/log_px"]) for row in rows(folder) if row["val/log_px"])
    assert summary["objective"] == pytest.approx(best, rel=1e-6)
    assert not [name for name in rows(folder)[0] if "elbo" in name or "kl" in name]
    few = "task.metrics=[likelihood,latent,probes]"
    code, out, err, evaluation = cli("task=evaluate", f"run={folder}", own[0], few)
    assert code == 0, err
    summary = json.loads((evaluation / "summary.json").read_text())
    assert {"likelihood", "latent"} <= summary["left_out"].keys()
    assert "no ELBO" in summary["left_out"]["likelihood"]
    assert "Deterministic cannot" in summary["left_out"]["latent"]
    assert "probe_linear" in " ".join(summary["test"]) or "probes" not in summary["left_out"]
    assert cli("task=sample", f"run={folder}", own[0])[0] == 0
    code, out, err, page = cli("task=report", f"runs={folder.parent}")
    assert code == 0, err
    assert (page / "report.html").exists()


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))
