"""Families against closed forms, quadrature, brute-force sums and independent libraries."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ppca import generator, inverse_soft_floor
from scipy import stats
from torch import nn
from torch.distributions import ContinuousBernoulli as TorchContinuousBernoulli
from torch.distributions import Independent

from vaezoo.conditional import Conditional
from vaezoo.distributions import DiscretizedLogisticDistribution
from vaezoo.distributions.numerics import soft_floor
from vaezoo.families import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    FixedScaleNormal,
    Laplace,
    MixtureOfDiscretizedLogistics,
    Normal,
    OptimalScaleNormal,
    SharedScaleNormal,
)
from vaezoo.trace import Latent

FLOAT = torch.float64
LEVELS = torch.arange(256, dtype=FLOAT) / 255
LOGITS = [-60, -20, -5, -0.1, -0.0201, -0.0199, -1e-4, 0, 1e-8, 0.0199, 0.0201, 0.3, 2, 17, 40, 60]


def number(value, dtype=FLOAT, requires_grad=False):
    return torch.tensor(float(value), dtype=dtype, requires_grad=requires_grad)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=generator(seed))


# Normal.


def test_soft_floor():
    """floor + ln(1 + exp(x - floor)): above x and the floor, nearly x far above the floor, with a gradient below it."""
    x = torch.tensor([-40.0, -10, -7, -5, 0, 5], dtype=FLOAT, requires_grad=True)
    y = soft_floor(x, -7.0)
    torch.testing.assert_close(y, torch.logaddexp(x, number(-7)), rtol=0, atol=1e-14)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope, torch.sigmoid(x + 7).detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(inverse_soft_floor(y, -7.0)[1:], x[1:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["fixed", "shared", "per pixel"])
def test_normal_density(family):
    """log N(x; mu, s^2) = -1/2 (x - mu)^2 / s^2 - ln s - 1/2 ln 2 pi, with all constants (scipy)."""
    loc, x, log_scale = randn(4, 7, seed=1), randn(4, 7, seed=2), randn(4, 7, seed=3)
    if family == "fixed":
        d, scale = FixedScaleNormal(0.3)(loc), torch.full_like(loc, 0.3)
    elif family == "shared":
        normal = SharedScaleNormal(0.7, min_log_scale=-30).double()  # far from the floor
        d, scale = normal(loc), normal.log_scale.exp().expand_as(loc)
        assert scale[0, 0].item() == pytest.approx(0.7, rel=1e-7)
    else:
        d, scale = Normal(-30)(loc, log_scale), log_scale.exp()
        lowest = Normal()(loc, torch.full_like(loc, -1e3)).scale
        torch.testing.assert_close(lowest, torch.full_like(loc, math.exp(-7)), rtol=1e-12, atol=0)
    expected = stats.norm.logpdf(x.numpy(), loc.numpy(), scale.detach().numpy())
    np.testing.assert_allclose(d.log_prob(x).detach().numpy(), expected, rtol=1e-11)
    np.testing.assert_allclose(d.mean, loc)


def test_unit_normal_is_squared_error():
    """With sigma = 1, -log p(x) = 1/2 SSE + D/2 ln 2 pi: a sum over dimensions, not a mean."""
    loc, x = randn(3, 2, 4, 5, seed=1), randn(3, 2, 4, 5, seed=2)
    log_px = Independent(FixedScaleNormal(1.0)(loc), 3).log_prob(x)
    sse = (x - loc).square().flatten(1).sum(1)
    torch.testing.assert_close(-log_px, sse / 2 + 20 * math.log(2 * math.pi), rtol=1e-12, atol=0)


def test_shared_scale_at_its_optimum():
    """The best shared scale s is the root mean square error: -log p / D = ln s + 1/2 ln 2 pi + 1/2 (Rybkin 2021)."""
    error = randn(50, 8)
    rms = error.square().mean().sqrt()
    family = SharedScaleNormal().double()
    with torch.no_grad():
        family.log_scale.copy_(inverse_soft_floor(rms.log(), family.min_log_scale))
    nll = -family(torch.zeros_like(error)).log_prob(error).mean()
    assert nll.item() == pytest.approx(float(rms.log()) + math.log(2 * math.pi) / 2 + 0.5, abs=1e-12)
    (slope,) = torch.autograd.grad(nll, family.log_scale)
    assert slope.abs() < 1e-12
    for start in (2.0, 0.01, 0.001):
        assert SharedScaleNormal(start)(torch.zeros(1)).stddev.item() == pytest.approx(start, rel=1e-5)


def test_kl_of_diagonal_normals():
    """KL = 1/2 [ln s2^2/s1^2 + (s1^2 + (m1 - m2)^2) / s2^2 - 1] per dimension, and the mean of log q - log p."""
    family, size = Normal(), (3, 4)
    means = [randn(*size, seed=1), randn(*size, seed=2)]
    log_scales = [randn(*size, seed=3) / 2, randn(*size, seed=4) / 2]
    raw = [inverse_soft_floor(log_scale, family.min_log_scale) for log_scale in log_scales]
    q, p = (Independent(family(mean, r), 1) for mean, r in zip(means, raw, strict=True))
    variance_q, variance_p = ((2 * log_scale).exp() for log_scale in log_scales)
    square = (means[0] - means[1]).square()
    closed = ((variance_p / variance_q).log() + (variance_q + square) / variance_p - 1) / 2
    torch.manual_seed(0)
    latent = Latent(q, p, q.rsample(torch.Size([100_000])))
    torch.testing.assert_close(latent.kl_per_dim, closed, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(latent.kl, closed.sum(1), rtol=1e-12, atol=1e-12)
    draws = latent.log_q - latent.log_p
    assert ((draws.mean(0) - latent.kl).abs() < 5 * draws.std(0) / math.sqrt(len(draws))).all()


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_impossible_scales(scale):
    """A scale that is not positive raises at construction, with its value."""
    with pytest.raises(ValueError, match=rf"scale must be > 0 and finite, got {scale}"):
        FixedScaleNormal(scale)
    with pytest.raises(ValueError, match=rf"initial_scale must be finite and above its floor .*, got {scale}"):
        SharedScaleNormal(scale)
    with pytest.raises(ValueError, match=rf"min_scale must be > 0 and finite, got {scale}"):
        OptimalScaleNormal(min_scale=scale)


def test_optimal_scale_in_training():
    """With sigma*^2 = MSE over samples, batch and dimensions, -log p / D = ln sigma* + 1/2 ln 2 pi + 1/2, and its
    gradient is that of 1/2 ln MSE; no fixed sigma does better (Rybkin et al. 2021, eq. 9).
    """
    x, loc = randn(5, 2, 3, seed=1), randn(4, 5, 2, 3, seed=2).requires_grad_()  # K = 4, B = 5
    family = OptimalScaleNormal().double()
    log_px = Independent(family(loc), 2).log_prob(x)
    assert log_px.shape == (4, 5)
    mse = (x - loc).square().mean()
    closed = mse.log() / 2 + math.log(2 * math.pi) / 2 + 0.5
    nll = -log_px.mean() / 6
    assert nll.item() == pytest.approx(closed.item(), abs=1e-14)
    slopes = [torch.autograd.grad(value, loc, retain_graph=True)[0] for value in (nll, closed)]
    torch.testing.assert_close(*slopes, rtol=1e-13, atol=1e-16)
    for factor in (0.9, 0.999, 1.001, 1.1):
        fixed = FixedScaleNormal(factor * mse.sqrt().item())
        assert Independent(fixed(loc), 2).log_prob(x).mean() < log_px.mean()
    twice = Independent(family(torch.cat([loc, loc], 1)), 2).log_prob(torch.cat([x, x]))
    assert twice.mean().item() == pytest.approx(log_px.mean().item(), abs=1e-13)


def test_optimal_scale_in_evaluation():
    """Evaluation uses the running average of sigma*^2, as a normal density, and does not change it."""
    family = OptimalScaleNormal(momentum=0.4).double()
    loc, running = randn(7, 3, seed=1), None
    for step in range(6):
        x = randn(7, 3, seed=2 + step)
        mse = (x - loc).square().mean().item()
        weight = max(0.4, 1 / (step + 1))
        running = mse if running is None else (1 - weight) * running + weight * mse
        family(loc).log_prob(x)
        assert family(loc).stddev[0, 0].item() == pytest.approx(math.sqrt(running), rel=1e-12)
    again = OptimalScaleNormal().double()
    again.load_state_dict(family.state_dict())
    for evaluated in (family.eval(), again.eval()):
        for seed in (8, 9):  # the second time as the first
            x = randn(7, 3, seed=seed)
            expected = stats.norm.logpdf(x.numpy(), loc.numpy(), math.sqrt(running))
            np.testing.assert_allclose(evaluated(loc).log_prob(x).numpy(), expected, rtol=1e-12)
    torch.manual_seed(0)
    drawn = family(loc[0]).sample(torch.Size([100_000]))
    assert drawn.std(0).sub(math.sqrt(running)).abs().max() < 5 * math.sqrt(running / 2e5)
    torch.testing.assert_close(family(loc).expand(torch.Size([2, 7, 3])).log_prob(x)[1], family(loc).log_prob(x))


def test_optimal_scale_has_a_floor():
    """Below the floor it is a normal with that scale: a perfect reconstruction has a finite loss and gradient."""
    family, fixed = OptimalScaleNormal(min_scale=0.01).double(), FixedScaleNormal(0.01)
    for error in (0.0, 1e-9, 0.009):
        loc = torch.full((2, 3), 0.5, dtype=FLOAT, requires_grad=True)
        x = loc.detach() + error
        values = [(nll, *torch.autograd.grad(nll, loc)) for nll in (-f(loc).log_prob(x).sum() for f in (family, fixed))]
        for ours, theirs in zip(*values, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for momentum in (0, -0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=rf"momentum must be in \(0, 1\], got {momentum}"):
            OptimalScaleNormal(momentum)


# Laplace.


def test_laplace_density():
    """log p(x) = -|x - mu| / b - ln 2b (scipy); the best b is the mean absolute error, where -log p / D = ln 2b + 1."""
    loc, x = randn(4, 7, seed=1), randn(4, 7, seed=2)
    family = Laplace(0.7, min_log_scale=-30).double()
    d = family(loc)
    expected = stats.laplace.logpdf(x.numpy(), loc.numpy(), family.scale.item())
    np.testing.assert_allclose(d.log_prob(x).detach().numpy(), expected, rtol=1e-12)
    assert family.scale.item() == pytest.approx(0.7, rel=1e-7)
    best = (x - loc).abs().mean()
    with torch.no_grad():
        family.log_scale.copy_(inverse_soft_floor(best.log(), family.min_log_scale))
    nll = -family(loc).log_prob(x).mean()
    assert nll.item() == pytest.approx(math.log(2 * best.item()) + 1, abs=1e-12)
    (slope,) = torch.autograd.grad(nll, family.log_scale)
    assert slope.abs() < 1e-12


# Bernoulli.


def test_bernoulli_is_cross_entropy():
    """log p(x) = x ln s(l) + (1 - x) ln s(-l), computed from logits, so that no probability is clipped."""
    logits, x = 3 * randn(5, 9, seed=1), (randn(5, 9, seed=2) > 0).double()
    d = Bernoulli()(logits)
    expected = -F.binary_cross_entropy(torch.sigmoid(logits), x, reduction="none")
    torch.testing.assert_close(d.log_prob(x), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(Independent(d, 1).log_prob(x), expected.sum(1), rtol=1e-10, atol=0)
    torch.testing.assert_close(d.mean, torch.sigmoid(logits))
    far = Bernoulli()(torch.tensor([300.0, -300.0, 300.0], dtype=torch.float32))
    assert far.log_prob(torch.tensor([0.0, 1.0, 1.0])).tolist() == [-300.0, -300.0, 0.0]
    assert Bernoulli.supported_data == {"binary"}  # at l = 2 the same formula integrates to 0.38 over [0, 1]


# Continuous Bernoulli.


@pytest.fixture(scope="module")
def quadrature():
    """Gauss-Legendre nodes and weights on [0, 1]: exact to rounding for exp(l x), |l| <= 60."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    return torch.tensor((nodes + 1) / 2), torch.tensor(weights / 2)


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_is_a_density(quadrature, logit):
    """Integral p(x) dx = 1 and integral x p(x) dx = mean (Loaiza-Ganem & Cunningham 2019)."""
    x, weights = quadrature
    d = ContinuousBernoulli()(number(logit))
    density = d.log_prob(x).exp() * weights
    assert density.sum().item() == pytest.approx(1, abs=1e-12)
    assert d.mean.item() == pytest.approx((x * density).sum().item(), abs=2e-8)


@pytest.mark.parametrize("logit", LOGITS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_continuous_bernoulli_slope(logit, dtype):
    """d log p(x) / dl = x - E[x], as in every exponential family: finite, at l = 0 too."""
    parameter = number(logit, dtype, requires_grad=True)
    d = ContinuousBernoulli()(parameter)
    for x in (0.0, 0.3, 1.0):
        (slope,) = torch.autograd.grad(d.log_prob(number(x, dtype)), parameter)
        exact = ContinuousBernoulli()(number(logit)).mean.item()
        assert slope.item() == pytest.approx(x - exact, abs=2e-8 if dtype == FLOAT else 2e-5)
    (slope,) = torch.autograd.grad(d.mean, parameter)  # the variance
    assert 0 < slope.item() < 0.085


def test_continuous_bernoulli_agrees_with_torch():
    """Density and mean are torch's if that is accurate (float64, |l| <= 12), and float32 agrees with float64."""
    logits, x = torch.linspace(-12, 12, 101, dtype=FLOAT)[:, None], torch.linspace(0, 1, 11, dtype=FLOAT)
    ours, theirs = ContinuousBernoulli()(logits), TorchContinuousBernoulli(logits=logits)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x), rtol=0, atol=1e-9)
    torch.testing.assert_close(ours.mean, theirs.mean, rtol=0, atol=1e-6)
    single = ContinuousBernoulli()(logits.float())
    torch.testing.assert_close(single.log_prob(x.float()).double(), ours.log_prob(x), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("logit", [-40, -3, 0, 0.01, 8, 40])
def test_continuous_bernoulli_samples(logit):
    """Samples are in [0, 1] and have the mean of the distribution."""
    torch.manual_seed(0)
    d = ContinuousBernoulli()(number(logit, torch.float32))
    x = d.sample(torch.Size([40_000])).double()
    assert x.min() >= 0
    assert x.max() <= 1
    assert abs(float(x.mean() - d.mean)) < 5 * float(x.std()) / 200


@pytest.mark.parametrize("logit", LOGITS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_continuous_bernoulli_quantiles(logit, dtype):
    """F(x) = expm1(l x) / expm1(l) at x = icdf(u) is u; x is in [0, 1] also for u = 0, which can be drawn."""
    u = torch.linspace(0, 1, 21, dtype=dtype)
    parameter = number(logit, dtype, requires_grad=True)
    d = ContinuousBernoulli()(parameter)
    (slope,) = torch.autograd.grad(d.icdf(u[10]), parameter)
    assert slope.isfinite()
    x = d.icdf(u).detach().double()
    assert 0 <= x.min() <= x.max() <= 1
    cdf = torch.special.expm1(logit * x) / math.expm1(logit) if logit else x
    torch.testing.assert_close(cdf, u.double(), rtol=0, atol=2e-5)  # the family takes it as uniform for tiny |l|
    if abs(logit) > 1e-3:
        torch.testing.assert_close(cdf, u.double(), rtol=0, atol=1e-12 if dtype == FLOAT else 1e-5)


# Discretized logistic.

EXTREMES = [(loc, s) for loc in (-50, -0.4, 0, 1 / 510, 0.37, 1, 3, 50) for s in (-30, -7, -4.5, -1, 2, 8, 20)]


@pytest.mark.parametrize(("loc", "log_scale"), EXTREMES)
def test_discretized_logistic_is_a_mass(loc, log_scale):
    """The 256 probabilities sum to 1, with the tails in the outer levels, and have finite gradients in float32."""
    log_mass = DiscretizedLogistic()(number(loc), number(log_scale)).log_prob(LEVELS)
    assert log_mass.exp().sum().item() == pytest.approx(1, abs=1e-12)
    parameters = [number(v, torch.float32, requires_grad=True) for v in (loc, log_scale)]
    log_mass = DiscretizedLogistic()(*parameters).log_prob(LEVELS.float())
    assert log_mass.double().exp().sum().item() == pytest.approx(1, abs=1e-4)
    for level in (0, 1, 100, 254, 255):
        slopes = torch.autograd.grad(log_mass[level], parameters, retain_graph=True)
        assert all(math.isfinite(slope) for slope in slopes)


@pytest.mark.parametrize(("loc", "log_scale"), [(0.5, -1), (0.2, -3), (0.99, -2), (-0.1, 0), (0.501, -4)])
def test_discretized_logistic_mass(loc, log_scale):
    """P(X = k) = F((k + 1/2) / 255) - F((k - 1/2) / 255), by scipy, from the tail that keeps the digits."""
    edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 255, [np.inf]])
    logistic = stats.logistic(loc, math.exp(log_scale))
    mass = np.where(edges[1:] < loc, np.diff(logistic.cdf(edges)), -np.diff(logistic.sf(edges)))
    d = DiscretizedLogisticDistribution(number(loc), number(log_scale))
    np.testing.assert_allclose(d.log_prob(LEVELS).numpy(), np.log(mass), rtol=1e-9, atol=1e-9)
    assert d.mean.item() == pytest.approx(float((LEVELS * torch.tensor(mass)).sum()), abs=1e-12)


def test_discretized_logistic_far_tail():
    """In the far tail the probability is exp(-a) (1 - exp(a - b)), where a difference of two sigmoids would be 0."""
    scale, x = math.exp(-6), 200 / 255
    a, b = ((x - 0.01 + side / 510) / scale for side in (-1, 1))
    expected = -a + math.log(-math.expm1(a - b))
    assert expected < -300
    for dtype, rel in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        d = DiscretizedLogisticDistribution(number(0.01, dtype), number(-6, dtype))
        assert d.log_prob(number(x, dtype)).item() == pytest.approx(expected, rel=rel)


@pytest.mark.parametrize(("loc", "log_scale"), [(0.5, -3), (0.02, -2), (0.9, -5), (1.3, -1.5), (0.3, 1)])
def test_discretized_logistic_samples(loc, log_scale):
    """Samples are k / 255 exactly, and their frequencies fit the probabilities (Pearson's chi-square)."""
    torch.manual_seed(0)
    num = 100_000
    d = DiscretizedLogisticDistribution(number(loc, torch.float32), number(log_scale, torch.float32))
    x = d.sample((num,))
    assert_frequencies(x, DiscretizedLogisticDistribution(number(loc), number(log_scale)).log_prob(LEVELS).exp())


def assert_frequencies(x, mass):
    """Check that samples x are k / 255 exactly, and that their frequencies fit (Pearson's chi-square)."""
    levels = (x.double() * 255).round()
    assert torch.equal(x, levels.float() / 255)
    expected = len(x) * mass
    counts = torch.bincount(levels.long(), minlength=256).double()
    often = expected >= 10
    square = float(((counts - expected).square() / expected)[often].sum())
    freedom = int(often.sum())
    assert square < freedom + 6 * math.sqrt(2 * freedom)
    assert float((counts - expected)[~often].sum().abs()) < 6 * math.sqrt(float(expected[~often].sum())) + 1


# Mixture of discretized logistics.


def mixture_params(dtype=FLOAT):
    """Raw parameters, each (), of three components: wide, narrow and outside the data range."""
    numbers = (0.3, -1.0, 1.2, 0.4, 0.77, 1.1, -1.5, -4.0, -2.5)
    return [number(value, dtype) for value in numbers]


def test_mixture_mass():
    """P(k) = sum_i pi_i P_i(k), with its sum, mean and samples."""
    params = mixture_params()
    d = MixtureOfDiscretizedLogistics(3)(*params)
    single = DiscretizedLogistic()
    masses = torch.stack([single(params[3 + i], params[6 + i]).log_prob(LEVELS).exp() for i in range(3)])
    mass = torch.softmax(torch.stack(params[:3]), 0) @ masses
    torch.testing.assert_close(d.log_prob(LEVELS).exp(), mass, rtol=1e-12, atol=0)
    assert mass.sum().item() == pytest.approx(1, abs=1e-12)
    assert d.mean.item() == pytest.approx(float(LEVELS @ mass), abs=1e-12)
    torch.manual_seed(0)
    assert_frequencies(MixtureOfDiscretizedLogistics(3)(*mixture_params(torch.float32)).sample((100_000,)), mass)


def test_mixture_of_one_or_of_equals():
    """One component is the single logistic to the last bit, and so are equal components with any weights."""
    loc, log_scale, weights = randn(4, 5, seed=1), randn(4, 5, seed=2) - 3, randn(3, 4, 5, seed=3)
    x = (255 * torch.rand(4, 5, dtype=FLOAT, generator=generator(4))).round() / 255
    single = DiscretizedLogistic()(loc, log_scale)
    one = MixtureOfDiscretizedLogistics(1)(weights[0], loc, log_scale)
    assert torch.equal(one.log_prob(x), single.log_prob(x))
    assert torch.equal(one.mean, single.mean)
    equal = MixtureOfDiscretizedLogistics(3)(*weights, *[loc] * 3, *[log_scale] * 3)
    torch.testing.assert_close(equal.log_prob(x), single.log_prob(x), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="num_components must be >= 1, got 0"):
        MixtureOfDiscretizedLogistics(0)


@pytest.mark.parametrize(("loc", "log_scale"), EXTREMES)
def test_mixture_at_extremes(loc, log_scale):
    """With an extreme component of any weight, the probabilities sum to 1 and have finite gradients in float32."""
    for weight in (-50, 0, 50):
        values = (weight, 0, loc, 0.5, log_scale, -2)
        log_mass = MixtureOfDiscretizedLogistics(2)(*map(number, values)).log_prob(LEVELS)
        assert log_mass.exp().sum().item() == pytest.approx(1, abs=1e-12)
        parameters = [number(v, torch.float32, requires_grad=True) for v in values]
        log_mass = MixtureOfDiscretizedLogistics(2)(*parameters).log_prob(LEVELS.float())
        for level in (0, 1, 128, 254, 255):
            slopes = torch.autograd.grad(log_mass[level], parameters, retain_graph=True)
            assert all(math.isfinite(slope) for slope in slopes)


# Categorical.


def test_categorical_mass():
    """log P(k) = logits_k - logsumexp(logits) for each pixel, with its sum, mean and samples."""
    logits = 3 * randn(2, 3, 256, seed=1)  # K = 2 samples of 3 pixels
    d = Categorical()(*logits.unbind(-1))
    assert d.batch_shape == (2, 3)
    log_mass = torch.stack([d.log_prob(level.expand(3)) for level in LEVELS], -1)
    torch.testing.assert_close(log_mass, logits.log_softmax(-1), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(log_mass.exp().sum(-1), torch.ones(2, 3, dtype=FLOAT), rtol=0, atol=1e-12)
    torch.testing.assert_close(d.mean, log_mass.exp() @ LEVELS, rtol=0, atol=1e-12)
    below = torch.stack([d.log_prob(level.expand(3)) for level in LEVELS * (1 - 1e-14)], -1)
    torch.testing.assert_close(below, log_mass, rtol=0, atol=0)  # what rounds to level k is level k
    single = d.log_prob(LEVELS[[0, 77, 255]].float())  # k / 255 in float32 is level k too
    torch.testing.assert_close(single, log_mass[:, torch.arange(3), [0, 77, 255]], rtol=0, atol=0)
    torch.manual_seed(0)
    x = Categorical()(*logits.float().unbind(-1)).sample((50_000,))
    assert x.shape == (50_000, 2, 3)
    assert_frequencies(x[:, 1, 2], log_mass[1, 2].exp())


# Families as such.# Families as such.


@pytest.mark.parametrize(
    ("family", "tolerance"),
    [
        (FixedScaleNormal(), 1e-12),
        (SharedScaleNormal(), 1e-12),
        (Normal(), 1e-12),
        (Bernoulli(), 1e-12),
        (ContinuousBernoulli(), 1e-7),
        (DiscretizedLogistic(), 0.1),
        (OptimalScaleNormal(), 1e-12),
        (Laplace(), 1e-12),
        (MixtureOfDiscretizedLogistics(4), 0.1),
        (Categorical(), 1e-9),
    ],
)
def test_params_for_mean(family, tolerance):
    """A decoder with output 0, initialized at a mean image, has that mean. With means of 0 and 1 it is finite."""

    class Silent(nn.Module):
        def __init__(self, in_shape, out_shape):
            super().__init__()
            self.out_shape = out_shape

        def forward(self, inputs, context=None):
            return inputs.new_zeros(len(inputs), *self.out_shape)

    mean = torch.linspace(0.03, 0.97, 12, dtype=FLOAT).reshape(2, 2, 3)
    decoder = Conditional((4,), (2, 2, 3), Silent, family).double()
    decoder.init_mean(mean)
    torch.testing.assert_close(decoder(randn(5, 4)).mean, mean.expand(5, 2, 2, 3), rtol=0, atol=tolerance)
    decoder.init_mean(mean.round())
    px = decoder(randn(5, 4))
    assert (px.mean - mean.round()).abs().max() < max(tolerance, 0.021)
    assert px.log_prob(mean.round()).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    "family",
    [
        Normal(),
        DiscretizedLogistic(),
        ContinuousBernoulli(),
        FixedScaleNormal(0.1),
        OptimalScaleNormal(),
        Laplace(),
        MixtureOfDiscretizedLogistics(3),
        Categorical(),
    ],
)
def test_half_precision_outputs_are_converted(family, dtype):
    """float16 and bfloat16 outputs of a network become float32 before 784 terms are summed; float64 is kept."""
    net = nn.Linear(3, family.num_outputs * 784)
    conditional = Conditional((3,), (784,), lambda *_: Half(net, dtype), family)
    conditional.offset = conditional.offset.to(dtype)  # as if the whole model had this type
    inputs = torch.randint(-8, 9, (5, 3), generator=generator(1)) / 4  # exact in any type
    x = (255 * torch.rand(5, 784, generator=generator(2))).round() / 255
    log_px = conditional(inputs).log_prob(x)
    wide = torch.promote_types(dtype, torch.float32)
    assert log_px.dtype == wide
    outputs = net(inputs).to(dtype).to(wide).chunk(family.num_outputs, dim=1)
    torch.testing.assert_close(log_px, family(*outputs).log_prob(x).sum(1), rtol=1e-6, atol=1e-3)
    exact = family(*(output.double() for output in outputs)).log_prob(x.double()).sum(1)
    torch.testing.assert_close(log_px.double(), exact, rtol=1e-5, atol=1e-2)


class Half(nn.Module):
    """A network whose output has the given type, as under autocast."""

    def __init__(self, net, dtype):
        super().__init__()
        self.net, self.dtype = net, dtype

    def forward(self, inputs, context=None):
        return self.net(inputs.to(self.net.weight.dtype)).to(self.dtype)
