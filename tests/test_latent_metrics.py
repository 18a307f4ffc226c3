"""Metrics of the latent space: closed forms of Gaussian aggregates, the telescoping split, collapse in words."""

import math

import pytest
import torch
from ppca import generator
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from vaezoo.distributions import ExpertMixture, TriangularNormal, VonMisesFisherDistribution
from vaezoo.metrics import latent as latent_module
from vaezoo.metrics.latent import QUANTITIES, JointLatentMetrics, LatentMetrics, collapse_note, verdict
from vaezoo.models import VAE, FullCovVAE
from vaezoo.objectives.aggregate import decompose
from vaezoo.trace import Latent

FLOAT = torch.float64
SPLIT = ("mutual_information", "total_correlation", "dimension_wise_kl")


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=generator(seed))


def standard(size):
    return Independent(Normal(torch.zeros(size, dtype=FLOAT), torch.ones(size, dtype=FLOAT)), 1)


def make(loc, scale, seed=0):
    """What ``update`` takes, of q(z | x_n) = N(loc_n, scale_n^2) and p(z) = N(0, I)."""
    scale = torch.as_tensor(scale, dtype=FLOAT).expand_as(loc)
    z, prior = loc + scale * randn(*loc.shape, seed=seed), standard(loc.shape[1])
    kl_dim = kl_divergence(Normal(loc, scale), prior.base_dist)
    return {"loc": loc, "scale": scale, "z": z, "log_prior": prior.log_prob(z), "kl_dim": kl_dim}


def measure(values, batch=1000, **settings):
    metric = LatentMetrics(**settings)
    for start in range(0, len(values["z"]), batch):
        metric.update(**{name: value[start : start + batch] for name, value in values.items()})
    return metric.compute()


def overlapping(num=40, dims=3):
    """Posteriors that overlap."""
    return make(randn(num, dims, seed=1), 0.3 + randn(num, dims, seed=2).abs(), seed=3)


# The split of the KL.


def test_parts_equal_those_of_the_objective():
    """With B = N the objective on minibatches is exact: the same three numbers. They add up to the sampled KL."""
    values = overlapping()
    q = Independent(Normal(values["loc"], values["scale"]), 1)
    latent = Latent(q, standard(3), values["z"][None])
    found = measure(values)
    for name, exact in zip(SPLIT, decompose(latent), strict=True):
        assert found[name] == pytest.approx(float(exact), rel=1e-12)
    assert sum(found[name] for name in SPLIT) == pytest.approx(float((latent.log_q - latent.log_p).mean()), rel=1e-12)
    parts = found["total_correlation"] + found["dimension_wise_kl"]
    assert found["aggregate_kl"] == pytest.approx(parts, rel=1e-12)
    assert found["mutual_information_ceiling"] == math.log(40)


def test_separate_posteriors():
    """N posteriors far from each other: I(x; z) = ln N, and the rest is KL - ln N."""
    values = make(100.0 * torch.arange(12, dtype=FLOAT)[:, None].expand(12, 2), 0.5)
    found = measure(values)
    rate = float((Normal(values["loc"], 0.5).log_prob(values["z"]).sum(1) - values["log_prior"]).mean())
    assert found["mutual_information"] == pytest.approx(math.log(12), rel=1e-12)
    assert found["aggregate_kl"] == pytest.approx(rate - math.log(12), rel=1e-12)
    # Each marginal tells all of n: TC = D ln N - ln N.
    assert found["total_correlation"] == pytest.approx(math.log(12), rel=1e-12)


def test_equal_posteriors():
    """q(z | x) the same for all x, at its extreme for one x: I = TC = 0."""
    for num in (1, 50):
        found = measure(make(torch.full((num, 3), 0.7, dtype=FLOAT), 0.4))
        assert found["mutual_information"] == pytest.approx(0, abs=1e-12)
        assert found["total_correlation"] == pytest.approx(0, abs=1e-12)
        assert found["active_units"] == 0
    exact = float(kl_divergence(Normal(0.7, 0.4), Normal(0.0, 1.0))) * 3
    many = measure(make(torch.full((4000, 3), 0.7, dtype=FLOAT), 0.4), num_draws=4000)
    assert abs(many["aggregate_kl"] - exact) < 3 * many["aggregate_kl_error"]
    assert not any(name.endswith("_error") for name in measure(make(torch.zeros(1, 2, dtype=FLOAT), 1.0)))  # of one


def three_by_quadrature():
    """Three posteriors in two dimensions, and their I and TC by quadrature on a fine grid."""
    loc = torch.tensor([[-1.0, -0.8], [0.2, 0.1], [1.0, 1.4]], dtype=FLOAT)
    scale = torch.tensor([[0.5, 0.4], [0.3, 0.8], [0.6, 0.5]], dtype=FLOAT)
    axis = torch.linspace(-7, 7, 1401, dtype=FLOAT)
    step = 14 / 1400
    each = Normal(loc, scale).log_prob(axis[:, None, None]).exp()  # (grid, 3, 2)
    pairs = each[:, None, :, 0] * each[None, :, :, 1]  # (grid, grid, 3)
    joint, marginals = pairs.mean(2), each.mean(1)
    tc = (joint * (joint / (marginals[:, None, 0] * marginals[None, :, 1])).log()).sum() * step**2
    information = (pairs * (pairs / joint[..., None]).log()).nan_to_num(0).sum((0, 1)).mean() * step**2
    return loc, scale, float(information), float(tc)


def test_mixture_by_quadrature():
    """A data set of three x, 2,000 times each, is the mixture of three: the integrals are within its errors."""
    loc, scale, information, tc = three_by_quadrature()
    assert 0.5 < information < math.log(3)
    assert tc > 0.1
    found = measure(make(loc.repeat(2000, 1), scale.repeat(2000, 1)), num_draws=6000)
    assert abs(found["mutual_information"] - information) < 3 * found["mutual_information_error"]
    assert abs(found["total_correlation"] - tc) < 3 * found["total_correlation_error"]
    assert found["total_correlation_error"] < 0.02


def test_errors_are_the_spread_over_samples():
    """Over 300 sets of samples, the numbers spread as their errors say."""
    loc, scale, *_ = three_by_quadrature()
    found = [measure(make(loc.repeat(20, 1), scale.repeat(20, 1), seed=s)) for s in range(300)]
    for name in (*SPLIT, "aggregate_kl"):
        spread = torch.tensor([f[name] for f in found]).std()
        error = torch.tensor([f[f"{name}_error"] for f in found]).square().mean().sqrt()
        assert 0.85 < float(spread / error) < 1.15, name


def test_correlated_normal():
    """Narrow posteriors at draws of a correlated normal: TC = -1/2 ln(1 - rho^2), KL(q(z), p(z)) the same."""
    rho, s = 0.9, 0.25
    covariance = torch.tensor([[1, rho], [rho, 1]], dtype=FLOAT)
    inner = torch.linalg.cholesky(covariance - s**2 * torch.eye(2, dtype=FLOAT))
    found = measure(make(randn(4000, 2, seed=5) @ inner.T, s), num_draws=4000)
    tc = -0.5 * math.log(1 - rho**2)
    # Besides the draws' error the aggregate of 4,000 is not quite the normal.
    assert found["total_correlation"] == pytest.approx(tc, abs=0.05)
    assert found["aggregate_kl"] == pytest.approx(tc, abs=0.05)
    assert found["dimension_wise_kl"] == pytest.approx(0, abs=0.02)
    information = 0.5 * float(torch.logdet(covariance)) - 2 * math.log(s)
    assert found["mutual_information"] == pytest.approx(information, abs=0.05)


def test_probabilistic_pca():
    """The best linear VAE: q(z) = p(z), I = 1/2 sum ln(lambda / sigma^2) over the eigenvalues above sigma^2, the
    others' dimensions are collapsed (Lucas et al. 2019).
    """
    eigenvalues, noise = torch.tensor([4.2, 1.9, 1.0, 0.4, 0.3], dtype=FLOAT), 0.5
    kept = eigenvalues.clamp(min=noise)
    loc = randn(4000, 5, seed=6) * (1 - noise / kept).sqrt()
    found = measure(make(loc, (noise / kept).sqrt()), num_draws=4000)
    assert found["mutual_information"] == pytest.approx(0.5 * float((kept / noise).log().sum()), abs=0.1)
    assert found["aggregate_kl"] == pytest.approx(0, abs=0.05)
    assert (found["active_units"], found["active_units_kl"], found["collapsed_units"]) == (3, 3, 2)
    assert verdict(found).text.startswith("no collapse: 3 of 5 dimensions are used (all but the collapsed_units)")


# What must change nothing.


def test_batch_size_and_chunks_change_nothing(monkeypatch):
    values = overlapping()
    found = measure(values)
    assert measure(values, batch=7) == found
    monkeypatch.setattr(latent_module, "MAX_PAIRS", 1)
    assert measure(values) == pytest.approx(found, rel=1e-12)


def test_order_of_dimensions_and_examples_changes_nothing():
    values = overlapping()
    found = measure(values)
    for order in (torch.tensor([2, 0, 1]), torch.tensor([1, 0, 2])):
        turned = {name: value if name == "log_prior" else value[:, order] for name, value in values.items()}
        assert measure(turned) == pytest.approx(found, rel=1e-10)
    order = torch.randperm(40, generator=generator(0))
    assert measure({name: value[order] for name, value in values.items()}) == pytest.approx(found, rel=1e-10)
    grid = {name: value if value.dim() == 1 else value.reshape(40, 3, 1, 1) for name, value in values.items()}
    assert measure(grid) == found


def test_repeated_data_set():
    """Each example twice: the same q(z), I and TC; more draws of the same."""
    values = overlapping()
    found, twice = measure(values), measure({name: torch.cat([v, v]) for name, v in values.items()})
    for name in (*SPLIT, "aggregate_kl", "active_units", "active_units_kl", "collapsed_units"):
        assert twice[name] == pytest.approx(found[name], rel=1e-12)
    assert twice["mutual_information_error"] < found["mutual_information_error"]


def test_fewer_draws():
    """Evenly spaced ones, with all N posteriors in q(z) still."""
    values = overlapping()
    found = measure(values, num_draws=10)
    q = Normal(values["loc"], values["scale"])
    log_qz = q.log_prob(values["z"][::4, None]).sum(2).logsumexp(1) - math.log(40)
    log_q = q.log_prob(values["z"]).sum(1)[::4]
    assert found["mutual_information"] == pytest.approx(float((log_q - log_qz).mean()), rel=1e-12)
    assert found["active_units"] == measure(values)["active_units"]


# Units.


def test_units():
    loc = torch.tensor([[-1.0], [1.0]], dtype=FLOAT) * torch.tensor([1, 0.15, 0.11, 0.09, 0], dtype=FLOAT)
    values = make(loc, 1.0)
    found = measure(values)
    assert (found["active_units"], found["active_units_ceiling"]) == (3, 5)  # variances 0.0225, 0.0121, 0.0081
    assert found["active_units_kl"] == 2  # KL = variance / 2
    assert found["collapsed_units"] == 3
    rare = torch.zeros(200, 2, dtype=FLOAT)
    rare[:2, 0], rare[:3, 1] = 0.02, 0.02  # 1 % and 1.5 % of the examples
    assert measure(make(torch.zeros(200, 2, dtype=FLOAT), 1.0) | {"kl_dim": rare})["collapsed_units"] == 1
    without = measure(values | {"kl_dim": torch.zeros(2, 0)})
    assert set(found) - set(without) == {"active_units_kl", "collapsed_units"}
    assert {name for name in found if not name.endswith(("_error", "_ceiling"))} == set(QUANTITIES)


def test_metrics_of_a_model():
    """The active units are those that the model logs."""
    model = VAE((1, 4, 4), latent_dim=3).eval()
    x = torch.rand(64, 1, 4, 4, generator=generator(0))
    with torch.no_grad():
        model.encoder.offset[:3] = 1.0  # the mean's place moves no unit
        trace = model(x)
    q, latent = trace.latent.q.base_dist, trace.latent
    values = {"loc": q.loc, "scale": q.scale, "z": latent.z[0], "log_prior": latent.log_p[0]}
    found = measure(values | {"kl_dim": latent.kl_per_dim})
    means = {name: value.mean(0) for name, value in model.latent_statistics(trace).items()}
    assert found["active_units"] == model.reduce_latent_statistics(means)["active_units"]
    sampled = float((latent.log_q - latent.log_p).mean())
    assert sum(found[name] for name in SPLIT) == pytest.approx(sampled, rel=1e-5)


# Posteriors that do not factorize.


def test_full_covariance():
    """With a diagonal covariance it is the diagonal normal; a rotation of z under N(0, I) changes nothing."""
    values = overlapping(60)
    both = [name for name in measure(values) if name.startswith(("mutual", "aggregate"))]
    found = {name: value for name, value in measure(values, num_draws=30).items() if name in both}
    rotation = torch.linalg.qr(randn(3, 3, seed=9)).Q
    for turn in (torch.eye(3, dtype=FLOAT), rotation):
        covariance = turn @ torch.diag_embed(values["scale"] ** 2) @ turn.T
        metric = JointLatentMetrics(TriangularNormal, ("loc", "scale_tril"), num_draws=30)
        for rows in torch.arange(60).split(25):
            metric.update(
                loc=values["loc"][rows] @ turn.T,
                scale_tril=torch.linalg.cholesky(covariance[rows]),
                z=values["z"][rows] @ turn.T,
                log_prior=values["log_prior"][rows],
            )
        assert metric.compute() == pytest.approx(found, rel=1e-9)


def test_metrics_of_a_model_with_full_covariance():
    model = FullCovVAE((1, 4, 4), min_log_scale=-7.0, latent_dim=3).eval()
    with torch.no_grad():
        latent = model(torch.rand(20, 1, 4, 4, generator=generator(0))).latent
    metric = JointLatentMetrics(TriangularNormal, ("loc", "scale_tril"))
    metric.update(loc=latent.q.loc, scale_tril=latent.q.scale_tril, z=latent.z[0], log_prior=latent.log_p[0])
    found = metric.compute()
    exact = MultivariateNormal(latent.q.loc.double(), scale_tril=latent.q.scale_tril.double())
    log_qz = exact.log_prob(latent.z[0].double()[:, None]).logsumexp(1) - math.log(20)
    assert found["aggregate_kl"] == pytest.approx(float((log_qz - latent.log_p[0]).mean()), rel=1e-12)


def test_sphere():
    """Four separate directions: I = ln 4; none preferred: I = 0 and the uniform prior is met."""
    directions = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=FLOAT)
    uniform = torch.full((4,), -math.log(4 * math.pi), dtype=FLOAT)
    for kappa, information in ((500.0, math.log(4)), (1e-9, 0.0)):
        metric = JointLatentMetrics(VonMisesFisherDistribution, ("loc", "concentration"))
        concentration = torch.full((4,), kappa, dtype=FLOAT)
        metric.update(loc=directions, concentration=concentration, z=directions, log_prior=uniform)
        found = metric.compute()
        assert found["mutual_information"] == pytest.approx(information, abs=1e-8)
    assert found["aggregate_kl"] == pytest.approx(0, abs=1e-8)


# Words.


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "no collapse: 22 of 50 dimensions are used (all but the collapsed_units)"),
        ({"collapsed_units": 37.0}, "no collapse: 13 of 50 dimensions are used (all but the collapsed_units)"),
        ({"collapsed_units": 38.0}, "38 of 50 dimensions are unused (by collapsed_units)"),
        ({"collapsed_units": 50.0}, "posterior collapse: KL 24.50 nats"),
        ({"mutual_information": 0.09, "aggregate_kl": 0.02}, "posterior collapse: KL 0.11 nats"),
    ],
)
def test_verdict(changes, expected):
    values = {"active_units": 22.0, "active_units_ceiling": 50.0, "collapsed_units": 28.0}
    values |= {"mutual_information": 9.0, "aggregate_kl": 15.5} | changes
    assert verdict(values).text.startswith(expected)
    assert ("callbacks/anneal=linear" in verdict(values).text) == (not expected.startswith("no"))


def test_verdict_without_a_kl_for_each_dimension():
    values = {"active_units": 2.0, "active_units_ceiling": 20.0, "mutual_information": 3.0, "aggregate_kl": 0.0}
    assert verdict(values).text.startswith("18 of 20 dimensions are unused")
    assert "model.latent_dim=2 " in verdict(values).text


def test_verdict_on_a_collapsed_model():
    found = measure(make(1e-3 * randn(200, 4), 1.0))
    assert verdict(found).text.startswith("posterior collapse: KL 0.00 nats")


# Refusals.


@pytest.mark.parametrize(("name", "bad"), [("loc", math.nan), ("z", math.inf)])
def test_diverged_model(name, bad):
    values = overlapping()
    values[name][3, 1] = bad
    with pytest.raises(ValueError, match=rf"{name} holds 1 values of 120 that are NaN or infinite"):
        measure(values)


def test_num_draws_must_be_positive():
    with pytest.raises(ValueError, match="num_draws must be >= 1, got 0"):
        LatentMetrics(num_draws=0)
    with pytest.raises(ValueError, match="num_draws must be >= 1, got -3"):
        JointLatentMetrics(TriangularNormal, ("loc", "scale_tril"), num_draws=-3)


def test_errors_are_those_of_other_examples():
    """Over fresh sets of examples, the estimates spread by the printed error; over fresh draws for one set of examples
    they spread by three quarters of it or less: a formula for these very examples would print that.
    """

    def found(examples, draws):
        first, second = randn(100, 1, seed=examples), 0.3 * randn(100, 1, seed=examples + 3)
        scale = 0.4 * (0.7 * randn(100, 1, seed=examples + 1)).exp()
        return measure(make(torch.cat([first, first + second], 1), scale, seed=draws))

    fresh = [found(10 * k, 10 * k + 2) for k in range(1, 151)]
    same = [found(10, 10 * k + 2) for k in range(1, 101)]
    for name in ("mutual_information", "total_correlation", "aggregate_kl", "dimension_wise_kl"):
        printed = float(torch.tensor([values[f"{name}_error"] for values in fresh]).square().mean().sqrt())
        spread, fixed = (float(torch.tensor([values[name] for values in part]).std()) for part in (fresh, same))
        assert printed == pytest.approx(spread, rel=0.15), name
        assert fixed < 0.8 * printed, name


def test_a_small_kl_is_a_collapse():
    """The information that z has of x is at most the KL, so the limit is the same."""
    assert collapse_note(0.0999).startswith("posterior collapse: KL 0.10 nats: the decoder ignores z; try callbacks/")
    assert collapse_note(0.1) == ""
    values = {"active_units_ceiling": 2, "active_units": 2, "mutual_information": 0.0999, "aggregate_kl": 0.0}
    assert verdict(values).collapsed


def test_mixtures_of_experts():
    """Two equal components, and a third one that is absent, give the information of one normal."""
    values = make(randn(40, 3), 0.5)
    z, log_prior, loc, scale = (values[name] for name in ("z", "log_prior", "loc", "scale"))
    single = JointLatentMetrics(lambda loc, scale: Independent(Normal(loc, scale), 1), ["loc", "scale"])
    single.update(loc=loc, scale=scale, z=z, log_prior=log_prior)
    mixture = JointLatentMetrics(ExpertMixture, ["loc", "scale", "present"])
    parts = {"loc": torch.stack([loc, loc, randn(40, 3, seed=1)], 1), "scale": scale.unsqueeze(1).expand(40, 3, 3)}
    present = torch.tensor([True, True, False]).expand(40, 3)
    mixture.update(**parts, present=present, z=z, log_prior=log_prior)
    found, expected = mixture.compute(), single.compute()
    assert found == pytest.approx(expected, rel=1e-9)
