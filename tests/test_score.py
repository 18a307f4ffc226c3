"""Scores of examples: conformal p-values, the bound of each example, and the task."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import train
from PIL import Image

import vaezoo
from vaezoo.data import Digits
from vaezoo.metrics.conformal import TooFewExamples, p_values, threshold
from vaezoo.pictures import Display


def test_p_values_are_the_definition():
    """(1 + number of reference scores that are not smaller) / (1 + M), with ties."""
    g = torch.Generator().manual_seed(0)
    reference, score = torch.randint(0, 6, (39,), generator=g).float(), torch.arange(-1.0, 8.0)
    expected = [(1 + sum(r >= s for r in reference.tolist())) / 40 for s in score.tolist()]
    assert p_values(score, reference).tolist() == expected


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3, 0.5])
def test_as_many_normal_examples_are_flagged_as_alpha_says(alpha):
    """Each of M + 1 exchangeable examples in turn is the new one: exactly floor(alpha (M + 1)) of them are flagged."""
    scores = torch.randn(40, generator=torch.Generator().manual_seed(1))
    flagged = 0
    for i in range(40):
        others = torch.cat([scores[:i], scores[i + 1 :]])
        p = p_values(scores[i : i + 1], others)
        assert bool(p <= alpha) == bool(scores[i] > threshold(others, alpha))
        flagged += int(p <= alpha)
    assert flagged == math.floor(alpha * 40 + 1e-9)


def test_too_few_examples_for_a_share():
    with pytest.raises(TooFewExamples, match="needs 49 held-out examples"):
        threshold(torch.arange(40.0), 0.02)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a trained run."""
    small = ("trainer.max_epochs=2", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]")
    return train(tmp_path_factory.mktemp("score"), *small)


def test_the_mean_of_the_elbo_is_that_of_the_test(cli, run):
    """Codes and scores have the noise of the test, so their means are its numbers, to rounding of float64 sums."""
    test = json.loads((run / "summary.json").read_text())["test"]
    _, _, err, folder = cli("task=encode", f"run={run}")
    codes = pd.read_csv(folder / "codes.csv")
    assert codes.elbo.mean() == pytest.approx(test["elbo"], rel=1e-12), err
    assert codes.rate.mean() == pytest.approx(test["kl"], rel=1e-12)
    assert codes.distortion.mean() == pytest.approx(-test["log_px"], rel=1e-12)
    assert (-codes.distortion - codes.rate).to_numpy() == pytest.approx(codes.elbo.to_numpy(), rel=1e-5)


def test_scores_are_those_of_the_examples(cli, run):
    """log p is the estimate for that example, the order is by it, and p-values come from the validation set."""
    code, out, err, folder = cli("task=score", f"run={run}", "num_samples=10", "num_reference=50", "alpha=0.1")
    assert code == 0, err
    scores = pd.read_csv(folder / "scores.csv")
    assert sorted(scores["index"]) == list(range(360))
    assert scores.anomaly.is_monotonic_decreasing
    assert (scores.anomaly == -scores.log_p).all()
    model, data = vaezoo.load(run), Digits(val_size=180, binarize="dynamic")
    data.setup()
    first = int(scores["index"][0])
    x, y = data.test.x.float(), data.test.y
    exact = model.log_marginal(x[first : first + 1], y[first : first + 1], num_samples=10, start_index=first)
    assert scores.log_p[0] == pytest.approx(float(exact), rel=1e-6)
    assert scores.label[0] == int(y[first])
    which = torch.arange(50) * 180 // 50
    held_out = -model.log_marginal(data.val.x[which].float(), data.val.y[which], num_samples=10)
    expected = p_values(torch.tensor(scores.anomaly.to_numpy()), held_out)
    assert scores.p_value.to_numpy() == pytest.approx(expected.numpy())
    assert (scores.is_anomaly == (scores.p_value <= 0.1)).all()
    assert f"{int(scores.is_anomaly.sum())} of 360 images score above" in out
    assert "the threshold is from 50 images of the validation set" in out
    assert np.asarray(Image.open(folder / "scores.png")).std() > 5


def test_scores_without_samples_and_reference(cli, run):
    """The ELBO takes the place of log p(x), and no p-value is given."""
    code, out, err, folder = cli("task=score", f"run={run}", "num_samples=0", "num_reference=0", "format=npz")
    assert code == 0, err
    scores = np.load(folder / "scores.npz")
    assert list(scores) == ["index", "label", "elbo", "distortion", "rate", "anomaly"]
    assert np.array_equal(scores["anomaly"], -scores["elbo"])
    assert "threshold" not in out


def test_some_examples_only(cli, run):
    """``num`` takes evenly spaced examples."""
    code, _, err, folder = cli("task=score", f"run={run}", "num=4", "num_samples=5", "num_reference=0")
    assert code == 0, err
    scores = pd.read_csv(folder / "scores.csv").sort_values("index")
    assert scores["index"].tolist() == [0, 90, 180, 270]
    data = Digits(val_size=180, binarize="dynamic")
    data.setup()
    assert scores.label.tolist() == data.test.y[[0, 90, 180, 270]].tolist()


def test_few_held_out_examples(cli, run):
    """There are p-values, but no threshold."""
    code, out, err, folder = cli("task=score", f"run={run}", "num_samples=0", "num_reference=5")
    assert code == 0, err
    assert "no is_anomaly: alpha=0.05 needs 19 held-out examples" in out
    scores = pd.read_csv(folder / "scores.csv")
    assert scores.p_value.min() == pytest.approx(1 / 6)
    assert "is_anomaly" not in scores


def test_training_images_are_drawn_as_the_model_sees_them(cli, run, monkeypatch):
    """Training images are stored as bytes, of which bits are drawn."""
    drawn = []
    grid = Display.grid
    monkeypatch.setattr(Display, "grid", lambda self, x, *words: drawn.append(x) or grid(self, x, *words))
    code, _, err, _ = cli("task=score", f"run={run}", "split=train", "num_samples=0", "num_reference=0")
    assert code == 0, err
    assert [len(x) for x in drawn] == [16, 16]
    assert set(torch.cat(drawn).unique().tolist()) == {0.0, 1.0}


def test_outliers_are_on_top(cli, run, tmp_path):
    """Pictures of noise among real digits: each is named by its file and is more anomalous than any digit."""
    rng = np.random.default_rng(0)
    data = Digits(val_size=180)
    (tmp_path / "new").mkdir()
    for i, image in enumerate(data.read()[1].x[:30, 0].numpy()):
        Image.fromarray(image).save(tmp_path / "new" / f"digit{i:02}.png")
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "new" / f"noise{i}.png")
    code, _, err, folder = cli("task=score", f"run={run}", "data=folder", "data.root=new", "num_samples=10")
    assert code == 0, err
    scores = pd.read_csv(folder / "scores.csv")
    assert sorted(scores.file[:3]) == ["noise0.png", "noise1.png", "noise2.png"]
    assert scores.is_anomaly[:3].all()
    assert "label" not in scores
    assert scores.p_value[0] == pytest.approx(1 / 361)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["alpha=2"], "alpha=2 should be a share of normal examples"),
        (["num_samples=-1"], "num_samples=-1 should be an integer >= 0"),
        (["alpha=0"], "alpha=0 should be a share of normal examples"),
        (["format=xls"], "format=xls is not one of csv, parquet, npz"),
        (["split=all"], "Digits has a published test set: use split=train, val or test, not all"),
        (["split=tset"], "split=tset is not one of train, val, test, all"),
    ],
)
def test_mistakes(cli, run, words, sentence):
    code, _, err, _ = cli("task=score", f"run={run}", *words)
    assert code == 1
    assert sentence in err
