"""The groups of metrics that an evaluation measures, over the zoo: what applies, and the same digits again."""

import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from test_contract import MODELS, make

from vaezoo.data import Digits, Split, Sprites
from vaezoo.errors import ConfigError, DoesNotApply
from vaezoo.evaluation.base import EvaluationSettings
from vaezoo.evaluation.features import features_for
from vaezoo.evaluation.groups import GROUPS
from vaezoo.inference.ais import annealed_importance_sampling, simulate
from vaezoo.inference.importance_sampling import estimate_log_marginal
from vaezoo.runs.trained import TrainedRun

SETTINGS = EvaluationSettings(num_samples=5, num_images=20, annealed=0, outliers=None, compiled=False)
# What does not apply to whom, and why.
LEFT_OUT = {
    "latent": {"ladder_vae", "vq_vae", "planar_vae", "iaf_vae", "cvae"},
    "probes": {"cvae"},  # its code was made with the label
    "samplers": {"ladder_vae", "vq_vae", "s_vae", "cvae"},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where feature networks are kept, for all tests here."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def cached(monkeypatch, cache):
    """Networks are kept for the next test, and trained for a shorter time than a user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setattr("vaezoo.evaluation.features.features_for", partial(features_for, num_images=30_000))


def opened(name):
    """A model with its first weights, as a trained run."""
    torch.manual_seed(0)
    model = make(name, net="mlp", shape=(1, 8, 8))
    binary = model.likelihood.supported_data == {"binary"}
    data = Digits(val_size=180, binarize="dynamic" if binary else "none")
    data.setup()
    model.objective.set_num_train(data.num_train)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    return TrainedRun({"data": {}, "allow_packages": [], "seed": 0}, model.eval(), data, trainer, Path("x"))


@pytest.mark.parametrize("group", ["likelihood", "latent", "probes", "reconstruction"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model(name, group):
    """Finite numbers, each with its meaning; or a reason."""
    run = opened(name)
    if name in LEFT_OUT.get(group, ()):
        with pytest.raises(DoesNotApply):
            GROUPS[group](run, SETTINGS)
        return
    found = GROUPS[group](run, SETTINGS)
    assert found.values
    assert all(math.isfinite(value) for value in found.values.values())
    bare = {re.sub("_(error|ceiling|reference)$", "", key) for key in set(found.values) - set(found.quantities)}
    assert bare <= set(found.quantities)


def test_log_p_tells_its_protocol():
    """Bounds of different K, or of other images, are different numbers: a table must be able to tell."""
    values = GROUPS["likelihood"](opened("mlp_vae"), SETTINGS).values
    assert (values["log_p_samples"], values["log_p_images"]) == (5, 20)


def test_the_inference_gap():
    """Of the same draws; none of a code without noise, whose draws are all alike."""
    run = opened("mlp_vae")
    (x, y) = next(run.batches("test", 20))
    truth = estimate_log_marginal(run.model, x, y, num_samples=5)
    values = GROUPS["likelihood"](run, SETTINGS).values
    gap = truth.log_px - truth.elbo
    assert values["inference_gap"] == pytest.approx(float(gap.mean()), rel=1e-6)
    assert values["inference_gap_error"] == pytest.approx(float(gap.std()) / 20**0.5, rel=1e-6)
    assert "inference_gap" not in GROUPS["likelihood"](opened("vq_vae"), SETTINGS).values


@pytest.mark.parametrize("group", ["likelihood", "latent", "probes", "reconstruction", "samples"])
def test_the_same_digits_whatever_the_batches(group):
    """Twice, and with other batches: to rounding, for matrix products round by their size."""

    def found(size):
        run = opened("mlp_vae")
        run.data.eval_batch_size = size
        return GROUPS[group](run, SETTINGS).values

    first, again, other = found(500), found(500), found(7)
    assert first == again
    assert other == pytest.approx(first, rel=1e-4, abs=1e-6)


def test_the_default_stream_is_left_alone():
    run = opened("mlp_vae")
    for group in ("likelihood", "latent", "probes", "samples"):
        before = torch.get_rng_state()
        GROUPS[group](run, SETTINGS)
        assert torch.equal(torch.get_rng_state(), before), group


def test_real_images_judge_themselves():
    """The reference is what training images get, far better than what a model gets that knows nothing."""
    found = GROUPS["samples"](opened("mlp_vae"), SETTINGS)
    assert found.values["fid"] > 5 * found.values["fid_reference"]
    assert found.values["coverage"] < found.values["coverage_reference"]
    assert "SHA-256" in found.note


def test_inception_judges_where_its_weights_are_given(monkeypatch, tmp_path):
    """In place of the network trained here; a file of anything else is a mistake, and no group to leave out."""
    pytest.importorskip("torch_fidelity")

    class Few(torch.nn.Linear):  # in place of two minutes of Inception
        def __init__(self, file):
            super().__init__(64, 3)

        def forward(self, x):
            return super().forward(x.flatten(1)).detach()

        def describe(self):
            return "three features"

    (tmp_path / "file").touch()
    settings = SETTINGS._replace(inception=str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"task\.inception=.*file: .* holds no weights of Inception-v3"):
        settings.check()
    monkeypatch.setattr("vaezoo.metrics.inception.Inception", Few)
    found = GROUPS["samples"](opened("mlp_vae"), settings)
    assert found.values["num_features"] == 3
    assert "judged by three features" in found.note


@pytest.mark.parametrize("name", sorted(LEFT_OUT["samplers"]))
def test_samplers_are_for_vectors(name):
    with pytest.raises(DoesNotApply, match="not vectors of R"):
        GROUPS["samplers"](opened(name), SETTINGS)


def test_what_needs_other_data():
    run = opened("mlp_vae")
    with pytest.raises(DoesNotApply, match="factors of Digits are not known"):
        GROUPS["disentanglement"](run, SETTINGS)
    with pytest.raises(DoesNotApply, match=r"as in task\.outliers=fashion_mnist"):
        GROUPS["anomaly"](run, SETTINGS)
    with pytest.raises(DoesNotApply, match=r"task\.num_samples=0"):
        GROUPS["likelihood"](run, SETTINGS._replace(num_samples=0))


def test_factors():
    """Where factors are known there are disentanglement scores, and no probes of labels."""
    torch.manual_seed(0)
    data = Sprites(size=32, test_size=2000, val_size=100)
    data.setup()
    model = make("mlp_vae", net="mlp", shape=data.shape)
    run = replace(opened("mlp_vae"), model=model.eval(), data=data)
    found = GROUPS["disentanglement"](run, SETTINGS)
    assert 0 <= found.values["mig"] < found.values["mig_ceiling"] <= 1
    with pytest.raises(DoesNotApply, match="factors"):
        GROUPS["probes"](run, SETTINGS)


@pytest.mark.parametrize("name", ["num_samples", "num_images", "annealed"])
def test_settings(name):
    with pytest.raises(ConfigError, match=rf"task\.{name} must be >= [02], got -1"):
        SETTINGS._replace(**{name: -1}).check()


ANNEALED = ("log_p_annealed", "annealed_gap", "annealed_gain")


def test_annealed(monkeypatch):
    """Of the images that were asked for; the bounds from both sides are close, with weights as they begin. In parts
    it is the same but for the images of the model's own.
    """
    small = partial(annealed_importance_sampling, num_chains=8, num_steps=100, num_leapfrog=5)
    monkeypatch.setattr("vaezoo.inference.ais.annealed_importance_sampling", small)
    run = opened("mlp_vae")
    found = GROUPS["annealed"](run, SETTINGS._replace(annealed=3))
    assert found.values.keys() == {f"{a}{b}" for a in ANNEALED for b in ("", "_error")}
    assert abs(found.values["annealed_gap"]) < 1
    assert 0 < found.values["annealed_gain"] < 5  # over 5 importance samples
    run.data.eval_batch_size = 2
    own: list = []
    drawn = lambda *args, **how: own.append(simulate(*args, **how)) or own[-1]  # noqa: E731
    monkeypatch.setattr("vaezoo.inference.ais.simulate", drawn)
    parts = GROUPS["annealed"](run, SETTINGS._replace(annealed=3))
    for name in ("log_p_annealed", "annealed_gain"):
        assert parts.values[name] == pytest.approx(found.values[name], abs=1e-3)
    (first, _), (second, _) = own
    assert (len(first), len(second)) == (2, 1)
    assert not torch.equal(first[:1], second)  # each part has images of its own
    assert found.values["log_p_annealed"] == pytest.approx(-45, abs=5)  # 64 fair coins have -44.4


def shortened(name, num):
    """A run whose test set has ``num`` images."""
    run = opened(name)
    run.data.test = run.data.test.select(torch.arange(num))
    return run


@pytest.mark.parametrize(("name", "fits"), [("ladder_vae", False), ("full_cov_vae", False), ("mlp_vae", True)])
def test_scores_that_apply_are_given(monkeypatch, name, fits):
    """Likelihood regret fits one diagonal normal; without one there are the four other scores, and a note."""
    monkeypatch.setattr("vaezoo.evaluation.anomaly.other_data", lambda run, outliers: run.data)
    found = GROUPS["anomaly"](opened(name), SETTINGS._replace(num_images=3, outliers="digits"))
    scores = {"elbo", "log_p", "reconstruction", "typicality"} | ({"likelihood_regret"} if fits else set())
    assert {f"{name}_{score}" for name in ("auroc", "aupr", "fpr95") for score in scores} == {
        key for key in found.values if not key.endswith("_error")
    }
    assert ("likelihood regret is left out: it fits one layer with a diagonal normal" in found.note) != fits


def test_an_exact_reconstruction_is_stated(monkeypatch):
    """Its PSNR is infinite: no mean is given, and the note counts them; the other numbers stay."""
    run = shortened("mlp_vae", 9)
    monkeypatch.setattr(type(run.model), "encode", lambda self, x, y: x)

    class Exact:
        def __init__(self, x):
            exact = (x == run.data.test.images[3].float()).flatten(1).all(1)
            self.mean = torch.where(exact.reshape(-1, 1, 1, 1), x, 0.5)

    monkeypatch.setattr(type(run.model), "decode", lambda self, z, y: Exact(z))
    found = GROUPS["reconstruction"](run, SETTINGS)
    assert "psnr is left out: 1 of 9 reconstructions equals its image exactly (infinite PSNR)" in found.note
    assert not any(key.startswith("psnr") for key in found.values)


def test_one_image_has_no_error():
    """In no group: neither a key, nor a word in the notes."""
    run = shortened("mlp_vae", 1)
    for group in ("likelihood", "latent", "reconstruction"):
        found = GROUPS[group](run, SETTINGS)
        assert [key for key in found.values if key.endswith("_error")] == ["log_p_draw_error"] * (group == "likelihood")
        assert all(math.isfinite(value) for value in found.values.values())
        assert "nan" not in found.note
        assert "±" not in found.note


def test_few_images_have_a_distance_and_no_neighbours():
    found = GROUPS["samples"](shortened("mlp_vae", 4), SETTINGS)
    assert {"fid", "kid", "fid_reference"} <= set(found.values)
    assert "recall" not in found.values
    assert "4 images are too few for precision, recall, density and coverage" in found.note


def test_few_codes_have_the_samplers_that_they_allow(monkeypatch):
    """Ten normals cannot be fitted to nine codes; a flow can."""
    monkeypatch.setattr("vaezoo.inference.ex_post_density.MAX_ROUNDS", 1)
    run = shortened("mlp_vae", 9)
    run.data.train = Split(run.data.train.images[:9], run.data.train.labels[:9])
    found = GROUPS["samplers"](run, SETTINGS)
    assert set(found.values) == {"fid_flow", "fid_two_stage"}
    assert "fid_gmm is left out: num_components must be from 1 to the number of codes, 9, got 10" in found.note
