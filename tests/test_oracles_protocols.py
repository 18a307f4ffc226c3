"""Which data go where in each group of metrics: the images a model and a judge are given are told by their pixels."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import config as cfg
from scipy import stats
from sklearn.metrics import roc_auc_score
from test_contract import make
from torch import nn

from vaezoo.data import ImageData, Split
from vaezoo.evaluation import likelihood
from vaezoo.evaluation.anomaly import other_data
from vaezoo.evaluation.base import EvaluationSettings
from vaezoo.evaluation.groups import GROUPS
from vaezoo.inference import ais as annealed
from vaezoo.inference import ex_post_density as samplers
from vaezoo.inference import importance_sampling
from vaezoo.inference.ex_post_density import Sampler
from vaezoo.inference.importance_sampling import LogMarginalEstimate
from vaezoo.metrics import anomaly, disentanglement, latent, probes
from vaezoo.metrics import samples as sample_metrics
from vaezoo.runs.trained import TrainedRun
from vaezoo.types import Batch

SHAPE = (1, 4, 3)
TRAIN, VAL, TEST = 26, 7, 11  # examples
SETTINGS = EvaluationSettings(num_samples=5, num_images=6)
SPACED = [0, 1, 3, 5, 7, 9]  # 6 of 11: i * 11 // 6
CODES = [0, 1, 3, 5, 6, 8, 10, 12, 13, 15, 17, 19, 20, 22, 24]  # 15 of 26
TRAINED = [0, 2, 4, 7, 9, 11, 14, 16, 18, 21, 23]  # 11 of 26


class Few(ImageData):
    """Few images that are all different, in batches of 4 where there are no more in a training pass."""

    eval_batch_size = 4

    def __init__(self, first=0, **kwargs):
        super().__init__(shape=SHAPE, **{"val_size": VAL, "batch_size": 8, "binarize": "none", **kwargs})
        self.first = first

    def read(self):
        g = torch.Generator().manual_seed(self.first)
        images = torch.randint(0, 256, (TRAIN + VAL + TEST, *SHAPE), generator=g, dtype=torch.uint8)
        labels = torch.randint(0, 3, (len(images),), generator=g)
        return Split(images[:-TEST], labels[:-TEST]), Split(images[-TEST:], labels[-TEST:])


def opened(name="mlp_vae", *more, data=None):
    """A model with its first weights, as a trained run, whose encoder has something to tell."""
    data = data or Few()
    data.setup()
    levels = ["model/likelihood=discretized_logistic"] if data.binarize == "none" else []
    model = make(name, *levels, *more, net="mlp", shape=SHAPE)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return TrainedRun({"data": {}, "allow_packages": [], "seed": 0}, model.eval(), data, SimpleNamespace(), Path("x"))


def rows(x, split):
    """The number of each image in the split."""
    same = (x[:, None] - split.x / 255).flatten(2).abs().amax(2) < 1e-6
    assert (same.sum(1) == 1).all()
    return same.int().argmax(1).tolist()


def watch(monkeypatch, owner, *names):
    """Record the calls of functions: for each name a list of (arguments, keywords, result)."""
    calls = {name: [] for name in names}

    def recorded(name, function):
        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            calls[name].append((args, kwargs, result))
            return result

        return call

    for name in names:
        monkeypatch.setattr(owner, name, recorded(name, getattr(owner, name)))
    return calls


def keeping(monkeypatch, module, name):
    """What a metric is given, together: its ``update`` still does what it did."""
    given = []
    update = getattr(module, name).update

    def record(self, *args, **kwargs):
        given.append(kwargs or dict(enumerate(args)))
        return update(self, *args, **kwargs)

    monkeypatch.setattr(getattr(module, name), "update", record)
    return given


def joined(given):
    return {name: torch.cat([one[name] for one in given]) for name in given[0]}


def test_splits_and_spaced_examples():
    """So many of each split, evenly spaced; labels stay with their images; order and batches are one process's."""
    run = opened()
    assert [len(run.split(name).x) for name in ("train", "val", "test")] == [TRAIN, VAL, TEST]
    for name, num, expected in (
        ("test", 6, SPACED),
        ("train", 15, CODES),
        ("val", 7, list(range(7))),
        ("val", 9, list(range(7))),
    ):
        whole = getattr(run.data, name)
        batches = list(run.batches(name, num))
        x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
        assert rows(x, whole) == expected
        assert torch.equal(y, whole.y[expected])
    assert [len(b.x) for b in run.batches("test")] == [4, 4, 3]
    assert [len(b.x) for b in run.batches("train")] == [TRAIN]
    codes, labels = run.codes("val")
    # Batches of other sizes round differently; an example out of place would be off by far more.
    torch.testing.assert_close(codes, run.model.encode(run.data.val.x / 255), rtol=1e-5, atol=1e-6)
    assert torch.equal(labels, run.data.val.y)


def test_training_validation_and_test_share_no_image():
    """Validation is so many of the training set, drawn by ``split_seed``; each image keeps its label."""
    found = []
    for seed in (0, 1):
        data = Few(split_seed=seed)
        data.setup()
        full, test = data.read()
        places = [rows(split.x / 255, full) for split in (data.train, data.val)]
        assert sorted(places[0] + places[1]) == list(range(TRAIN + VAL))
        for split, place in zip((data.train, data.val), places, strict=True):
            assert torch.equal(split.y, full.y[place])
        assert torch.equal(data.test.x, test.x)
        found.append(places[1])
        assert torch.equal(data.mean, (data.train.x.double() / 255).mean(0).float())
        assert data.num_train == TRAIN
    assert found[0] != found[1]


def test_likelihood(monkeypatch):
    """Spaced test images, each once, by as many draws as asked: and their means and errors from those very weights."""
    run = opened()
    monkeypatch.setattr(importance_sampling, "MAX_MC_ERROR", math.inf)  # 5 draws are too few for a small error
    asked = watch(monkeypatch, likelihood, "estimate_log_marginal")["estimate_log_marginal"]
    seen = watch(monkeypatch, run.model, "forward")["forward"]
    values = GROUPS["likelihood"](run, SETTINGS).values
    assert [kwargs["start_index"] for _, kwargs, _ in asked] == [0, 4]
    assert rows(torch.cat([args[0] for args, _, _ in seen]), run.data.test) == SPACED
    assert all(kwargs == {"num_samples": 5} for _, kwargs, _ in seen)
    log_w = torch.stack([trace.log_w[:, 0] for *_, trace in seen]).double().numpy()  # (6, 5)
    log_p = np.log(np.exp(log_w).mean(1))
    w = np.exp(log_w - log_w.max(1, keepdims=True))
    draws = stats.sem(w, axis=1) / w.mean(1)
    gap = log_p - log_w.mean(1)
    expected = {
        "log_p": log_p.mean(), "log_p_error": stats.sem(log_p), "log_p_samples": 5, "log_p_examples": 6,
        "log_p_draw_error": math.sqrt((draws**2).sum()) / 6,
        "inference_gap": gap.mean(), "inference_gap_error": stats.sem(gap),
    }  # fmt: skip
    assert values == pytest.approx(expected, rel=1e-6)


def test_annealed(monkeypatch):
    """Each image against importance sampling of the same one; images of the model's own from both sides, with their
    z and labels: the gap is the upper less the lower bound, the gain the annealed less the sampled one.
    """
    run = opened("cvae")

    def told(kind):
        """The number of calls so far, and of the example, tell the values apart."""

        def call(model, x, context=None, num_samples=None, **kwargs):
            calls.append((kind, x, context, num_samples, kwargs))
            base = {"anneal": -1.0, "estimate": -4.0}[kind] - (50 if "z" in kwargs else 0) + 0.1 * len(calls)
            log_px = base + torch.arange(len(x)).double() ** 2
            return LogMarginalEstimate(log_px, log_px, log_px, log_px)

        return call

    calls: list = []
    own = []
    simulate = annealed.simulate

    def simulated(model, num, context, seed):
        own.append((*simulate(model, num, context, seed=seed), context, seed))
        return own[-1][:2]

    monkeypatch.setattr(annealed, "annealed_importance_sampling", told("anneal"))
    monkeypatch.setattr("vaezoo.evaluation.ais.estimate_log_marginal", told("estimate"))
    monkeypatch.setattr(annealed, "simulate", simulated)
    values = GROUPS["annealed"](run, SETTINGS._replace(annealed=6)).values
    labels = run.data.test.y[SPACED]
    for part, (first, num) in enumerate([(0, 4), (4, 2)]):
        (sampled, of_data, of_own, above) = calls[4 * part : 4 * part + 4]
        assert [call[0] for call in (sampled, of_data, of_own, above)] == ["estimate", "anneal", "anneal", "anneal"]
        assert rows(sampled[1], run.data.test) == rows(of_data[1], run.data.test) == SPACED[first : first + num]
        x, z, context, _ = own[part]
        assert torch.equal(of_own[1], x)
        assert torch.equal(above[1], x)
        assert torch.equal(above[4]["z"], z)
        assert "z" not in of_own[4]
        assert sampled[3] == 5
        for call in (sampled, of_data, of_own, above):
            told_labels = call[4]["context"] if "context" in call[4] else call[2]
            assert torch.equal(told_labels, labels[first : first + num])
            assert call[4]["start_index"] == first
        assert all(call[4]["start"] == "posterior" for call in (of_data, of_own, above))
        assert torch.equal(context, labels[first : first + num])
    assert own[0][3] != own[1][3]  # other draws for other parts

    def means(i):
        """Of call i of both parts: 4 and 2 examples."""
        parts = [calls[i], calls[4 + i]]
        base = {"anneal": -1.0, "estimate": -4.0}
        return np.concatenate([
            base[call[0]] - (50 if "z" in call[4] else 0) + 0.1 * (4 * p + i + 1) + np.arange(len(call[1])) ** 2
            for p, call in enumerate(parts)
        ])  # fmt: skip

    sampled, found, below, above = map(means, range(4))
    for name, numbers in {
        "log_p_annealed": found, "annealed_gap": above - below, "annealed_gain": found - sampled,
    }.items():  # fmt: skip
        assert values[name] == pytest.approx(numbers.mean())
        assert values[f"{name}_error"] == pytest.approx(stats.sem(numbers), abs=1e-12)


def test_latent(monkeypatch):
    """All test images; one draw, not the mean, of each posterior; log p(z) and KLs of those very posteriors."""
    run = opened()
    given = keeping(monkeypatch, latent, "LatentMetrics")
    seen = watch(monkeypatch, run.model, "forward")["forward"]
    GROUPS["latent"](run, SETTINGS)
    assert rows(torch.cat([args[0] for args, _, _ in seen]), run.data.test) == list(range(TEST))
    assert all(kwargs == {"num_samples": 1} for _, kwargs, _ in seen)
    q = run.model.encoder(run.data.test.x / 255).base_dist
    found = joined(given)
    torch.testing.assert_close(found["loc"], q.loc)
    torch.testing.assert_close(found["scale"], q.scale)
    noise = ((found["z"] - q.loc) / q.scale).detach()
    assert noise.abs().min() > 0
    assert 0.5 < noise.std() < 1.5
    np.testing.assert_allclose(found["log_prior"], stats.norm.logpdf(found["z"].numpy()).sum(1), rtol=1e-5)
    kl = 0.5 * (q.loc**2 + q.scale**2 - 1) - q.scale.log()
    torch.testing.assert_close(found["kl_dim"], kl.detach(), rtol=1e-4, atol=1e-6)


def test_probes(monkeypatch):
    """Fitted to codes of spaced training images, judged on all of the test set."""
    monkeypatch.setattr("vaezoo.evaluation.probes.CODES", 15)
    run = opened()
    given = keeping(monkeypatch, probes, "Probes")
    GROUPS["probes"](run, SETTINGS)
    found = joined(given)
    fitted, judged = found["split"] == 0, found["split"] == 1
    assert (int(fitted.sum()), int(judged.sum())) == (15, TEST)
    images = {"train": run.data.train.x[CODES] / 255, "test": run.data.test.x / 255}
    torch.testing.assert_close(found["code"][fitted], run.model.encode(images["train"]))
    torch.testing.assert_close(found["code"][judged], run.model.encode(images["test"]))
    assert torch.equal(found["y"], torch.cat([run.data.train.y[CODES], run.data.test.y]))


def test_reconstruction(monkeypatch):
    """Each test image beside the mean of p(x | z) at its own code."""
    run = opened("cvae")
    given = keeping(monkeypatch, sample_metrics, "ReconstructionMetrics")
    GROUPS["reconstruction"](run, SETTINGS)
    found, data = joined(given), run.data.test
    assert rows(found[0], data) == list(range(TEST))
    x = data.x / 255
    expected = run.model.decode(run.model.encode(x, data.y), data.y).mean
    torch.testing.assert_close(found[1], expected, rtol=1e-5, atol=1e-6)


class Flat(nn.Module):
    """Features that are three pixels, and what was judged by them."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 0.5]), requires_grad=False)
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        return x.flatten(1)[:, [0, 5, 7]] * self.scale

    def describe(self):
        return "three pixels"


@pytest.fixture
def flat(monkeypatch):
    net = Flat()
    monkeypatch.setattr("vaezoo.evaluation.samples.feature_network", lambda run, inception: net)
    return net


@pytest.mark.parametrize("name", ["mlp_vae", "cvae"])
def test_samples(monkeypatch, flat, name):
    """As many means as test images, classes in turn, against the test set; the reference is as many training images."""
    run = opened(name)
    made = watch(monkeypatch, run.model, "sample")["sample"]
    values = GROUPS["samples"](run, SETTINGS).values
    seen = torch.cat(flat.seen)
    test, generated, trained = seen[:TEST], seen[TEST:-TEST], seen[-TEST:]
    assert rows(test, run.data.test) == list(range(TEST))
    assert rows(trained, run.data.train) == TRAINED
    torch.testing.assert_close(generated, torch.cat([px.mean for *_, px in made]))
    assert sum(args[0] for args, _, _ in made) == TEST
    assert torch.cat([args[1] for args, _, _ in made]).tolist() == ([0, 1, 2] * 4)[:TEST]
    features = [flat(part) for part in (test, generated, trained)]
    for fake, suffixes in ((features[1], [""]), (features[2], ["_ceiling", "_reference"])):
        metric = sample_metrics.SampleMetrics()
        metric.update(real=features[0], fake=fake)
        expected = metric.compute()
        for key in ("fid", "kid", "precision", "recall", "density", "coverage"):
            assert expected[key] in [values.get(f"{key}{suffix}") for suffix in suffixes], key


def test_binary_data_are_compared_with_binary_samples(monkeypatch, flat):
    """Where bits are modelled, generated images are drawn from p(x | z)."""
    run = opened(data=Few(binarize="static"))
    made = watch(monkeypatch, run.model, "sample")["sample"]
    GROUPS["samples"](run, SETTINGS)
    generated = torch.cat(flat.seen)[TEST:-TEST]
    assert set(generated.unique().tolist()) == {0.0, 1.0}
    mean = torch.cat([px.mean for *_, px in made])
    assert 0.5 < float(generated.mean() / mean.mean()) < 1.5


def test_samplers(monkeypatch, flat):
    """Densities are fitted to draws of q(z | x) of spaced training images; as many images as the test set has."""
    monkeypatch.setattr("vaezoo.evaluation.ex_post_density.CODES", 15)
    run = opened()
    seen = watch(monkeypatch, run.model, "forward", "decode")
    fitted = {}

    def fit(name, shift):
        def call(codes, seed=0):
            fitted[name] = codes, seed
            return Sampler(lambda num: shift + torch.randn(num, 3))

        return call

    for shift, name in enumerate(("gmm", "flow", "two_stage")):
        monkeypatch.setattr(samplers, f"{name}_sampler", fit(name, float(shift)))
    object.__setattr__(run.model, "seed", 17)
    values = GROUPS["samplers"](run, SETTINGS).values
    passed = seen["forward"]
    assert rows(torch.cat([args[0] for args, _, _ in passed]), run.data.train) == CODES
    draws = torch.cat([trace.latent.z[0] for *_, trace in passed])
    assert all(kwargs == {"num_samples": 1} for _, kwargs, _ in passed)
    assert not torch.allclose(draws, torch.cat([trace.latent.q.mean for *_, trace in passed]), atol=1e-3)
    real = flat(run.data.test.x / 255)
    assert values.keys() == {"fid_gmm", "fid_flow", "fid_two_stage"}
    for (name, (codes, seed)), (args, _, px) in zip(fitted.items(), seen["decode"], strict=True):
        assert torch.equal(codes, draws)
        assert seed == 17
        shift = float(("gmm", "flow", "two_stage").index(name))
        z = Sampler(lambda num, shift=shift: shift + torch.randn(num, 3)).sample(TEST, seed=17)
        assert torch.equal(args[0], z)
        assert values[f"fid_{name}"] == sample_metrics.fid(real, flat(px.mean))


def test_disentanglement(monkeypatch):
    """Codes and factors of the whole test set."""
    monkeypatch.setattr("vaezoo.evaluation.disentanglement.FactorData", Few)
    run = opened()
    given = keeping(monkeypatch, disentanglement, "Disentanglement")
    with pytest.raises(ValueError, match=r"factors must be \(N, F\)"):  # these labels are none
        GROUPS["disentanglement"](run, SETTINGS)
    torch.testing.assert_close(given[0]["code"], run.model.encode(run.data.test.x / 255))
    assert torch.equal(given[0]["factors"], run.data.test.y)


def test_anomaly(monkeypatch):
    """The entropy is that of training images; the test set is the inliers, the other data's test set the outliers."""
    run, other = opened(), Few(first=1)
    other.setup()
    monkeypatch.setattr("vaezoo.evaluation.anomaly.other_data", lambda run, name: other)
    asked = []
    levels = {"elbo": 1.0, "log_p": 2.0, "reconstruction": 3.0, "typicality": 4.0, "likelihood_regret": 5.0}
    generator = torch.Generator().manual_seed(3)

    def scores(model, batches, names, entropy=None):
        x = torch.cat([b.x for b in batches])
        found = {name: levels[name] + torch.randn(len(x), generator=generator).double() for name in names}
        asked.append((x, list(names), entropy, found))
        return found

    monkeypatch.setattr(anomaly, "scores", scores)
    values = GROUPS["anomaly"](run, SETTINGS._replace(outliers="other")).values
    (training, names, none, train_scores), ours, theirs = asked
    assert rows(training, run.data.train) == [0, 4, 8, 13, 17, 21]  # 6 of 26
    assert (names, none) == (["log_p"], None)
    assert rows(ours[0], run.data.test) == rows(theirs[0], other.test) == SPACED
    assert ours[1] == theirs[1] == list(anomaly.SCORES)
    assert ours[2] == theirs[2] == float(train_scores["log_p"].mean())
    for name in levels:
        truth = roc_auc_score([0] * 6 + [1] * 6, [*ours[3][name], *theirs[3][name]])
        assert values[f"auroc_{name}"] == pytest.approx(truth)
        assert {f"{key}_{name}" for key in ("auroc", "aupr", "fpr95")} <= values.keys()
        assert f"auroc_{name}_error" in values


@pytest.mark.parametrize(("binarize", "likelihood"), [("threshold", "bernoulli"), ("none", "discretized_logistic")])
def test_outliers_are_binarized_like_the_runs_own_images(monkeypatch, binarize, likelihood):
    """Binarized alike, with the run's seed; the data of another choice of conf/data."""
    monkeypatch.setattr("vaezoo.evaluation.anomaly.compose_data_config", lambda name: cfg("data", f"data={name}"))
    model = make("mlp_vae", f"model/likelihood={likelihood}", net="mlp", shape=(1, 8, 8))
    kind = "byte" if binarize == "none" else "binary"
    own = SimpleNamespace(data_kind=kind, describe=dict, encoding=lambda description: {})
    config = {"data": {"binarize": binarize, "root": "elsewhere"}, "allow_packages": [], "seed": 3}
    found = other_data(TrainedRun(config, model, own, SimpleNamespace(), Path("x")), "digits")
    assert (type(found).__name__, found.binarize, found.seed, found.data_kind) == ("Digits", binarize, 3, own.data_kind)
    assert len(found.test.x) == 360


def test_scores_number_their_examples():
    """An image's draws are named by its place among all batches: the ELBO and log p(x) of each, from its own draws."""
    run = opened()
    x, y = run.data.test.x / 255, run.data.test.y
    parts = [Batch(x[i : i + 4], y[i : i + 4]) for i in range(0, TEST, 4)]
    names = ["elbo", "log_p", "reconstruction", "typicality"]
    found = anomaly.scores(run.model, parts, names, entropy=7.0, num_samples=5)
    whole = anomaly.scores(run.model, [Batch(x, y)], names, entropy=7.0, num_samples=5)
    for name in names:
        torch.testing.assert_close(found[name], whole[name], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["typicality"], (found["log_p"] - 7.0).abs())
    assert (found["elbo"] >= found["log_p"]).all()
    code = -run.model.decode(run.model.encode(x)).log_prob(x)
    torch.testing.assert_close(found["reconstruction"].float(), code.detach(), rtol=1e-5, atol=1e-4)
