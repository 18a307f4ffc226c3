"""Metrics of samples and reconstructions: closed forms, brute force, other programs."""

import math

import pytest
import torch
from scipy.linalg import sqrtm
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from vaezoo.metrics.samples import (
    QUANTITIES,
    ReconstructionMetrics,
    SampleMetrics,
    fid,
    kid,
    pairwise_distances,
    precision_recall_density_coverage,
    reconstruction_scores,
    references,
    scale_weights,
    ssim_and_contrast,
)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(x, mean, covariance):
    """Transform x so that its sample mean and covariance are exactly these."""
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), (x - x.mean(0)).T, upper=False)
    return (torch.linalg.cholesky(covariance) @ white).T + mean


class Identity(torch.nn.Module):
    """Features that are the images, for torchmetrics."""

    num_features = 6

    def forward(self, x):
        return x


def test_fid_is_the_formula():
    """N(0, I) and N(m, I): |m|^2. N(0, a^2 I) and N(0, b^2 I): D (a - b)^2. Any two: scipy's matrix root."""
    d, x, y = 6, normal(0, 40, 6), normal(1, 30, 6)
    eye, m = torch.eye(d, dtype=torch.float64), normal(2, d)
    assert fid(with_moments(x, 0, eye), with_moments(y, m, eye)) == pytest.approx(float(m.square().sum()), rel=1e-10)
    assert fid(with_moments(x, 0, 4 * eye), with_moments(y, 0, 0.25 * eye)) == pytest.approx(d * 1.5**2, rel=1e-10)
    y = y @ normal(3, d, d) + m
    root = sqrtm((x.T.cov() @ y.T.cov()).numpy()).real
    trace = x.T.cov().trace() + y.T.cov().trace() - 2 * root.trace()
    assert fid(x, y) == pytest.approx(float((x.mean(0) - y.mean(0)).square().sum() + trace), rel=1e-9)
    assert fid(x, y) == pytest.approx(fid(y, x), rel=1e-12)


def test_fid_with_fewer_images_than_features():
    """Two images each: S = d d'/2, whose root of the product has the trace |d_1.d_2| / 2. Itself: 0."""
    x, y = normal(0, 2, 50), normal(1, 2, 50)
    a, b = x[1] - x[0], y[1] - y[0]
    trace = (a.square().sum() + b.square().sum()) / 2 - (a @ b).abs()
    assert fid(x, y) == pytest.approx(float((x.mean(0) - y.mean(0)).square().sum() + trace), rel=1e-10)
    assert fid(x, x) < 1e-12


def test_fid_and_kid_are_torchmetrics():
    """torchmetrics' own formulas, on features that are handed to it."""
    x, y = normal(0, 40, 6), 1.5 * normal(1, 30, 6) + 0.3
    for metric, mine in (
        (FrechetInceptionDistance(Identity(), normalize=True), fid(x, y)),
        (KernelInceptionDistance(Identity(), subsets=1, subset_size=30, normalize=True), kid(x[:30], y)[0]),
    ):
        metric.set_dtype(torch.float64)
        metric.update(x if "Frechet" in type(metric).__name__ else x[:30], real=True)
        metric.update(y, real=False)
        value = metric.compute()
        assert mine == pytest.approx(float(value[0] if isinstance(value, tuple) else value), rel=1e-9)


def test_kid_by_hand():
    """x = 0, 1 and y = 2, -1 in one dimension: k(0, 1) + k(2, -1) - (k(0, 2) + k(0, -1) + k(1, 2) + k(1, -1)) / 2
    = 1 + (-1)^3 - (1 + 1 + 27 + 0) / 2 = -14.5: negative, as an unbiased estimate may be.
    """
    value, error = kid(torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [-1.0]]))
    assert value == pytest.approx(-14.5, abs=1e-12)
    assert math.isnan(error)


def test_kid_error_is_the_jackknife():
    """Leaving out each image in turn, with the estimate itself."""
    x, y = normal(0, 9, 4), normal(1, 7, 4) + 0.5
    without_x = torch.tensor([kid(torch.cat([x[:i], x[i + 1 :]]), y)[0] for i in range(9)])
    without_y = torch.tensor([kid(x, torch.cat([y[:i], y[i + 1 :]]))[0] for i in range(7)])
    variance = 8 * without_x.double().var(correction=0) + 6 * without_y.double().var(correction=0)
    assert kid(x, y)[1] == pytest.approx(float(variance.sqrt()), rel=1e-5)


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 1.0, 1.6), (1.0, 0.85, 1.15)])
def test_kid_error_is_its_spread(shift, least, most):
    """300 pairs of samples: mean 0 for equal distributions; the spread is the error, which is at most 1.4 times it."""
    draws = [kid(normal(2 * i, 60, 3), normal(2 * i + 1, 60, 3) + shift) for i in range(300)]
    values, errors = torch.tensor(draws, dtype=torch.float64).T
    assert least < errors.mean() / values.std() < most
    if shift == 0:
        assert values.mean().abs() < 4 * values.std() / 300**0.5


def test_precision_and_recall_of_equal_and_distant_sets():
    """Equal samples: all 1, but density, which counts an image's own ball and those of whom it is a neighbour:
    (k + 1) / k in the mean. Far apart: 0.
    """
    x = normal(0, 1200, 3)
    same = {name: float(part.mean()) for name, part in precision_recall_density_coverage(x, x).items()}
    assert same == pytest.approx({"precision": 1, "recall": 1, "density": 1.2, "coverage": 1}, abs=1e-12)
    assert all(part.sum() == 0 for part in precision_recall_density_coverage(x, x + 100).values())


def test_precision_and_recall_by_brute_force():
    """Image by image, with loops, also with repeated images."""
    x, y = normal(0, 25, 2), 0.7 * normal(1, 30, 2) + 0.5
    x[1:6], y[7:10] = x[0], x[0]

    def ball(points, i, k):
        return sorted(math.dist(points[i], p) for j, p in enumerate(points) if j != i)[k - 1]

    a, b = x.tolist(), y.tolist()

    def hits(of, centres, k):
        return [[math.dist(p, c) <= ball(centres, i, k) for i, c in enumerate(centres)] for p in of]

    expected = {
        "precision": [any(row) for row in hits(b, a, 3)],
        "recall": [any(row) for row in hits(a, b, 3)],
        "density": [sum(row) / 5 for row in hits(b, a, 5)],
        "coverage": [any(column) for column in zip(*hits(b, a, 5), strict=True)],
    }
    found = precision_recall_density_coverage(x, y)
    assert found["precision"].mean() < 1
    for name, values in expected.items():
        assert torch.equal(found[name], torch.tensor(values, dtype=torch.float64)), name


def test_density_and_coverage_of_one_distribution():
    """E[density] = 1 and, with N = M, E[coverage] = 1 - prod_i (N - i) / (2 N - i), i = 1 ... 5, for any one."""
    parts = [precision_recall_density_coverage(normal(2 * i, 100, 2), normal(2 * i + 1, 100, 2)) for i in range(60)]
    for name, exact in (
        ("density", 1.0),
        ("coverage", 1 - math.prod((100 - i) / (200 - i) for i in range(1, 6))),
    ):
        means = torch.stack([part[name].mean() for part in parts])
        assert (means.mean() - exact).abs() < 4 * means.std() / 60**0.5, name


def test_distances_of_near_images_keep_their_digits():
    x = normal(0, 30, 64) + 1e3
    assert pairwise_distances(x, x).diagonal().max() == 0
    assert torch.equal(pairwise_distances(x[:7], x), pairwise_distances(x, x[:7]).T)


def test_sample_metrics(monkeypatch):
    """Batches and chunks change nothing; all numbers are floats with a unit; references take their names from them."""
    x, y = normal(0, 60, 8).float(), (1.2 * normal(1, 50, 8)).float()
    metric = SampleMetrics()
    metric.update(real=x, fake=y)
    whole = metric.compute()
    parts = SampleMetrics()
    for i in range(0, 60, 7):
        parts.update(real=x[i : i + 7], fake=y[i : i + 7])
    assert parts.compute() == whole
    monkeypatch.setattr("vaezoo.metrics.samples.ROWS_PER_CHUNK", 11)
    parts._computed = None
    assert parts.compute() == pytest.approx(whole, rel=1e-12)
    assert whole["fid"] == fid(x, y)
    assert whole["num_real"] == 60
    assert whole["num_generated"] == 50
    assert whole["precision_error"] == pytest.approx(
        (whole["precision"] * (1 - whole["precision"]) / 49) ** 0.5, rel=1e-9
    )
    for name, value in whole.items():
        assert type(value) is float
        assert name.removesuffix("_error") in QUANTITIES
    names = ("fid", "kid", "precision", "recall", "density", "coverage")
    assert references(whole) == {f"{name}_reference": whole[name] for name in names}


def test_too_few_images():
    x = normal(0, 9, 4)
    with pytest.raises(ValueError, match="fid needs at least 2 real and 2 generated images, got 9 and 1"):
        fid(x, x[:1])
    with pytest.raises(ValueError, match="kid needs at least 2 real and 2 generated images, got 1 and 9"):
        kid(x[:1], x)
    with pytest.raises(ValueError, match="the 5 nearest neighbours of an image need at least 6 images, got 5"):
        precision_recall_density_coverage(x[:5], x)


def images(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_by_hand():
    """An error of 0.1 everywhere is 20 dB, of 0.01 it is 40 dB: a mean of 30, not the PSNR of the mean error; what lies
    beyond white counts as white.
    """
    x = torch.full((2, 1, 4, 4), 0.5)
    y = x + torch.tensor([0.1, 0.01]).reshape(2, 1, 1, 1)
    values = ReconstructionMetrics()
    values.update(x, y)
    assert values.compute() == pytest.approx({"psnr": 30, "psnr_error": 10}, rel=1e-5)
    assert torch.equal(reconstruction_scores(x, y + 1)["psnr"], reconstruction_scores(x, torch.ones_like(x))["psnr"])
    assert reconstruction_scores(x, x)["psnr"].isinf().all()


def test_infinite_psnr_is_left_out():
    """One of three reconstructions is exact: it is counted, and PSNR has no mean; an error needs two images."""
    x = images(0, 3, 1, 12, 12)
    y = x.clone()
    y[1:] *= 0.9
    metric = ReconstructionMetrics()
    metric.update(x[:2], y[:2])
    metric.update(x[2:], y[2:])
    values = metric.compute()
    assert (set(values), metric.num_exact) == ({"ssim", "ssim_error"}, 1)
    one = ReconstructionMetrics()
    one.update(x[1:2], y[1:2])
    assert (set(one.compute()), one.num_exact) == ({"psnr", "ssim"}, 0)


def test_ssim_by_brute_force():
    """Wang's formula at every position of the 11x11 window within the image."""
    x, y = images(0, 2, 1, 14, 13).double(), images(1, 2, 1, 14, 13).double() * 0.5 + 0.1
    line = torch.exp(-torch.arange(-5.0, 6.0, dtype=torch.float64).square() / (2 * 1.5**2))
    w = (line[:, None] * line) / (line[:, None] * line).sum()
    for n in range(2):
        values = []
        for i in range(4):
            for j in range(3):
                a, b = x[n, 0, i : i + 11, j : j + 11], y[n, 0, i : i + 11, j : j + 11]
                ma, mb = (w * a).sum(), (w * b).sum()
                va, vb, c = (w * a * a).sum() - ma**2, (w * b * b).sum() - mb**2, (w * a * b).sum() - ma * mb
                top = (2 * ma * mb + 0.01**2) * (2 * c + 0.03**2)
                values.append(top / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2)))
        assert float(reconstruction_scores(x, y)["ssim"][n]) == pytest.approx(
            float(torch.stack(values).mean()), abs=1e-9
        )


def test_ssim_is_torchmetrics_without_its_border():
    """torchmetrics' map of a colour image where the window lies within it; MS-SSIM from two of its maps."""
    x, y = images(0, 1, 3, 40, 31).double(), images(1, 1, 3, 40, 31).double()
    y = 0.7 * x + 0.3 * y

    def ssim(x, y):
        whole = structural_similarity_index_measure(y, x, data_range=1.0, return_full_image=True)[1]
        return float(whole[..., 5:-5, 5:-5].mean())

    assert float(reconstruction_scores(x, y)["ssim"]) == pytest.approx(ssim(x, y), rel=1e-9)
    halves = [torch.nn.functional.avg_pool2d(image, 2) for image in (x, y)]
    expected = float(ssim_and_contrast(x, y)[1]) ** (0.0448 / 0.3304) * ssim(*halves) ** (0.2856 / 0.3304)
    assert float(reconstruction_scores(x, y)["ms_ssim"]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("side", "scales"), [(8, 0), (10, 0), (11, 1), (21, 1), (22, 2), (28, 2), (44, 3), (87, 3), (88, 4), (176, 5)]
)
def test_scales(side, scales):
    """As many as fit, and each image is 1 like itself by all that it gets."""
    weights = scale_weights(side, side + 3)
    assert len(weights) == scales
    assert sum(weights) == pytest.approx(1 if scales else 0)
    x = images(0, 1, 1, side, side + 3)
    values = reconstruction_scores(x, x)
    assert set(values) == {"psnr"} | ({"ssim"} if scales >= 1 else set()) | ({"ms_ssim"} if scales >= 2 else set())
    assert all(float(values[name]) == pytest.approx(1, abs=1e-6) for name in values if name != "psnr")
    y = (x + 0.2 * images(1, *x.shape)).clamp(0, 1)
    assert all(float(value) < 1 for name, value in reconstruction_scores(x, y).items() if name != "psnr")


def test_reconstruction_metrics_are_means_over_images():
    """Batches change nothing; the error is that of a mean of N."""
    x, y = images(0, 10, 3, 28, 28), images(1, 10, 3, 28, 28)
    values = reconstruction_scores(x, y)
    whole, parts = ReconstructionMetrics(), ReconstructionMetrics()
    whole.update(x, y)
    for a, b in zip(x.split(3), y.split(3), strict=True):
        parts.update(a, b)
    assert parts.compute() == pytest.approx(whole.compute(), rel=1e-9)
    for name, value in values.items():
        assert whole.compute()[name] == pytest.approx(float(value.mean()), rel=1e-12)
        assert whole.compute()[f"{name}_error"] == pytest.approx(float(value.std()) / 10**0.5, rel=1e-6)
        assert name in QUANTITIES
    with pytest.raises(ValueError, match="expected two batches of images"):
        whole.update(x, y[:3])
