"""Joint posteriors: full covariance against torch and PPCA, and the sphere against scipy and quadrature."""

import math

import numpy as np
import pytest
import torch
from conftest import config
from ppca import PPCA, data_with_spectrum, generator, inverse_soft_floor, linear, rotation
from scipy import integrate, special, stats
from torch.distributions import Independent, Laplace, MultivariateNormal, Normal, kl_divergence

from vaezoo.distributions import VonMisesFisherDistribution
from vaezoo.distributions.bessel import log_area, log_bessel_and_ratio
from vaezoo.distributions.von_mises_fisher import NODES, WEIGHTS
from vaezoo.errors import ConfigError
from vaezoo.families import FixedScaleNormal, FullCovarianceNormal, VonMisesFisher
from vaezoo.families import Normal as NormalFamily
from vaezoo.instantiate import build
from vaezoo.models import SVAE, FullCovVAE, SigmaVAE
from vaezoo.priors import HypersphericalUniform
from vaezoo.trace import Latent, Trace

FLOAT = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=generator(seed))


def raw_outputs(dim, batch=4, seed=0):
    """Raw outputs for a full covariance, each (batch, D)."""
    return randn(FullCovarianceNormal((dim,)).num_outputs, batch, dim, seed=seed).unbind()


# Full covariance.


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 7, 8])
def test_factor(dim):
    """L = diag(s) (I + N / sqrt(D)): lower triangular, positive diagonal, each number of N once."""
    family = FullCovarianceNormal((dim,))
    loc, log_scale, *below = raw_outputs(dim)
    q = family(loc, log_scale, *below)
    assert q.batch_shape == (4,)
    assert q.event_shape == (dim,)
    tril = q.scale_tril
    assert torch.equal(tril, tril.tril())
    scale = NormalFamily()(loc, log_scale).scale
    torch.testing.assert_close(tril.diagonal(dim1=1, dim2=2), scale, rtol=0, atol=0)
    numbers = torch.arange(1.0, 1 + len(below) * dim, dtype=FLOAT).reshape(len(below), dim)
    relative = family(loc[0], torch.full_like(loc[0], 30.0), *numbers).scale_tril / math.exp(30) * math.sqrt(dim)
    strict = relative[torch.ones(dim, dim).tril(-1) == 1]
    torch.testing.assert_close(strict, torch.arange(1.0, 1 + dim * (dim - 1) // 2, dtype=FLOAT))
    torch.testing.assert_close(q.mean, loc)
    torch.testing.assert_close(q.variance, (tril @ tril.mT).diagonal(dim1=1, dim2=2), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_full_diagonal_kl(dim):
    """The closed form is torch's KL of two multivariate normals, and if N = 0, that of two diagonal normals."""
    q = FullCovarianceNormal((dim,))(*raw_outputs(dim))
    loc, log_scale = randn(2, dim, seed=1)
    p = Independent(Normal(loc, log_scale.exp()), 1)
    latent = Latent(q, p, q.rsample(torch.Size([3])))
    expected = kl_divergence(q, MultivariateNormal(loc, scale_tril=torch.diag(log_scale.exp())))
    torch.testing.assert_close(latent.kl, expected, rtol=1e-12, atol=1e-12)
    assert latent.kl_per_dim is None
    mean, raw, *below = raw_outputs(dim)
    diagonal = Independent(NormalFamily()(mean, raw), 1)
    full = FullCovarianceNormal((dim,))(mean, raw, *(torch.zeros_like(output) for output in below))
    samples = []
    for distribution in (diagonal, full):
        torch.manual_seed(0)
        samples.append(distribution.rsample(torch.Size([3])))
    torch.testing.assert_close(*samples, rtol=1e-14, atol=1e-14)
    z = samples[0]
    torch.testing.assert_close(full.log_prob(z), diagonal.log_prob(z), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(kl_divergence(full, p), Latent(diagonal, p, z).kl, rtol=1e-12, atol=1e-12)


def test_other_priors_have_no_closed_form():
    """For priors other than a diagonal normal of vectors, the KL is estimated at the samples."""
    torch.manual_seed(0)
    q = FullCovarianceNormal((3,))(*raw_outputs(3))
    zero, one = torch.zeros(2, 3, dtype=FLOAT), torch.ones(2, 3, dtype=FLOAT)
    for p in (Independent(Laplace(zero[0], one[0]), 1), Independent(Normal(zero, one), 2)):
        with pytest.raises(NotImplementedError, match="no closed form"):
            kl_divergence(q, p)
    p = Independent(Laplace(zero[0], one[0]), 1)
    latent = Latent(q, p, q.rsample(torch.Size([5])))
    torch.testing.assert_close(latent.kl, (latent.log_q - latent.log_p).mean(0))
    with pytest.raises(ValueError, match=r"a full covariance needs a latent of shape \(D,\), got \(2, 3\)"):
        FullCovarianceNormal((2, 3))


@pytest.mark.parametrize("turned", [False, True])
def test_full_covariance_closes_the_gap_to_the_evidence(turned):
    """With q(z | x) set to PPCA's p(z | x), which a rotation makes correlated, ELBO = log p(x), for each x and
    with no variance; the diagonal loses 1/2 (sum ln M_dd - ln det M).
    """
    spectrum = torch.tensor([4.2, 1.9, 1.0, 0.6, 0.4, 0.2], dtype=FLOAT)
    x, mean, axes = data_with_spectrum(spectrum, num=40)
    dim = 3
    turn = rotation(dim, 11) if turned else torch.eye(dim, dtype=FLOAT)
    ppca = PPCA.fit(spectrum, mean, axes, dim, turn)
    parts = {"encoder": linear, "decoder": linear, "likelihood": FixedScaleNormal(math.sqrt(ppca.variance))}
    model = FullCovVAE((1, 2, 3), latent_dim=dim, min_log_scale=-7.0, **parts).double()
    tril = torch.linalg.cholesky(ppca.posterior(x[:1]).covariance_matrix[0])
    scale = tril.diagonal()
    relative = (tril / scale[:, None])[*torch.tril_indices(dim, dim, -1)] * math.sqrt(dim)
    gain = torch.linalg.inv(ppca.m) @ ppca.weight.T
    with torch.no_grad():
        (decoder,), (encoder,) = model.decoder.net.layers, model.encoder.net.layers
        decoder.weight.copy_(ppca.weight)
        decoder.bias.copy_(ppca.mean)
        encoder.weight.zero_()[:dim] = gain
        raw = inverse_soft_floor(scale.log(), model.encoder.family.min_log_scale)
        encoder.bias.copy_(torch.cat([-gain @ ppca.mean, raw, relative]))
    x = x.unflatten(1, (1, 2, 3))
    evidence = ppca.evidence.log_prob(x.flatten(1))
    torch.manual_seed(0)
    with torch.no_grad():
        log_w = model(x, num_samples=7).log_w
        torch.testing.assert_close(log_w, evidence.expand(7, -1), rtol=0, atol=1e-9)
        # Points whose mean is exact for quadratic functions, such as log p(x | z).
        q = model.encoder(x)
        points = math.sqrt(dim) * torch.cat([torch.eye(dim, dtype=FLOAT), -torch.eye(dim, dtype=FLOAT)])
        z = q.mean + torch.einsum("bij,kj->kbi", q.scale_tril, points)
        trace = Trace(x, model.decoder(z), (Latent(q, model.prior(), z),))
        torch.testing.assert_close(trace.elbo, evidence, rtol=0, atol=1e-9)
    assert (relative.abs().max() > 0.1) == turned


# Bessel functions.

ORDERS = [0, 0.5, 1, 1.5, 2, 3.5, 9, 19.5, 24, 25, 30.5, 49.5, 50]


@pytest.mark.parametrize("order", ORDERS)
def test_bessel(order):
    """ln I_v(kappa), for kappa from 1e-3 to 1e4, is scipy's; the derivative of ln 0F1 is the ratio A, and
    A' = 1 - A^2 - (2 v + 1) A / kappa.
    """
    kappa = torch.logspace(-3, 4, 141, dtype=FLOAT, requires_grad=True)
    log_f, ratio = log_bessel_and_ratio(order, kappa)
    k = kappa.detach().numpy()
    log_bessel = log_f.detach().numpy() + order * np.log(k / 2) - special.gammaln(order + 1) - k
    scipys = special.ive(order, k)
    there = scipys > 1e-290  # scipy's underflows at small kappa
    assert there.sum() > 100
    np.testing.assert_allclose(np.exp(log_bessel[there]), scipys[there], rtol=2e-11)
    above = special.ive(order + 1, k)
    there = above > 1e-290
    np.testing.assert_allclose(ratio.detach().numpy()[there], above[there] / scipys[there], rtol=2e-13)
    (slope,) = torch.autograd.grad(log_f.sum(), kappa, retain_graph=True)
    torch.testing.assert_close(slope, ratio.detach(), rtol=1e-13, atol=0)
    (slope,) = torch.autograd.grad(ratio.sum(), kappa)
    exact = 1 - ratio.square() - (2 * order + 1) * ratio / kappa
    torch.testing.assert_close(slope, exact.detach(), rtol=0, atol=1e-14)


def test_bessel_limits():
    """ln 0F1(v + 1; kappa^2 / 4) = kappa^2 / (4 (v + 1)) at small kappa, down to where it underflows."""
    for order in (0, 0.5, 9, 100):
        kappa = torch.tensor([1e-5, 1e-9, 1e-30, 1e-150], dtype=FLOAT)
        log_f, ratio = log_bessel_and_ratio(order, kappa)
        torch.testing.assert_close(log_f, kappa.square() / (4 * (order + 1)), rtol=1e-9, atol=1e-15)
        torch.testing.assert_close(ratio, kappa / (2 * (order + 1)), rtol=1e-9, atol=0)
    # I_1/2 is elementary: 0F1 = sinh(kappa) / kappa.
    log_f, ratio = log_bessel_and_ratio(0.5, torch.tensor(3.0, dtype=FLOAT))
    assert log_f.item() == pytest.approx(math.log(math.sinh(3) / 3), abs=2e-15)
    assert ratio.item() == pytest.approx(1 / math.tanh(3) - 1 / 3, abs=2e-15)


def test_the_quadrature_is_exact_for_polynomials():
    """Of degree 2 n - 1 at most, on [0, 1]."""
    for power in (0, 1, 2, 63, 127):
        assert (np.array(WEIGHTS) * np.array(NODES) ** power).sum() == pytest.approx(1 / (power + 1), rel=1e-13)


# The von Mises-Fisher.


def vmf(dim, kappa, seed=1, dtype=FLOAT):
    """A distribution around a random direction, batch shape ()."""
    mu = torch.nn.functional.normalize(randn(dim, seed=seed), dim=0)
    return VonMisesFisherDistribution(mu.to(dtype), torch.tensor(kappa, dtype=dtype))


@pytest.mark.parametrize("kappa", [1e-3, 0.5, 5.0, 60.0, 1000.0])
def test_density_on_the_circle_and_the_sphere(kappa):
    """The density integrates to 1 on S^1 (trapezoid in the angle) and S^2 (Gauss-Legendre by trapezoid), and its
    mean is A(kappa) mu; on S^2, A = coth kappa - 1 / kappa.
    """
    angle = torch.linspace(0, 2 * math.pi, 2001, dtype=FLOAT)[:-1]
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    d = vmf(2, kappa)
    mass = d.log_prob(circle).exp() * (2 * math.pi / 2000)
    assert mass.sum().item() == pytest.approx(1, abs=1e-11)
    torch.testing.assert_close(mass @ circle, d.mean, rtol=0, atol=1e-11)
    nodes, weights = np.polynomial.legendre.leggauss(300)
    height, angle = torch.tensor(nodes)[:, None], angle[::4]
    radius = (1 - height.square()).sqrt()
    sphere = torch.stack(torch.broadcast_tensors(radius * angle.cos(), radius * angle.sin(), height), -1)
    d = vmf(3, kappa)
    mass = d.log_prob(sphere).exp() * torch.tensor(weights)[:, None] * (2 * math.pi / 500)
    assert mass.sum().item() == pytest.approx(1, abs=1e-11)
    torch.testing.assert_close((mass[..., None] * sphere).sum((0, 1)), d.mean, rtol=0, atol=1e-11)
    torch.testing.assert_close(d.mean, (1 / math.tanh(kappa) - 1 / kappa) * d.loc, rtol=1e-9, atol=0)


@pytest.mark.parametrize("dim", [2, 3, 4, 11, 40])
@pytest.mark.parametrize("kappa", [0.1, 3.0, 200.0])
def test_density_agrees_with_scipy(dim, kappa):
    """log q(z) is scipy's, and the log density of the uniform is minus the logarithm of the area."""
    d = vmf(dim, kappa)
    z = torch.nn.functional.normalize(randn(50, dim, seed=2), dim=1)
    theirs = stats.vonmises_fisher(d.loc.numpy(), kappa)
    np.testing.assert_allclose(d.log_prob(z).numpy(), theirs.logpdf(z.numpy()), rtol=0, atol=1e-10)
    assert kl(dim, kappa).item() == pytest.approx(log_area(dim) - float(theirs.entropy()), abs=1e-9)
    uniform = HypersphericalUniform((dim,)).double()()
    area = 2 * math.pi ** (dim / 2) / math.gamma(dim / 2)
    torch.testing.assert_close(uniform.log_prob(z), torch.full((50,), -math.log(area), dtype=FLOAT))


def kl(dim, kappa):
    return kl_divergence(vmf(dim, kappa), HypersphericalUniform((dim,)).double()())


def test_kl_to_the_uniform():
    """On S^2, kappa coth kappa - 1 + ln(kappa / sinh kappa): 1.30308 at kappa = 5; -> 0 with kappa; convex in scale."""
    assert kl(3, 5.0).item() == pytest.approx(1.30308, abs=5e-6)
    for kappa in (0.01, 1.0, 5.0, 100.0):
        closed = kappa / math.tanh(kappa) - 1 + math.log(kappa / math.sinh(kappa))
        assert kl(3, kappa).item() == pytest.approx(closed, abs=1e-12)
    for dim in (2, 3, 11, 50):
        values = [kl(dim, kappa).item() for kappa in (1e-6, 1e-4, 1e-2, 1.0, 100.0, 1e4)]
        assert values == sorted(values)
        assert values[0] == pytest.approx(0, abs=1e-12)
        # The other form, with ln I_v itself (oracle of the reference): loses digits, so 1e-8.
        for kappa in (1.0, 7.0, 100.0):
            half, ive = dim / 2, special.ive(dim / 2 - 1, kappa)
            closed = kappa * special.ive(half, kappa) / ive + (half - 1) * math.log(kappa) - math.log(ive) - kappa
            closed += -half * math.log(2 * math.pi) + half * math.log(math.pi) + math.log(2) - math.lgamma(half)
            assert kl(dim, kappa).item() == pytest.approx(closed, abs=1e-10)


@pytest.mark.parametrize("dim", [2, 3, 11])
def test_kl_is_the_mean_of_the_log_ratio(dim):
    """E_q[log q(z) - log p(z)] at the samples is the closed form, within Monte Carlo error; z lies on the sphere."""
    torch.manual_seed(0)
    q, p = vmf(dim, 4.0), HypersphericalUniform((dim,)).double()()
    q = q.expand(torch.Size([2]))
    latent = Latent(q, p, q.rsample(torch.Size([50_000])))
    draws = latent.log_q - latent.log_p
    assert latent.kl_per_dim is None
    assert latent.kl.shape == (2,)
    assert ((draws.mean(0) - latent.kl).abs() < 5 * draws.std(0) / math.sqrt(len(draws))).all()
    torch.testing.assert_close(latent.z.norm(dim=-1), torch.ones(50_000, 2, dtype=FLOAT), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dim", [2, 3, 4, 11, 40])
@pytest.mark.parametrize("kappa", [1e-2, 1.0, 10.0, 1e4])
def test_sampler(dim, kappa):
    """mu'z has the density in proportion to exp(kappa w) (1 - w^2)^((D - 3) / 2) (Kolmogorov-Smirnov), and the mean
    A(kappa); what is left of z has no direction.
    """
    torch.manual_seed(0)
    num, d = 20_000, vmf(dim, kappa)
    z = d.sample(torch.Size([num]))
    w = (z * d.loc).sum(-1)
    assert abs(w.mean().item() - (d.mean @ d.loc).item()) < 5 * w.std().item() / math.sqrt(num)
    rest = torch.nn.functional.normalize(z - w[:, None] * d.loc, dim=-1)
    away = torch.linalg.qr(torch.cat([d.loc[:, None], torch.eye(dim, dtype=FLOAT)[:, : dim - 1]], 1)).Q[:, 1:]
    assert ((rest @ away).mean(0).abs() < 5 / math.sqrt(num * max(dim - 1, 1))).all()
    # The distribution function, by trapezoid in the angle, where the density is smooth.
    reach = min(math.pi, 12 * math.sqrt(max(dim, 4) / kappa))
    angle = np.linspace(1e-12, reach, 20_001)
    density = np.exp(kappa * (np.cos(angle) - 1) + (dim - 2) * np.log(np.sin(np.minimum(angle, math.pi - 1e-12))))
    total = integrate.cumulative_simpson(density / density.max(), x=angle, initial=0)
    angles = torch.atan2((z - w[:, None] * d.loc).norm(dim=-1), w).numpy()
    assert stats.kstest(angles, lambda a: np.interp(a, angle, total / total[-1])).pvalue > 1e-3


def test_sphere_mean_in_three_dimensions():
    """At D = 3, E[mu'z] = coth kappa - 1 / kappa."""
    torch.manual_seed(1)
    for kappa in (0.5, 5.0, 50.0):
        d = vmf(3, kappa)
        w = d.sample(torch.Size([100_000])) @ d.loc
        assert abs(w.mean().item() - (1 / math.tanh(kappa) - 1 / kappa)) < 5 * w.std().item() / math.sqrt(len(w))


def test_proposals_are_often_accepted():
    """Each with a probability above 0.65, so that all 32 fail with a probability below 1e-14."""
    torch.manual_seed(0)
    for dim in (2, 3, 5, 30, 300):
        for kappa in (1e-3, 1.0, 30.0, 1e3, 1e6):
            angles, accepted = vmf(dim, kappa).propose(torch.Size([2000]))
            assert angles.isfinite().all()
            assert accepted.double().mean() > 0.65
    assert 0.35**VonMisesFisherDistribution.num_proposals < 1e-14


@pytest.mark.parametrize("dim", [2, 3, 4, 11, 50])
@pytest.mark.parametrize("kappa", [1e-2, 1.0, 10.0, 300.0, 1e4])
def test_slope_of_the_angle(dim, kappa):
    """da / dkappa = -(dF / dkappa) / f, with F from scipy's quadrature; its mean gives dE[cos a] / dkappa = A'."""
    d = vmf(dim, kappa)
    mean = log_bessel_and_ratio(dim / 2 - 1, d.kappa)[1].item()
    torch.manual_seed(0)
    drawn = torch.acos((d.sample(torch.Size([12])) @ d.loc).clamp(-1, 1))
    for a, slope in zip(drawn.tolist(), d.angle_slope(drawn).tolist(), strict=True):

        def part(b, a=a):
            density = math.exp(kappa * (math.cos(b) - math.cos(a))) * (math.sin(b) / math.sin(a)) ** (dim - 2)
            return (math.cos(b) - mean) * density

        exact = -integrate.quad(part, 0, a, epsabs=0, epsrel=1e-11, limit=200)[0]
        assert slope == pytest.approx(exact, rel=1e-8, abs=1e-13)
    # E[-sin(a) da/dkappa] = A', by trapezoid over the angle.
    angle = torch.linspace(1e-9, min(math.pi - 1e-9, 9 * math.sqrt(max(dim, 4) / kappa)), 4001, dtype=FLOAT)
    log_density = kappa * (angle.cos() - 1) + (dim - 2) * angle.sin().log()
    seen = log_density > log_density.max() - 100  # no sample lies beyond
    angle, density = angle[seen], (log_density[seen] - log_density.max()).exp()
    mean_slope = torch.trapezoid(-angle.sin() * d.angle_slope(angle) * density, angle) / torch.trapezoid(density, angle)
    exact = 1 - mean**2 - (dim - 1) * mean / kappa
    assert mean_slope.item() == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("dim", [2, 3, 20])
def test_slope_near_the_far_pole(dim):
    """Near -mu, where nearly no probability is left, the slope is still accurate."""
    d = vmf(dim, 2.0)
    mean = log_bessel_and_ratio(dim / 2 - 1, d.kappa)[1].item()
    for a in (2.8, 3.0, 3.14):

        def part(b, a=a):
            density = math.exp(2 * (math.cos(b) - math.cos(a))) * (math.sin(b) / math.sin(a)) ** (dim - 2)
            return (math.cos(b) - mean) * density

        exact = integrate.quad(part, a, math.pi, epsabs=0, epsrel=1e-12)[0]
        assert d.angle_slope(torch.tensor([a], dtype=FLOAT)).item() == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("dim", [2, 3, 8])
@pytest.mark.parametrize("kappa", [0.7, 6.0, 80.0])
def test_sample_gradient_is_unbiased(dim, kappa):
    """The gradients of E[c'z] = A c'mu and E[(c'z)^2] = A / kappa |c|^2 + (1 - D A / kappa) (c'mu)^2, for kappa and
    for the direction, are the means of those through the samples.
    """
    torch.manual_seed(0)
    num, c = 40_000, randn(dim, seed=3)
    raw, k = randn(dim, seed=4).requires_grad_(), torch.tensor(kappa, dtype=FLOAT, requires_grad=True)
    mu = torch.nn.functional.normalize(raw, dim=0)
    ratio = log_bessel_and_ratio(dim / 2 - 1, k)[1]
    closed = [ratio * (c @ mu), ratio / k * (c @ c) + (1 - dim * ratio / k) * (c @ mu) ** 2]
    raws, ks = raw.detach().repeat(num, 1).requires_grad_(), k.detach().repeat(num).requires_grad_()
    z = VonMisesFisherDistribution(torch.nn.functional.normalize(raws, dim=-1), ks).rsample()
    for exact, value in zip(closed, [z @ c, (z @ c).square()], strict=True):
        assert (value.mean() - exact).abs() < 5 * value.std() / math.sqrt(num)
        slopes = torch.autograd.grad(exact, [raw, k], retain_graph=True)
        for slope, draws in zip(slopes, torch.autograd.grad(value.sum(), [raws, ks], retain_graph=True), strict=True):
            error = draws.std(0) / math.sqrt(num)
            assert ((draws.mean(0) - slope).abs() < 5 * error + 1e-12).all()
            assert (error < 0.02).all()  # no heavy tails


def test_sphere_in_single_precision():
    """Any float32 outputs give finite samples, densities and gradients; kappa >= 1, point estimates have length 1."""
    torch.manual_seed(0)
    family = VonMisesFisher((5,))
    for size in (1e-3, 1.0, 1e2, 1e4):
        direction, raw = (size * torch.randn(2, 6, 5)).requires_grad_()
        direction.retain_grad()
        raw.retain_grad()
        q = family(direction, raw)
        assert (q.concentration >= 1).all()
        p = HypersphericalUniform((5,))()
        latent = Latent(q, p, q.rsample(torch.Size([4])))
        assert latent.z.dtype == latent.log_q.dtype == latent.kl.dtype == torch.float32
        (latent.log_q.sum() + latent.kl.sum() + latent.z.sum()).backward()
        assert direction.grad.isfinite().all()
        assert raw.grad.isfinite().all()
        assert latent.kl.isfinite().all()
        torch.testing.assert_close(family.point_estimate(direction, raw).norm(dim=-1), torch.ones(6))
        exact = VonMisesFisherDistribution(q.loc.double(), q.concentration.double())
        torch.testing.assert_close(latent.kl.double(), kl_divergence(exact, p), rtol=1e-6, atol=1e-6)


def test_uniform_samples():
    """Uniform on the sphere: mean 0 and covariance I / D."""
    torch.manual_seed(0)
    z = HypersphericalUniform((4,)).double()().sample(torch.Size([100_000]))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(100_000, dtype=FLOAT))
    assert z.mean(0).abs().max() < 5 * 0.5 / math.sqrt(1e5)
    torch.testing.assert_close(z.T @ z / 1e5, torch.eye(4, dtype=FLOAT) / 4, rtol=0, atol=5e-3)


# Models.


@pytest.mark.parametrize("latent_dim", [1, 0])
def test_a_sphere_needs_two_dimensions(latent_dim):
    """S^0 is two points, so D = 1 raises at construction."""
    with pytest.raises(ValueError, match=r"latent_dim must be >= 1|a latent of shape \(D,\) with D >= 2, got \(1,\)"):
        SVAE((1, 4, 4), latent_dim=latent_dim)
    assert SVAE((1, 4, 4), latent_dim=2)(torch.zeros(3, 1, 4, 4)).elbo.isfinite().all()


def test_sigma_vae_sets_its_own_likelihood():
    """Its config has none, and another one raises."""
    node = config("model", "model=sigma_vae", "data.shape=[1,4,4]", "model.min_scale=0.02")
    assert "likelihood" not in node
    model = build(node, "model")
    assert model.likelihood.min_scale == 0.02
    assert "byte" in model.likelihood.supported_data
    with pytest.raises(ConfigError, match="SigmaVAE sets this argument itself"):
        build(config("model", "model=sigma_vae", "model/likelihood=laplace", "data.shape=[1,4,4]"), "model")


def test_sigma_vae_loss():
    """loss = D/2 ln MSE + D/2 (ln 2 pi + 1) + KL (Rybkin et al. 2021, eq. 9), and evaluation is a bound, too."""
    torch.manual_seed(0)
    model, x = SigmaVAE((1, 4, 4), momentum=0.1, min_scale=1e-3, latent_dim=3).double(), randn(6, 1, 4, 4)
    trace = model(x, num_samples=3)
    mse = (x - trace.px.mean).square().mean()
    closed = 8 * (mse.log() + math.log(2 * math.pi) + 1) + trace.kl.sum(1).mean()
    assert model.objective(trace)["loss"].item() == pytest.approx(closed.item(), abs=1e-12)
    model.eval()
    z = trace.latent.z
    one_by_one = [model.decode(z[:, i : i + 1]).log_prob(x[i : i + 1]) for i in range(6)]
    together = model.decode(z).log_prob(x)
    torch.testing.assert_close(together, torch.cat(one_by_one, 1), rtol=1e-13, atol=0)  # no example needs the others
