"""Imputation of missing entries, against the conditional distributions of linear-Gaussian models and quadrature."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import train
from ppca import PPCA, generator, inverse_soft_floor, linear
from torch import nn
from torch.distributions import Categorical, MultivariateNormal, Normal

from vaezoo.families import Categories, Masked
from vaezoo.inference.imputation import impute
from vaezoo.missing import is_observed
from vaezoo.models import VAE

FLOAT = torch.float64
NAN = float("nan")


class Constant(nn.Module):
    """An encoder that ignores x: q(z | x) = N(loc, scale^2) in each dimension, far from the posterior."""

    def __init__(self, loc, scale, floor, dim):
        super().__init__()
        raw = inverse_soft_floor(torch.tensor(math.log(scale), dtype=FLOAT), floor)
        self.raw = torch.cat([torch.full((dim,), loc, dtype=FLOAT), raw.expand(dim)])

    def forward(self, inputs, context=None):
        return self.raw.expand(len(inputs), -1)


def linear_gaussian():
    """A PPCA whose encoder knows nothing, so that only the importance weights can find the posterior."""
    weight = torch.randn(4, 2, dtype=FLOAT, generator=generator(3))
    ppca = PPCA(weight, torch.linspace(-1, 1, 4, dtype=FLOAT), 0.3)
    model = ppca.vae((4,))
    model.decoder.family = Masked(model.decoder.family)
    model.encoder.net = Constant(0.2, 1.3, model.encoder.family.min_log_scale, 2)
    return ppca, model


def conditional(ppca, x):
    """p(missing | observed) of one example."""
    o = is_observed(x)
    covariance = ppca.evidence.covariance_matrix
    gain = covariance[~o][:, o] @ torch.linalg.inv(covariance[o][:, o])
    mean = ppca.mean[~o] + gain @ (x[o] - ppca.mean[o])
    return MultivariateNormal(mean, covariance[~o][:, ~o] - gain @ covariance[o][:, ~o])


def test_numbers_are_those_of_the_conditional_distribution():
    """The best values are its mean; the draws have its mean and its covariance, not those of p(missing | z)."""
    ppca, model = linear_gaussian()
    x = torch.tensor([[0.5, NAN, NAN, 1.5], [NAN, -2.0, 0.3, 0.1], [1.0, 0.0, 0.0, 1.0]], dtype=FLOAT)
    found = impute(model, x, None, torch.zeros(4, dtype=torch.bool), num_samples=40_000, num_draws=20_000)
    for i in range(2):
        exact, missing = conditional(ppca, x[i]), ~is_observed(x[i])
        assert found.best[i, missing] == pytest.approx(exact.mean, abs=0.03)
        draws = found.draws[:, i, missing]
        assert draws.mean(0) == pytest.approx(exact.mean, abs=0.04)
        assert draws.T.cov().reshape(-1) == pytest.approx(exact.covariance_matrix.reshape(-1), abs=0.05)
        assert torch.equal(found.best[i, ~missing], x[i, ~missing])
        assert torch.equal(found.draws[0, i, ~missing], x[i, ~missing])
    assert torch.equal(found.best[2], x[2])  # nothing is missing


def test_an_example_has_random_numbers_of_its_own():
    """The result does not depend on which examples are in one call."""
    _, model = linear_gaussian()
    x = torch.tensor([[0.5, NAN, NAN, 1.5], [NAN, -2.0, 0.3, 0.1]], dtype=FLOAT)
    no = torch.zeros(4, dtype=torch.bool)
    together = impute(model, x, None, no, num_samples=10, num_draws=2)
    alone = impute(model, x[1:], None, no, num_samples=10, num_draws=2, start_index=1)
    assert torch.equal(together.draws[:, 1], alone.draws[:, 0])
    assert torch.equal(together.best[1], alone.best[0])
    assert not torch.equal(impute(model, x, None, no, num_samples=10, seed=1).best, together.best)


def test_the_most_probable_category():
    """p(missing | observed) by quadrature over a latent of one dimension: the category that it prefers, at its rate.

    Without the weights another category would win, because q is at the wrong place.
    """
    model = VAE((2,), latent_dim=1, likelihood=Masked(Categories([3, 2])), decoder=linear).double()
    model.encoder.net = Constant(1.0, 1.0, model.encoder.family.min_log_scale, 1)
    (net,) = model.decoder.net.layers
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[2.0], [0.0], [-2.0], [3.0], [-3.0]]))
        net.bias.copy_(torch.tensor([0.3, 0.2, 0.0, 0.0, 0.0]))
    x = torch.tensor([[-1, 1]])
    z = torch.linspace(-8, 8, 4001, dtype=FLOAT)
    logits = net(z[:, None]).detach()
    joint = Normal(0, 1).log_prob(z).exp() * logits[:, 3:].softmax(1)[:, 1]
    exact = (joint[:, None] * Categorical(logits=logits[:, :3]).probs).sum(0) / joint.sum()
    found = impute(model, x, None, torch.ones(2, dtype=torch.bool), num_samples=20_000, num_draws=20_000)
    rates = torch.bincount(found.draws[:, 0, 0], minlength=3) / 20_000
    assert rates == pytest.approx(exact, abs=0.015)
    assert found.best[0, 0] == exact.argmax() == 2
    assert found.best[0, 1] == 1


def write_table(path, rows=200):
    rng = np.random.default_rng(0)
    z = rng.normal(size=rows)
    frame = pd.DataFrame(
        {
            "code": [f"c{i}" for i in range(rows)],
            "height": np.round(170 + 10 * z + rng.normal(size=rows), 1),
            "weight": np.round(70 + 8 * z + rng.normal(size=rows), 1),
            "color": np.where(z > 0, "red", "blue"),
            "note": "same",
        }
    )
    frame.loc[::9, "height"] = None
    frame.loc[3::11, "color"] = None
    frame.to_csv(path, index=False)
    return frame


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that was trained on a table with missing entries, of which a tenth was hidden; and the table."""
    folder = tmp_path_factory.mktemp("table")
    frame = write_table(folder / "t.csv")
    words = ("data=table", "data.path=t.csv", "data.holes=0.1", "trainer.max_epochs=60", "model.latent_dim=1")
    return train(folder, *words, "optimizer.lr=1e-2"), frame


def test_a_filled_table_has_all_columns_and_rows(cli, trained, tmp_path):
    """Observed entries, ids and columns that are not modelled stay as they were; no modelled entry is empty."""
    run, frame = trained
    new = frame.iloc[[0, 9, 3, 14, 27, 5]]
    new.to_csv(tmp_path / "new.csv", index=False)
    code, out, err, folder = cli("task=impute", f"run={run}", "data=table", "data.path=new.csv", "draws=2")
    assert code == 0, err
    assert folder.parent == run / "impute"
    assert "5 missing entries in 5 of 6 rows are filled in" in out
    for name in ("imputed", "imputed-1", "imputed-2"):
        filled = pd.read_csv(folder / f"{name}.csv")
        assert list(filled) == list(frame)
        assert filled.notna().all().all()
        for column in frame:
            observed = new[column].notna().to_numpy()
            assert filled[column][observed].tolist() == new[column][observed].tolist()
    heights = [pd.read_csv(folder / f"{name}.csv").height[0] for name in ("imputed", "imputed-1", "imputed-2")]
    assert len(set(heights)) == 3


def test_errors_of_hidden_entries_are_reported(cli, trained):
    """They are those that the test computes from the files, and the model is better than a constant."""
    run, frame = trained
    code, out, err, folder = cli("task=impute", f"run={run}")
    assert code == 0, err
    filled = pd.read_csv(folder / "imputed.csv").set_index("code")
    truth = frame.set_index("code").loc[filled.index]
    errors = json.loads((folder / "summary.json").read_text())["errors"]
    assert set(errors) == {"height", "weight", "color"}
    gap = (filled.weight - truth.weight)[(filled.weight - truth.weight).abs() > 1e-9]
    found = errors["weight"]
    assert found["num"] >= len(gap) > 0
    assert found["model"] == pytest.approx(math.sqrt(float((gap**2).sum()) / found["num"]), rel=0.05)  # rounded files
    wrong = (filled.color != truth.color) & truth.color.notna()
    assert errors["color"]["model"] == pytest.approx(wrong.sum() / errors["color"]["num"])
    assert found["model"] < 0.7 * found["baseline"]
    assert "hidden entries: error of the imputation" in out


def test_some_rows_only(cli, trained):
    """``num`` takes evenly spaced rows, whose observed entries are as they are in the table."""
    run, frame = trained
    code, _, err, folder = cli("task=impute", f"run={run}", "num=5", "num_samples=20", "draws=1")
    assert code == 0, err
    filled = pd.read_csv(folder / "imputed.csv")
    arrays = np.load(folder / "imputed.npz")
    assert arrays["code"].tolist() == filled.code.tolist()
    assert arrays["rows"].shape == (5, 3)
    assert not np.isnan(arrays["rows"]).any()
    assert arrays["draws"].shape == (5, 1, 3)
    truth = frame.set_index("code").loc[filled.code]
    errors = json.loads((folder / "summary.json").read_text()).get("errors", {})
    columns = ["height", "weight", "color"]
    changed = (filled.set_index("code")[columns] != truth[columns]).sum().sum()
    assert sum(error["num"] for error in errors.values()) <= changed < 8


def test_nothing_to_fill_in(cli, trained, tmp_path):
    run, frame = trained
    frame.iloc[1:3].to_csv(tmp_path / "whole.csv", index=False)
    code, _, err, _ = cli("task=impute", f"run={run}", "data=table", "data.path=whole.csv")
    assert code == 1
    assert "no entry of the rows is missing, so there is nothing to fill in" in err
