"""What is fitted on one part and judged on another: a code that is noise in the judged part scores chance, whatever the
fitted part holds, and the two parts share no example.
"""

import math

import numpy as np
import pytest
import torch
from ppca import PPCA, data_with_spectrum, rotation

from vaezoo.data import Digits, Split
from vaezoo.evaluation.features import train_features
from vaezoo.inference import ex_post_density as samplers
from vaezoo.metrics import anomaly
from vaezoo.metrics.disentanglement import (
    Disentanglement,
    beta_vae,
    explicitness,
    factor_vae,
    forest_importance,
    protocol,
    sap,
)
from vaezoo.metrics.probes import Probes

FLOAT = torch.float64


def noise(num, dims, seed=0):
    return np.random.default_rng(seed).standard_normal((num, dims))


def factors(num, sizes=(3, 5), seed=1):
    generator = np.random.default_rng(seed)
    return np.stack([generator.integers(size, size=num) for size in sizes], 1)


def perfect(v):
    return v + 0.01 * noise(*v.shape, seed=9)


CHANCE = {"forests": (1 / 3 + 1 / 5) / 2, "sap": 0.0, "explicitness": 0.5}


def judged(name, *parts):
    """The score on the held-out part."""
    if name == "forests":
        return forest_importance(*parts, num_trees=5)[1]
    return {"sap": sap, "explicitness": explicitness}[name](*parts)


@pytest.mark.parametrize("name", CHANCE)
def test_classifiers_are_scored_on_held_out_examples(name):
    """Codes that are the factors in the fitted part and noise in the scored part: chance; otherwise far above it."""
    v, w = factors(900), factors(900, seed=2)
    assert judged(name, perfect(v), v, perfect(w), w) > CHANCE[name] + 0.15
    for codes in (perfect(v), noise(900, 2, 4)):
        assert judged(name, codes, v, noise(900, 2, 3), w) == pytest.approx(CHANCE[name], abs=0.07)


def test_importance_comes_from_the_fitted_part():
    v, w = factors(600), factors(600, seed=2)
    importance, _ = forest_importance(perfect(v), v, noise(600, 2), w, num_trees=5)
    np.testing.assert_allclose(importance, np.eye(2), atol=0.05)


def test_two_thirds_are_fitted_and_the_rest_is_scored(monkeypatch):
    """The same two parts for all three classifiers: together all examples, each once, each with its factors."""
    given = {}

    def record(name, result):
        def call(codes, v, test_codes, test_v, **kwargs):
            given[name] = codes, v, test_codes, test_v
            return result

        monkeypatch.setattr(protocol, name, call)

    record("forest_importance", (np.eye(2), 0.25))
    record("sap", 0.5)
    record("explicitness", 0.75)
    v = factors(100)
    codes = np.stack([np.arange(100.0), v[:, 0]], 1)
    found = Disentanglement().scores_on_held_out(codes, v)
    assert (found["dci_informativeness"], found["sap"], found["explicitness"]) == (0.25, 0.5, 0.75)
    for train, train_v, test, test_v in given.values():
        assert (len(train), len(test)) == (66, 34)
        assert sorted([*train[:, 0], *test[:, 0]]) == list(range(100))
        assert np.array_equal(train_v, v[train[:, 0].astype(int)])
        assert np.array_equal(test_v, v[test[:, 0].astype(int)])


def test_noise_codes_have_chance_scores():
    """With few examples, where scores on the fitted part would be 0.9 and more."""
    v = factors(240, (3, 4, 5))
    metric = Disentanglement(num_votes=100, num_resamples=2, num_trees=10)
    metric.update(code=torch.from_numpy(noise(240, 6)), factors=torch.from_numpy(v))
    found = metric.compute()
    assert found["dci_informativeness"] == pytest.approx((1 / 3 + 1 / 4 + 1 / 5) / 3, abs=0.1)
    assert found["explicitness"] == pytest.approx(0.5, abs=0.1)
    assert found["sap"] < 0.1


@pytest.mark.parametrize("score", [beta_vae, factor_vae])
def test_votes_are_scored_on_other_votes(score):
    """6 points of each of 3 factors in 40 dimensions of noise are told apart without fail; fresh ones are not."""
    v, codes = factors(500, (3, 4, 5)), noise(500, 40)
    found = [score(codes, v, np.random.default_rng(seed), batch_size=3, num_votes=6) for seed in range(30)]
    error = math.sqrt(2 / 9 / (30 * 9))  # 9 judged votes each
    assert np.mean(found) == pytest.approx(1 / 3, abs=4 * error)


def probed(code, y, split):
    metric = Probes()
    metric.update(code=torch.as_tensor(code), y=torch.as_tensor(y), split=torch.as_tensor(split))
    return metric.compute()


def test_probes_are_scored_on_the_score_split():
    """Codes that are labels in one split and noise in the other. Clusters are of the score split, and judged there."""
    y, split = factors(600, (3,))[:, 0], np.repeat([0, 1], 300)
    code = np.eye(3)[y] + 0.01 * noise(600, 3)
    fit, score = np.where(split[:, None] == 0, code, noise(600, 3)), np.where(split[:, None] == 1, code, noise(600, 3))
    found = probed(fit, y, split)
    assert found["linear_probe"] == pytest.approx(1 / 3, abs=0.1)
    assert found["knn"] == pytest.approx(1 / 3, abs=0.1)
    assert max(found["nmi"], found["ari"]) < 0.05
    found = probed(score, y, split)
    assert found["linear_probe"] < 0.75  # noise was fitted
    assert found["nmi"] == pytest.approx(1)
    assert found["ari"] == pytest.approx(1)


def test_chance_is_the_most_frequent_class_of_the_fit_split():
    y = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 1])
    found = probed(noise(12, 2), y, np.repeat([0, 1], [5, 7]))
    assert found["chance"] == pytest.approx(2 / 7)  # class 0, of which the score split has 2 in 7


def test_accuracy_of_the_feature_network_is_of_held_out_images():
    """Labels of the held-out images that mean nothing are told by chance, those of the training images well."""
    train, test = Digits().read()
    labels = torch.randint(10, (len(test.y),), generator=torch.Generator().manual_seed(0))
    net = train_features(train, Split(test.x, labels), num_images=6000)
    learned = (net.logits(train.x / 255)[0].argmax(1) == train.y).double().mean()
    assert learned > 0.8
    assert float(net.accuracy) == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / len(labels)))


class Weight(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))


def followed(values, num=40):
    """A fit whose held-out losses are ``values``, then the last of them again and again: its module and its calls."""
    module, calls = Weight(), []

    def loss(z):
        calls.append((module.training, z[:, 0].long().tolist(), float(module.weight.detach()), float(torch.rand(()))))
        if module.training:
            return module.weight + 0 * z.sum()
        return torch.tensor(values[min(sum(not call[0] for call in calls), len(values)) - 1])

    codes = torch.arange(float(num))[:, None]
    torch.manual_seed(0)
    least = samplers.fit_density(module, loss, codes, "test")
    return module, calls, least


def test_early_stopping_uses_held_out_codes():
    """A tenth plus one is held out, always the same codes with the same noise; training sees only the others."""
    _, calls, _ = followed([1.0])
    held_out = {tuple(rows) for training, rows, *_ in calls if not training}
    assert len(held_out) == 1
    (held_out,) = held_out
    known = {row for training, rows, *_ in calls if training for row in rows}
    assert len(set(held_out)) == len(held_out) == 40 // 10 + 1
    assert known == set(range(40)) - set(held_out)
    assert all(len(rows) == 256 for training, rows, *_ in calls if training)
    assert len({draw for training, *_, draw in calls if not training}) == 1
    assert len({draw for training, *_, draw in calls if training}) > 400


@pytest.mark.parametrize(
    ("values", "best", "rounds"),
    [
        ([1.0], 0, 11),  # never better than at the start
        ([3.0, 2.0, 1.0, 1.5], 2, 13),
        ([3.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 0.5, 0.7], 10, 14),  # the 9th is soon enough
        ([1.0 - i / 100 for i in range(100)], 13, 14),
    ],
)
def test_weights_are_those_of_the_lowest_held_out_loss(monkeypatch, values, best, rounds):
    """One evaluation before every 50 batches; training ends after 10 that are not the lowest, or after MAX_ROUNDS."""
    assert samplers.MAX_ROUNDS == 60  # as the docstring says
    monkeypatch.setattr(samplers, "MAX_ROUNDS", 14)
    module, calls, least = followed(values)
    weights = [weight for training, _, weight, _ in calls if not training]
    assert len(weights) == rounds
    assert float(module.weight) == weights[best]
    assert least == pytest.approx(values[best])
    steps = [i for i, call in enumerate(calls) if not call[0]]
    assert set(np.diff(steps)) == {51}


@pytest.mark.parametrize("losses", [(1.0, 2.0), (2.0, 1.0)])
def test_two_stage_sampler_takes_the_better_initial_sigma(monkeypatch, losses):
    """By the held-out loss: the samples come from the model that started at that sigma."""
    seen = []

    def fit_density(module, loss, codes, name):
        seen.append((module, float(loss(codes[:5]))))
        return losses[len(seen) - 1]

    monkeypatch.setattr(samplers, "fit_density", fit_density)
    codes = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    sampler = samplers.two_stage_sampler(codes, hidden=(4,))
    scales = [float(module.likelihood.scale.detach()) for module, _ in seen]
    assert scales == pytest.approx([0.2, 1.0], rel=1e-4)
    spread = sampler.sample(4000).T.cov().diagonal().sum() / codes.T.cov().diagonal().sum()
    assert (float(spread) > 0.6) == (losses[1] < losses[0])  # at the start the mean hardly moves: sigma is all


def test_regret_uses_samples_that_were_not_optimized(monkeypatch):
    """Both ELBOs use the same samples; each optimization step has new ones, none of which are among these."""
    spectrum = torch.tensor([4.2, 1.9, 1.0, 0.6], dtype=FLOAT)
    x, mean, axes = data_with_spectrum(spectrum, num=12)
    model = PPCA.fit(spectrum, mean, axes, 2, rotation(2, 11)).vae((1, 2, 2))
    decode, seen = model.decode, []
    monkeypatch.setattr(model, "decode", lambda z, context: seen.append(z.detach().clone()) or decode(z, context))
    x = x[:3].unflatten(1, (1, 2, 2))
    found = anomaly.scores(model, [(x, None)], ["likelihood_regret"], num_samples=6, num_steps=5, learning_rate=1e-9)
    before, *steps, after = seen
    q = model.encoder(x).base_dist
    eps = [((z - q.loc) / q.scale).detach() for z in (before, *steps, after)]
    torch.testing.assert_close(eps[0], eps[-1], rtol=0, atol=1e-6)
    assert [len(e) for e in eps] == [6, 4, 4, 4, 4, 4, 6]
    draws = torch.cat(eps[:-1]).flatten()
    assert len(draws.mul(1e4).round().unique()) > 0.99 * len(draws)
    assert found["likelihood_regret"].abs().max() < 1e-6


def test_regret_is_the_gain_of_the_elbo():
    """One Adam step of known size changes each parameter by the learning rate: the gain by hand, from other samples."""
    spectrum = torch.tensor([4.2, 1.9, 1.0, 0.6], dtype=FLOAT)
    x, mean, axes = data_with_spectrum(spectrum, num=12)
    ppca = PPCA.fit(spectrum, mean, axes, 2, torch.eye(2, dtype=FLOAT))
    model = ppca.vae((1, 2, 2))
    with torch.no_grad():  # far from the best: the sign of every slope is certain
        model.encoder.net.layers[-1].bias.add_(torch.tensor([1.5, -1.5, 1.0, 1.0]))
    x = x[:3].unflatten(1, (1, 2, 2))
    rate = 0.01
    found = anomaly.scores(model, [(x, None)], ["likelihood_regret"], num_samples=4000, num_steps=1, learning_rate=rate)
    q = model.encoder(x).base_dist
    best = ppca.posterior(x)
    exact = best.covariance_matrix.diagonal(dim1=-2, dim2=-1)

    def gap(loc, scale):  # of the ELBO, up to a constant of q: KL(q, p(z | x)) with its diagonal covariance
        ratio = scale.square() / exact
        return 0.5 * (ratio + (loc - best.mean).square() / exact - ratio.log()).sum(-1)

    moved = q.loc - rate * (q.loc - best.mean).sign(), q.scale * math.exp(-rate)
    torch.testing.assert_close(
        found["likelihood_regret"], (gap(q.loc, q.scale) - gap(*moved)).detach(), rtol=0.1, atol=0
    )
