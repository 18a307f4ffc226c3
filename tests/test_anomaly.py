"""Out-of-distribution scores and how they are judged: pair counting, scikit-learn, the linear-Gaussian model."""

import math
import re
from functools import partial

import pytest
import torch
from ppca import PPCA, data_with_spectrum, generator, rotation
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from test_contract import bits, labels, make
from torch.distributions import MultivariateNormal, kl_divergence
from torch.testing import assert_close

from vaezoo.data import MNIST, BundledTable, Digits, FashionMNIST
from vaezoo.evaluation.anomaly import suggest_outliers
from vaezoo.inference.importance_sampling import estimate_log_marginal
from vaezoo.metrics.anomaly import QUANTITIES, SCORES, Anomaly, scores
from vaezoo.models import VAE

SPECTRUM = torch.tensor([4.0, 2.0, 1.0, 0.3, 0.3, 0.3], dtype=torch.float64)


def judged(outliers, inliers):
    metric = Anomaly()
    score = torch.cat([torch.as_tensor(part, dtype=torch.float64) for part in (outliers, inliers)])
    metric.update(score=score, outlier=(torch.arange(len(score)) < len(outliers)).long())
    return metric.compute()


def test_equal_scores_are_chance():
    found = judged([1.0] * 3, [1.0] * 5)
    assert found == {"auroc": 0.5, "auroc_error": 0.0, "aupr": 3 / 8, "fpr95": 1.0}


def test_separated_scores():
    assert judged([3.0, 4.0], [1.0, 2.0, 2.5]) == {"auroc": 1.0, "auroc_error": 0.0, "aupr": 1.0, "fpr95": 0.0}
    inverted = judged([1.0, 2.0], [3.0, 4.0])
    assert inverted["auroc"] == 0
    assert inverted["fpr95"] == 1
    assert inverted["aupr"] == pytest.approx((1 / 3 + 2 / 4) / 2)


@pytest.mark.parametrize(("m", "n", "levels"), [(2, 3, 2), (60, 45, 6), (200, 301, 10_000)])
def test_by_counting_and_by_scikit_learn(m, n, levels):
    """Ties count half; the threshold is the largest that 95 % of the outliers reach."""
    g = generator(m)
    outliers = torch.randint(levels // 8, levels + levels // 4, (m,), generator=g).double()
    inliers = torch.randint(0, levels, (n,), generator=g).double()
    found = judged(outliers, inliers)
    assert set(found) == {*QUANTITIES, "auroc_error"}
    pairs = (outliers[:, None] > inliers).double() + 0.5 * (outliers[:, None] == inliers)
    assert found["auroc"] == pytest.approx(float(pairs.mean()), abs=1e-12)
    variance = pairs.mean(1).var() / m + pairs.mean(0).var() / n
    assert found["auroc_error"] == pytest.approx(float(variance.sqrt()), abs=1e-12)
    truth, score = [1] * m + [0] * n, torch.cat([outliers, inliers])
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    assert found["aupr"] == pytest.approx(average_precision_score(truth, score), abs=1e-12)
    false, true, _ = roc_curve(truth, score, drop_intermediate=False)
    assert found["fpr95"] == pytest.approx(min(false[true >= 0.95]), abs=1e-12)


def test_auroc_of_normals_and_its_error():
    """AUROC of N(1, 1) against N(0, 1) is Phi(1 / 2^1/2); over repetitions, its deviation is a standard normal."""
    truth = float(torch.special.ndtr(torch.tensor(0.5).sqrt()))
    g = generator(0)
    found = [judged(1 + torch.randn(80, generator=g), torch.randn(120, generator=g)) for _ in range(600)]
    deviations = torch.tensor([(one["auroc"] - truth) / one["auroc_error"] for one in found])
    assert abs(float(deviations.mean())) < 4 / math.sqrt(600)
    assert float(deviations.std()) == pytest.approx(1, abs=4 / math.sqrt(1200))


def test_batches_change_nothing():
    g = generator(1)
    score, outlier = torch.rand(50, generator=g), torch.rand(50, generator=g) < 0.4
    whole, parts = Anomaly(), Anomaly()
    whole.update(score=score, outlier=outlier)
    for part in (slice(0, 7), slice(7, 8), slice(8, 50)):
        parts.update(score=score[part], outlier=outlier[part])
    assert whole.compute() == parts.compute()


def test_too_few_or_infinite_scores_are_refused():
    with pytest.raises(ValueError, match="at least 2 outliers and 2 inliers are needed, got 1 and 3"):
        judged([1.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="2 of 5 are not"):
        judged([1.0, math.nan], [1.0, math.inf, 3.0])


def linear_gaussian(turned, shift=0.0):
    """A linear VAE whose posterior is the best diagonal one, or off by ``shift``; data and PPCA."""
    x, mean, axes = data_with_spectrum(SPECTRUM, 12)
    ppca = PPCA.fit(SPECTRUM, mean, axes, 3, rotation(3, 11) if turned else torch.eye(3, dtype=torch.float64))
    model = ppca.vae((1, 2, 3))
    (encoder,) = model.encoder.net.layers
    with torch.no_grad():
        encoder.weight.add_(shift * torch.randn(encoder.weight.shape, dtype=torch.float64, generator=generator(5)))
        encoder.bias.add_(shift)
    return model, x.reshape(-1, 1, 2, 3), ppca


@pytest.mark.parametrize("turned", [False, True])
def test_regret_is_the_kl_that_optimization_can_remove(turned):
    """KL(q, p(z | x)) of the encoder's q, minus that of the best diagonal q, (sum ln M_dd - ln det M) / 2."""
    model, x, ppca = linear_gaussian(turned, shift=0.25)
    q = model.encoder(x)
    gap = kl_divergence(MultivariateNormal(q.mean, scale_tril=torch.diag_embed(q.stddev)), ppca.posterior(x))
    best = (ppca.m.diagonal().log().sum() - torch.logdet(ppca.m)) / 2
    exact = (gap - best).detach()
    found = scores(model, [(x, None)], ["likelihood_regret"], num_samples=4000, num_steps=300)["likelihood_regret"]
    assert exact.max() > 1
    assert_close(found, exact, rtol=0.05, atol=0.03)


def test_best_posterior_has_no_regret():
    model, x, _ = linear_gaussian(turned=False)
    for num_samples, most in [(32, 0.1), (4000, 0.005)]:  # the noise of two ELBOs at the same draws
        found = scores(model, [(x, None)], ["likelihood_regret"], num_samples=num_samples)["likelihood_regret"]
        assert (found >= 0).all()
        assert found.max() < most


def test_linear_gaussian_scores():
    """-log p(x) without error if q is the posterior; |-log p(x) - entropy|; the reconstruction at the mean of q."""
    model, x, ppca = linear_gaussian(turned=False)
    names = [name for name in SCORES if name != "likelihood_regret"]
    truth = -ppca.evidence.log_prob(x.flatten(1))
    found = scores(model, [(x, None)], names, entropy=float(truth.mean()), num_samples=4)
    assert list(found) == names
    assert_close(found["log_p"], truth, rtol=0, atol=1e-9)
    assert_close(found["typicality"], (truth - truth.mean()).abs(), rtol=0, atol=1e-9)
    exact = -model.decode(ppca.posterior(x).mean).log_prob(x).detach()
    assert_close(found["reconstruction"], exact, rtol=0, atol=1e-9)
    many = scores(model, [(x, None)], ["elbo"], num_samples=20_000)["elbo"]
    assert_close(many, truth, rtol=0, atol=0.05)


@pytest.mark.parametrize("name", ["conv_vae", "cvae", "iaf_vae", "ladder_vae", "s_vae", "vamp_vae", "vq_vae"])
def test_scores_of_any_model(name):
    """The bounds are ordered, and log_p is near that of ``estimate_log_marginal``."""
    model = make(name, net="mlp").double()
    x, y = bits(6, 1, 9, 7).double(), labels(6)
    found = scores(model, [(x, y)], ["elbo", "log_p", "reconstruction"], num_samples=50)
    assert (found["log_p"] <= found["elbo"] + 0.5).all()
    exact = estimate_log_marginal(model, x, y, num_samples=2000)
    assert_close(found["log_p"], -exact.log_p, rtol=0, atol=2.0)
    assert all(value.shape == (6,) and value.dtype == torch.float64 for value in found.values())


@pytest.mark.parametrize("name", ["mlp_vae", "cvae", "mog_vae", "flow_prior_vae", "vamp_vae"])
def test_batch_size_changes_nothing(name):
    """Random numbers depend on the index of the image and the seed; two equal calls give the same digits."""
    model = make(name, net="mlp").double()
    x, y = bits(5, 1, 9, 7).double(), labels(5)
    passes = partial(scores, model, entropy=40.0, num_samples=4, num_steps=10)
    whole, again, parts = passes([(x, y)]), passes([(x, y)]), passes([(x[:2], y[:2]), (x[2:], y[2:])])
    other = passes([(x, y)], seed=model.seed + 1)
    for key in SCORES:
        assert torch.equal(whole[key], again[key])
        assert_close(whole[key], parts[key], rtol=0, atol=1e-7)
        assert torch.equal(whole[key], other[key]) == (key == "reconstruction")
    twice = passes([(x[:1].expand(4, -1, -1, -1), y[:1].expand(4))], ["elbo", "likelihood_regret"])
    assert len(twice["elbo"].unique()) == len(twice["likelihood_regret"].unique()) == 4
    assert (whole["likelihood_regret"] > 0.05).all()  # an untrained encoder has something to regret


def test_state_is_unchanged():
    """The caller's random state, the modes of the modules, the weights and their gradients."""
    model = make("mlp_vae", net="mlp").train()
    weights = [parameter.clone() for parameter in model.parameters()]
    state = torch.get_rng_state()
    found = scores(model, [(bits(3, 1, 9, 7), None)], entropy=0.0, num_samples=3, num_steps=3)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(map(torch.equal, weights, model.parameters()))
    assert not any(value.requires_grad for value in found.values())


@pytest.mark.parametrize("name", ["full_cov_vae", "iaf_vae", "ladder_vae", "s_vae", "vq_vae"])
def test_regret_refuses_other_posteriors(name):
    model = make(name, net="mlp")
    with pytest.raises(ValueError, match=r"diagonal normal|one stochastic layer"):
        scores(model, [(bits(2, 1, 9, 7), None)], ["likelihood_regret"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"names": ["elbow"]}, "elbow is not a score: choose from elbo, log_p"),
        ({"names": ["typicality"]}, "typicality needs entropy"),
        ({"names": ["elbo"], "num_samples": 0}, "got 0, 100 and 0.05"),
        ({"names": ["elbo"], "num_steps": 0}, "got 32, 0 and 0.05"),
        ({"names": ["elbo"], "learning_rate": -1.0}, "got 32, 100 and -1.0"),
    ],
)
def test_values_out_of_range_are_refused(arguments, words):
    model = VAE((1, 2, 3), 2)
    with pytest.raises(ValueError, match=re.escape(words)):
        scores(model, [(bits(2, 1, 2, 3), None)], **arguments)
    with pytest.raises(ValueError, match="only the values 0 and 1"):
        scores(model, [(torch.full((2, 1, 2, 3), 0.5), None)], ["elbo"])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (MNIST(shape=(1, 28, 28)), "as in task.outliers=fashion_mnist"),
        (FashionMNIST(shape=(1, 28, 28)), "as in task.outliers=mnist"),
        (Digits(shape=(1, 8, 8)), "a config of conf/data with images of shape 1x8x8 and binary values"),
        (BundledTable("wine"), "a config of conf/data with rows of shape 13 and real values"),
    ],
)
def test_suggested_outliers_fit_the_data(data, expected):
    if isinstance(data, BundledTable):
        data.inspect()
    assert suggest_outliers(data) == (expected if expected.startswith("as") else f"task.outliers=NAME: {expected}")
