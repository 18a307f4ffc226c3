"""The groups of metrics over all models: which apply, and that results can be reproduced."""

import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from conftest import RandomImages
from test_contract import MODELS, make

from vaezoo.data import Digits, Split, Sprites
from vaezoo.errors import ConfigError, DoesNotApply
from vaezoo.evaluation.base import EvaluationSettings
from vaezoo.evaluation.features import features_for
from vaezoo.evaluation.groups import GROUPS
from vaezoo.evaluation.samples import SampleEvaluator
from vaezoo.inference.ais import annealed_importance_sampling, simulate
from vaezoo.inference.importance_sampling import estimate_log_marginal
from vaezoo.runs.trained import TrainedRun

SETTINGS = EvaluationSettings(num_samples=5, num_images=20, annealed=0, outliers=None, compiled=False)
# What does not apply to whom, and why.
LEFT_OUT = {
    "latent": {"ladder_vae", "m2_vae", "vq_vae", "planar_vae", "iaf_vae", "cvae"},
    "probes": {"cvae"},  # its code was made with the label
    "samplers": {"ladder_vae", "m2_vae", "vq_vae", "s_vae", "cvae"},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder for feature networks, shared by the tests of this file."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def cached(monkeypatch, cache):
    """Keep feature networks for the next test, and train them for a shorter time."""
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setattr("vaezoo.evaluation.features.features_for", partial(features_for, num_images=30_000))


def opened(name):
    """An untrained model as a run."""
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
    """Each group gives finite numbers with their quantities, or a reason."""
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


def test_the_protocol_of_log_p_is_reported():
    """Bounds of different K or other images cannot be compared, so a table must show both."""
    values = GROUPS["likelihood"](opened("mlp_vae"), SETTINGS).values
    assert (values["log_p_samples"], values["log_p_examples"]) == (5, 20)


def test_the_inference_gap():
    """It uses the draws of log p(x). A deterministic code has no gap, because all draws are equal."""
    run = opened("mlp_vae")
    (x, y) = next(run.batches("test", 20))
    truth = estimate_log_marginal(run.model, x, y, num_samples=5)
    values = GROUPS["likelihood"](run, SETTINGS).values
    gap = truth.log_p - truth.elbo
    assert values["inference_gap"] == pytest.approx(float(gap.mean()), rel=1e-6)
    assert values["inference_gap_error"] == pytest.approx(float(gap.std()) / 20**0.5, rel=1e-6)
    assert "inference_gap" not in GROUPS["likelihood"](opened("vq_vae"), SETTINGS).values


@pytest.mark.parametrize("group", ["likelihood", "latent", "probes", "reconstruction", "samples"])
def test_results_do_not_depend_on_the_batch_size(group):
    """Equal if repeated; with other batches equal up to rounding, which depends on the size of matrix products."""

    def found(size):
        run = opened("mlp_vae")
        run.data.eval_batch_size = size
        return GROUPS[group](run, SETTINGS).values

    first, again, other = found(500), found(500), found(7)
    assert first == again
    assert other == pytest.approx(first, rel=1e-4, abs=1e-6)


def test_the_global_random_state_is_not_changed():
    run = opened("mlp_vae")
    for group in ("likelihood", "latent", "probes", "samples"):
        before = torch.get_rng_state()
        GROUPS[group](run, SETTINGS)
        assert torch.equal(torch.get_rng_state(), before), group


def test_training_images_score_better_than_an_untrained_model():
    """The reference of training images is far better than the score of an untrained model."""
    found = GROUPS["samples"](opened("mlp_vae"), SETTINGS)
    assert found.values["fid"] > 5 * found.values["fid_reference"]
    assert found.values["coverage"] < found.values["coverage_reference"]
    assert "SHA-256" in found.note


def test_inception_is_used_if_its_weights_are_given(monkeypatch, tmp_path):
    """It replaces the trained network. A wrong file is an error of the user, not a group to leave out."""
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
    with pytest.raises(ConfigError, match=r"task\.inception=.*file: .* does not hold the weights of Inception-v3"):
        settings.check()
    monkeypatch.setattr("vaezoo.metrics.inception.Inception", Few)
    found = GROUPS["samples"](opened("mlp_vae"), settings)
    assert found.values["num_features"] == 3
    assert "judged by three features" in found.note


@pytest.mark.parametrize("name", sorted(LEFT_OUT["samplers"]))
def test_samplers_need_vectors_as_codes(name):
    with pytest.raises(DoesNotApply, match="not vectors of R"):
        GROUPS["samplers"](opened(name), SETTINGS)


def test_groups_that_need_other_data_or_options():
    run = opened("mlp_vae")
    with pytest.raises(DoesNotApply, match="factors of Digits are not known"):
        GROUPS["disentanglement"](run, SETTINGS)
    wanted = r"task\.outliers=NAME: a config of conf/data with images of shape 1x8x8 and binary values$"
    with pytest.raises(DoesNotApply, match=wanted):
        GROUPS["anomaly"](run, SETTINGS)
    with pytest.raises(DoesNotApply, match=r"task\.num_samples=0"):
        GROUPS["likelihood"](run, SETTINGS._replace(num_samples=0))


def test_factors():
    """Data with known factors have disentanglement scores, but no probes."""
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
    """An untrained model as a run whose test set has ``num`` images."""
    run = opened(name)
    run.data.test = run.data.test.select(torch.arange(num))
    return run


@pytest.mark.parametrize(("name", "fits"), [("ladder_vae", False), ("full_cov_vae", False), ("mlp_vae", True)])
def test_anomaly_scores_that_apply_are_computed(monkeypatch, name, fits):
    """Likelihood regret needs a diagonal normal posterior; without one there are four scores and a note."""
    monkeypatch.setattr("vaezoo.evaluation.anomaly.other_data", lambda run, outliers: run.data)
    found = GROUPS["anomaly"](opened(name), SETTINGS._replace(num_images=3, outliers="digits"))
    scores = {"elbo", "log_p", "reconstruction", "typicality"} | ({"likelihood_regret"} if fits else set())
    assert {f"{name}_{score}" for name in ("auroc", "aupr", "fpr95") for score in scores} == {
        key for key in found.values if not key.endswith("_error")
    }
    assert ("likelihood regret is left out: it fits one layer with a diagonal normal" in found.note) != fits


def test_exact_reconstructions_are_counted(monkeypatch):
    """Its PSNR is infinite, so the mean PSNR is left out and the note counts such images; the other numbers stay."""
    run = shortened("mlp_vae", 9)
    monkeypatch.setattr(type(run.model), "encode", lambda self, x, y: x)

    class Exact:
        def __init__(self, x):
            exact = (x == run.data.test.x[3].float()).flatten(1).all(1)
            self.mean = torch.where(exact.reshape(-1, 1, 1, 1), x, 0.5)

    monkeypatch.setattr(type(run.model), "decode", lambda self, z, y: Exact(z))
    found = GROUPS["reconstruction"](run, SETTINGS)
    assert "psnr is left out: 1 of 9 reconstructions equals its image exactly (infinite PSNR)" in found.note
    assert not any(key.startswith("psnr") for key in found.values)


def test_one_image_has_no_standard_error(monkeypatch):
    """Neither a key nor a note has one, in any group."""
    monkeypatch.setattr("vaezoo.inference.importance_sampling.MAX_MC_ERROR", math.inf)  # 5 draws are few
    run = shortened("mlp_vae", 1)
    for group in ("likelihood", "latent", "reconstruction"):
        found = GROUPS[group](run, SETTINGS)
        assert [key for key in found.values if key.endswith("_error")] == ["log_p_draw_error"] * (group == "likelihood")
        assert all(math.isfinite(value) for value in found.values.values())
        assert "nan" not in found.note
        assert "±" not in found.note


@pytest.mark.parametrize(("num", "few"), [(1, "has 1 image,"), (19, "has 19 images,"), (20, "")])
def test_a_few_images_are_no_posterior_collapse(num, few):
    """I(x; z) of one image is 0 for any model."""
    found = GROUPS["latent"](shortened("mlp_vae", num), SETTINGS)
    assert (found.verdict is None) == bool(few)
    assert "mutual_information" in found.values
    assert found.note.startswith("no verdict on posterior collapse" if few else ("posterior collapse", "no collapse"))
    assert few in found.note


def test_few_images_have_a_fid_but_no_precision_and_recall():
    found = GROUPS["samples"](shortened("mlp_vae", 4), SETTINGS)
    assert {"fid", "kid", "fid_reference"} <= set(found.values)
    assert "recall" not in found.values
    assert "4 images are too few for precision, recall, density and coverage" in found.note


def test_a_sampler_that_needs_more_codes_is_left_out(monkeypatch):
    """Ten normals cannot be fitted to nine codes; a flow can."""
    monkeypatch.setattr("vaezoo.inference.ex_post_density.MAX_ROUNDS", 1)
    run = shortened("mlp_vae", 9)
    run.data.train = Split(run.data.train.x[:9], run.data.train.y[:9])
    found = GROUPS["samplers"](run, SETTINGS)
    assert set(found.values) == {"fid_flow", "fid_two_stage"}
    assert "fid_gmm is left out: num_components must be from 1 to 9, the number of codes, got 10" in found.note


def test_features_need_pictures_with_labels():
    """Without labels, or of vectors, the groups of samples are left out with the reason."""
    data = RandomImages((1, 8, 8))
    data.setup()
    data.train = Split(data.train.x, torch.full_like(data.train.y, -1))
    with pytest.raises(DoesNotApply, match="is trained on labels, and the images have none"):
        SampleEvaluator(SimpleNamespace(data=data), None)
    data.known_shape = (64,)
    with pytest.raises(DoesNotApply, match="the features are those of pictures"):
        SampleEvaluator(SimpleNamespace(data=data), None)
