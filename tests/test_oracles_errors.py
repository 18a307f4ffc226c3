"""Every printed value that has an error, and the error: computed another way for 5 to 7 examples, to many digits."""

import math
from statistics import stdev

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from sklearn.metrics import average_precision_score, roc_auc_score
from test_contract import make

from vaezoo.distributions import TriangularNormal
from vaezoo.evaluation.base import mean_with_error
from vaezoo.inference.importance_sampling import LogMarginalEstimate, summarize_weights
from vaezoo.metrics import disentanglement
from vaezoo.metrics.anomaly import Anomaly
from vaezoo.metrics.latent import JointLatentMetrics, LatentMetrics, information_metrics, mean_and_error
from vaezoo.metrics.probes import Probes
from vaezoo.metrics.samples import ReconstructionMetrics, SampleMetrics, reconstruction_scores
from vaezoo.pictures import cycle_classes
from vaezoo.report.statistics import interval
from vaezoo.types import Batch

FLOAT = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=torch.Generator().manual_seed(seed))


def standard_error(values):
    """scipy's: the unbiased standard deviation / sqrt(N)."""
    return float(stats.sem(np.asarray(values, dtype=float)))


# The test of a model.


def watched(name, shape, *more, sizes=(4, 2, 1)):
    """The stage values of 7 examples in ragged batches, and the traces that they came from."""
    model = make(name, *more, net="mlp", shape=shape).eval()
    x = torch.randint(0, 256, (sum(sizes), *shape), generator=torch.Generator().manual_seed(1)) / 255
    x = x.round() if model.likelihood.supported_data == {"binary"} else x
    forward, traces = model.forward, []

    def record(*args, **kwargs):
        traces.append(forward(*args, **kwargs))
        return traces[-1]

    model.forward = record
    torch.manual_seed(0)
    with torch.no_grad():
        for part in x.split(sizes):
            model.eval_step("test", Batch(part, torch.zeros(len(part), dtype=torch.long)))
    return model, traces, model.stage_values("test")


@pytest.mark.parametrize("name", ["mlp_vae", "beta_vae", "ladder_vae", "iwae"])
def test_the_values_of_a_test_are_means_over_examples_with_the_standard_error(name):
    """Bits per dimension count the channels, rows and columns of an image that is not square."""
    shape = (3, 4, 2)
    _, traces, values = watched(name, shape, "model/likelihood=discretized_logistic", "model.num_samples=3")
    elbo = torch.cat([t.log_px.mean(0) - t.kl.sum(1) for t in traces]).double()
    assert values["elbo"] == pytest.approx(float(elbo.mean()), rel=1e-6)
    assert values["elbo_error"] == pytest.approx(standard_error(elbo), rel=1e-4)
    assert values["log_px"] == pytest.approx(float(torch.cat([t.log_px.mean(0) for t in traces]).mean()), rel=1e-6)
    assert values["kl"] == pytest.approx(float(torch.cat([t.kl.sum(1) for t in traces]).mean()), rel=1e-6)
    assert values["bits_per_dim"] == pytest.approx(-values["elbo"] / 24 / 0.6931471805599453, rel=1e-12)


def test_dimensions_and_units_by_layer():
    """``kl_dim/LAYER.DIMENSION`` of a hierarchy from its top; units of every layer, of the variance with 1/N."""
    model, traces, values = watched("ladder_vae", (1, 4, 2), "model.num_layers=2", "model.num_samples=2")
    q, p = ([getattr(latent, which).base_dist for t in traces for latent in t.latents] for which in "qp")
    for layer, dims in enumerate((2, 3)):
        kl = [torch.distributions.kl_divergence(q[i], p[i]) for i in range(layer, len(q), 2)]
        kl = torch.cat([part.mean(0) if part.dim() == 3 else part for part in kl])
        for d in range(dims):
            assert values[f"kl_dim/{layer}.{d:03d}"] == pytest.approx(float(kl[:, d].mean()), rel=1e-5)
    assert len([name for name in values if name.startswith("kl_dim/")]) == 5
    found = dict.fromkeys(["mean0", "square0", "mean1", "square1"])
    # Variances 0.0099 and 0.0101 on either side of 0.01, about a mean that is not 0.
    found["mean0"], found["square0"] = torch.tensor([2.0, 2.0]).double(), torch.tensor([4.0099, 4.0101]).double()
    found["mean1"] = torch.tensor([0.0, 1.0, -1.0]).double()
    found["square1"] = torch.tensor([0.5, 1.5, 1.0]).double()
    assert model.reduce_latent_statistics(found)["active_units"] == 3


# Groups of an evaluation.


def test_mean_with_error():
    values = randn(6)
    assert mean_with_error("a", values) == pytest.approx(
        {"a": float(values.mean()), "a_error": standard_error(values)}, rel=1e-12
    )
    assert mean_with_error("a", values[:1]) == {"a": float(values[0])}


def test_log_marginal_estimate_of_five_weights():
    """The delta method with scipy's error of a mean, and Kish's effective sample size."""
    log_w = 0.3 * randn(5) - 90
    w = (log_w - log_w.mean()).exp().numpy()
    log_px, elbo, error, ess = summarize_weights(log_w).tolist()
    assert log_px == pytest.approx(math.log(w.mean()) + float(log_w.mean()), rel=1e-12)
    assert elbo == pytest.approx(float(log_w.mean()), rel=1e-12)
    assert error == pytest.approx(standard_error(w) / w.mean(), rel=1e-9)
    assert ess == pytest.approx(w.sum() ** 2 / (w**2).sum(), rel=1e-9)
    parts = [LogMarginalEstimate(*randn(4, n, seed=n)) for n in (2, 3)]
    joined = LogMarginalEstimate.concat(parts)
    assert joined.error == pytest.approx(standard_error([*parts[0].log_p, *parts[1].log_p]), rel=1e-12)
    assert joined.draw_error == pytest.approx(math.sqrt(sum(float(e) ** 2 for p in parts for e in p.mc_error)) / 5)


def test_means_and_errors_over_samples():
    log_q, log_qz, log_prior = randn(3, 6)
    assert mean_and_error("a", log_q) == pytest.approx(
        {"a": float(log_q.mean()), "a_error": standard_error(log_q)}, rel=1e-12
    )
    found = information_metrics(log_q, log_qz, log_prior, 23)
    gain, cost = log_q - log_qz, log_qz - log_prior
    expected = {
        "mutual_information": gain.mean(), "mutual_information_error": standard_error(gain),
        "mutual_information_ceiling": math.log(23),
        "aggregate_kl": cost.mean(), "aggregate_kl_error": standard_error(cost),
    }  # fmt: skip
    assert found == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-12)


def test_latent_metrics_of_five_examples():
    """Every number, by loops over examples and dimensions with scipy's densities."""
    loc, z = randn(5, 3) * torch.tensor([1.0, 0.03, 1.0]), randn(5, 3, seed=2)
    scale = 0.3 + randn(5, 3, seed=1).abs()
    log_prior, kl_dim = randn(5, seed=3), randn(5, 3, seed=4).abs() * torch.tensor([0.003, 1.0, 0.1])
    kl_dim[:, 2] = torch.tensor(
        [0.0, 0.0, 0.0, 0.0, 0.03]
    )  # one in five is informed: not unused, though little in the mean
    metric = LatentMetrics()
    metric.update(loc=loc, scale=scale, z=z, log_prior=log_prior, kl_dim=kl_dim)
    found = metric.compute()
    pairs = stats.norm.logpdf(z.numpy()[:, None], loc.numpy(), scale.numpy())  # log q(z_md | x_n): (M, N, D)
    log_q = np.array([pairs[m, m].sum() for m in range(5)])
    log_qz = np.log(np.exp(pairs.sum(2)).mean(1))
    log_dims = np.log(np.exp(pairs).mean(1)).sum(1)
    for name, values in {
        "mutual_information": log_q - log_qz,
        "aggregate_kl": log_qz - log_prior.numpy(),
        "total_correlation": log_qz - log_dims,
        "dimension_wise_kl": log_dims - log_prior.numpy(),
    }.items():
        assert found[name] == pytest.approx(values.mean(), rel=1e-9), name
        assert found[f"{name}_error"] == pytest.approx(standard_error(values), rel=1e-9), name
    assert found["active_units"] == (loc.numpy().var(0) > 0.01).sum() == 2
    assert (found["active_units_kl"], found["collapsed_units"]) == (1, 1)
    assert (found["active_units_ceiling"], found["mutual_information_ceiling"]) == (3, math.log(5))


def test_joint_latent_metrics_of_five_examples():
    loc, z, log_prior = randn(5, 3), randn(5, 3, seed=2), randn(5, seed=3)
    tril = 0.5 * randn(5, 3, 3, seed=4).tril(-1) + torch.diag_embed(0.4 + randn(5, 3, seed=6).abs())
    metric = JointLatentMetrics(TriangularNormal, ("loc", "scale_tril"), num_draws=5)
    metric.update(loc=loc, scale_tril=tril, z=z, log_prior=log_prior)
    found = metric.compute()
    normals = [stats.multivariate_normal(m, t @ t.T) for m, t in zip(loc.numpy(), tril.numpy(), strict=True)]
    pairs = np.stack([normal.logpdf(z.numpy()) for normal in normals], 1)
    log_qz = np.log(np.exp(pairs).mean(1))
    gain, cost = pairs.diagonal() - log_qz, log_qz - log_prior.numpy()
    assert found["mutual_information"] == pytest.approx(gain.mean(), rel=1e-9)
    assert found["mutual_information_error"] == pytest.approx(standard_error(gain), rel=1e-9)
    assert found["aggregate_kl"] == pytest.approx(cost.mean(), rel=1e-9)
    assert found["aggregate_kl_error"] == pytest.approx(standard_error(cost), rel=1e-9)


def test_probes_of_seven_scored():
    """The errors are those of 7 scored examples, whatever the number fitted: sqrt(a (1 - a) / 7)."""
    y = torch.tensor([0, 0, 0, 1, 1, 0, 1, 0, 1, 1, 0, 1])
    code = torch.tensor([0.0, 0.1, 0.2, 2.0, 2.1, 0.1, 2.2, 2.3, 0.2, 2.0, 0.0, 2.1])[:, None]
    metric = Probes()
    metric.update(code=code, y=y, split=torch.tensor([0] * 5 + [1] * 7))
    found = metric.compute()
    right = {"linear_probe": 5, "chance": 3, "knn": 3}  # of 7; knn takes all five, the majority's class 0
    for name, hits in right.items():
        assert found[name] == pytest.approx(hits / 7)
        assert found[f"{name}_error"] == pytest.approx(math.sqrt(hits * (7 - hits) / 7**3))


def test_sample_metrics_of_few_images():
    """9 real and 7 generated in 3 dimensions: everything by loops, the Frechet distance by a matrix root, KID's error
    by leaving one image out after another.
    """
    real, fake = randn(9, 3).numpy(), randn(7, 3, seed=2).numpy() + 2
    metric = SampleMetrics()
    for part in (slice(0, 4), slice(4, 9)):
        metric.update(real=torch.from_numpy(real[part]), fake=torch.from_numpy(fake[part]))
    found = metric.compute()

    covariances = np.cov(real.T), np.cov(fake.T)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    shift = ((real.mean(0) - fake.mean(0)) ** 2).sum()
    assert found["fid"] == pytest.approx(shift + np.trace(covariances[0] + covariances[1] - 2 * root), rel=1e-8)

    def mmd(x, y):
        kernel = lambda a, b: (a @ b / 3 + 1) ** 3  # noqa: E731
        within = [np.mean([kernel(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]) for s in (x, y)]
        return sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y])

    assert found["kid"] == pytest.approx(mmd(real, fake), rel=1e-9)
    without = [
        [mmd(np.delete(real, i, 0), fake) for i in range(9)],
        [mmd(real, np.delete(fake, j, 0)) for j in range(7)],
    ]
    variance = sum((len(t) - 1) / len(t) * ((np.array(t) - np.mean(t)) ** 2).sum() for t in without)
    assert found["kid_error"] == pytest.approx(math.sqrt(variance), rel=1e-9)

    def radius(x, k):
        return np.array([np.sort(np.linalg.norm(x - a, axis=1))[k] for a in x])

    apart = np.linalg.norm(real[:, None] - fake, axis=2)  # (9, 7)
    parts = {
        "precision": (apart <= radius(real, 3)[:, None]).any(0),
        "recall": (apart <= radius(fake, 3)).any(1),
        "density": (apart <= radius(real, 5)[:, None]).sum(0) / 5,
        "coverage": (apart <= radius(real, 5)[:, None]).any(1),
    }
    for name, values in parts.items():
        assert found[name] == pytest.approx(values.mean(), rel=1e-12), name
        assert found[f"{name}_error"] == pytest.approx(standard_error(values), rel=1e-9), name
    assert min(found["precision_error"], found["recall_error"]) > 0
    assert [found[f"num_{what}"] for what in ("features", "real", "generated")] == [3, 9, 7]


def test_reconstructions_of_five_images():
    x = torch.rand(5, 2, 23, 25, dtype=FLOAT, generator=torch.Generator().manual_seed(0))
    y = (x + 0.1 * torch.arange(1, 6)[:, None, None, None] * randn(*x.shape, seed=1)).clamp(0, 1)
    metric = ReconstructionMetrics()
    metric.update(x[:3], y[:3])
    metric.update(x[3:], y[3:])
    found = metric.compute()
    psnr = [-10 * math.log10(((a - b) ** 2).mean()) for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    each = [
        {name: float(value) for name, value in reconstruction_scores(x[i : i + 1], y[i : i + 1]).items()}
        for i in range(5)
    ]
    for name, values in {"psnr": psnr, **{n: [one[n] for one in each] for n in ("ssim", "ms_ssim")}}.items():
        assert found[name] == pytest.approx(np.mean(values), rel=1e-10), name
        assert found[f"{name}_error"] == pytest.approx(standard_error(values), rel=1e-6), name


def test_anomaly_of_few_images():
    """5 outliers and 7 inliers with ties: DeLong's variance by its placements, the rest by scikit-learn or counting."""
    outliers, inliers = np.array([1.0, 3.0, 3.0, 5.0, 6.0]), np.array([0.0, 1.0, 2.0, 3.0, 3.0, 4.0, 0.5])
    metric = Anomaly()
    metric.update(score=torch.tensor([*inliers, *outliers]), outlier=torch.tensor([0] * 7 + [1] * 5))
    found = metric.compute()
    wins = (outliers[:, None] > inliers) + (outliers[:, None] == inliers) / 2
    truth, score = [0] * 7 + [1] * 5, [*inliers, *outliers]
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, score), rel=1e-12) == pytest.approx(wins.mean())
    variance = wins.mean(1).var(ddof=1) / 5 + wins.mean(0).var(ddof=1) / 7
    assert found["auroc_error"] == pytest.approx(math.sqrt(variance), rel=1e-12)
    assert found["aupr"] == pytest.approx(average_precision_score(truth, score), rel=1e-12)
    assert found["fpr95"] == pytest.approx((inliers >= 1.0).mean(), rel=1e-12)  # all five are needed for 95 %
    many = Anomaly()
    many.update(score=torch.arange(40.0), outlier=torch.ones(40))
    many.update(score=torch.tensor([0.5, 1.5, 1.9, 30.0]), outlier=torch.zeros(4))
    assert many.compute()["fpr95"] == 0.25  # 38 of 40 are 95 %: at or above 2


def test_disentanglement_errors_are_those_of_the_bootstrap():
    """A resampled row keeps its code with its factors; the spread is the unbiased standard deviation."""
    generator = np.random.default_rng(0)
    v = generator.integers(3, size=(300, 2))
    z = v + 0.6 * generator.standard_normal((300, 2))
    metric = disentanglement.Disentanglement(num_votes=20, batch_size=5, num_resamples=3, num_trees=2)
    metric.update(code=torch.from_numpy(z), factors=torch.from_numpy(v))
    codes, factors = metric.examples()
    found = metric.compute()
    rows = metric.generator("bootstrap").integers(300, size=(3, 300))
    scores = [metric.scores_on_all(codes[row], factors[row]) for row in rows]
    assert set(scores[0]) == {"beta_vae", "factor_vae", "mig", "modularity", "irs"}
    for name in scores[0]:
        assert found[f"{name}_error"] == pytest.approx(stdev(one[name] for one in scores), rel=1e-12), name
        assert found[name] == pytest.approx(metric.scores_on_all(codes, factors)[name], rel=1e-12)
    # Of another sample of 300 the MIG is off by about its error; of rows that part codes and factors it would be 0.
    assert found["mig"] > 0.2
    assert max(abs(one["mig"] - found["mig"]) for one in scores) < 0.15


# Over seeds.


@pytest.mark.parametrize("num", [2, 3, 5])
def test_intervals_are_students(num):
    values = randn(num).tolist()
    low, high = stats.t.interval(0.95, num - 1, np.mean(values), stats.sem(values))
    found = interval(values)
    assert (found.mean, found.num) == (pytest.approx(np.mean(values)), num)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=1e-9)


def test_cycle_classes():
    """Each class of the test set equally often, in turn."""
    labels = torch.tensor([3, 1, 1, 2, 3, 1])
    assert cycle_classes(labels, 7).tolist() == [1, 2, 3, 1, 2, 3, 1]
