"""Objectives on the aggregate posterior: MI, TC and dimension-wise KL, moments, MMD, sliced Wasserstein, capacity."""

import itertools
import math

import pytest
import torch
from conftest import config
from ppca import generator
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from vaezoo.errors import ConfigError
from vaezoo.instantiate import build
from vaezoo.models import VAE, BetaTCVAE
from vaezoo.objectives import ELBO, MMD, Capacity, CovariancePenalty, InfoMMD, SlicedWasserstein, TotalCorrelation
from vaezoo.objectives.aggregate import decompose, minibatch_log_weights
from vaezoo.objectives.discrepancy import KERNELS, imq, mmd, rbf, sample_prior, sliced_wasserstein
from vaezoo.trace import Latent, Trace

FLOAT = torch.float64
COUPLED = [
    TotalCorrelation(1.0, 6.0, 1.0, "mss"),
    CovariancePenalty("I", 10.0, 10.0),
    CovariancePenalty("II", 10.0, 10.0),
    MMD(100.0, "imq"),
    InfoMMD(0.5, 100.0, "rbf"),
    SlicedWasserstein(10.0, 50),
]


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=generator(seed))


def diagonal(loc, scale):
    return Independent(Normal(loc, scale), 1)


def standard(size):
    return diagonal(torch.zeros(size, dtype=FLOAT), torch.ones(size, dtype=FLOAT))


def make_latent(loc, scale, samples=1, seed=0):
    """Return a latent with q(z | x_n) = N(loc_n, scale_n^2) and samples of it."""
    scale = scale.expand_as(loc)
    return Latent(diagonal(loc, scale), standard(loc.shape[1]), loc + scale * randn(samples, *loc.shape, seed=seed))


def make_trace(latent):
    """Return a trace with this latent and log p(x | z) = -log(2 pi) - 1 for each example."""
    batch = latent.z.shape[1]
    x = torch.zeros(batch, 2, dtype=FLOAT)
    return Trace(x, diagonal(torch.ones(1, batch, 2, dtype=FLOAT), torch.ones(1, batch, 2, dtype=FLOAT)), (latent,))


LOG_PX = -math.log(2 * math.pi) - 1


def six_points():
    """Return six posteriors that overlap, in two dimensions."""
    return randn(6, 2, seed=1), 0.3 + randn(6, 2, seed=2).abs()


# The aggregate posterior from a minibatch.


def paper_weights(batch, num_train):
    """Return the stratified weights of Chen et al. 2018, in which the next example of the batch has less weight."""
    others = batch - 1
    weights = torch.full((batch, batch), 1 / others, dtype=FLOAT)
    for i in range(batch):
        weights[i, i] = 1 / num_train
        weights[i, (i + 1) % batch] = (num_train - others) / (num_train * others)
    return weights


def released_weights(batch, num_train):
    """Return the weights of released code, which fills columns in place of the diagonal."""
    others = batch - 1
    weights = torch.full((batch, batch), 1 / others, dtype=FLOAT)
    weights.view(-1)[:: others + 1] = 1 / num_train
    weights.view(-1)[1 :: others + 1] = (num_train - others) / (num_train * others)
    weights[others - 1, 0] = (num_train - others) / (num_train * others)
    return weights


def test_stratified_estimate_is_unbiased():
    """The mean over all batches of 4 out of 6 that contain x_i is q(z_i), but not with released code."""
    loc, scale = six_points()
    z = loc + scale * randn(6, 2, seed=3)
    density = diagonal(loc, scale).log_prob(z[:, None]).exp()  # (6, 6): q(z_i | x_j)
    exact = density.mean(1)
    ours = minibatch_log_weights(density, 4, 6, "mss").exp()

    def ratios(weights):  # over all ordered minibatches and positions in them, for each example
        total, count = torch.zeros(6, dtype=FLOAT), 0
        for batch in itertools.permutations(range(6), 4):
            estimate = (weights * density[list(batch)][:, list(batch)]).sum(1)
            total.index_add_(0, torch.tensor(batch), estimate)
            count += 4
        return total / (count / 6) / exact

    ones = torch.ones(6, dtype=FLOAT)
    torch.testing.assert_close(ratios(ours), ones, rtol=1e-12, atol=0)
    torch.testing.assert_close(ratios(paper_weights(4, 6)), ones, rtol=1e-12, atol=0)
    assert (ratios(released_weights(4, 6)) - 1).abs().max() > 0.05
    assert (ratios(minibatch_log_weights(density, 4, 6, "mws").exp()) - 1).abs().min() > 0.1


@pytest.mark.parametrize(("batch", "num_train"), [(2, 2), (3, 7), (4, 6), (5, 5)])
def test_weights_are_the_papers_over_all_orders(batch, num_train):
    weights = paper_weights(batch, num_train)
    orders = [list(order) for order in itertools.permutations(range(batch))]
    mean = torch.stack([weights[order][:, order] for order in orders]).mean(0)
    ours = minibatch_log_weights(weights, batch, num_train, "mss").exp()
    torch.testing.assert_close(ours, mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.sum(1), torch.ones(batch, dtype=FLOAT), rtol=1e-12, atol=0)


def test_whole_data_set_is_exact():
    """For B = N, log q(z) and log q(z_d) are those of torch's mixtures."""
    loc, scale = six_points()
    latent = make_latent(loc, scale, samples=3)
    mixture = MixtureSameFamily(Categorical(torch.ones(6, dtype=FLOAT)), diagonal(loc, scale))
    marginals = MixtureSameFamily(Categorical(torch.ones(2, 6, dtype=FLOAT)), Normal(loc.T, scale.T))
    log_qz, log_qz_dims = mixture.log_prob(latent.z), marginals.log_prob(latent.z).sum(-1)
    log_p = latent.p.log_prob(latent.z)
    mi, tc, dwkl = decompose(latent)
    torch.testing.assert_close(mi, (latent.q.log_prob(latent.z) - log_qz).mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(tc, (log_qz - log_qz_dims).mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(dwkl, (log_qz_dims - log_p).mean(), rtol=1e-12, atol=0)
    assert decompose(latent, num_train=6) == (mi, tc, dwkl)
    assert decompose(latent, num_train=60).tc != tc


@pytest.mark.parametrize("estimator", ["mss", "mws"])
@pytest.mark.parametrize("num_train", [None, 6, 1000])
def test_terms_add_up_to_the_rate(estimator, num_train):
    latent = make_latent(*six_points(), samples=4)
    total = sum(decompose(latent, num_train, estimator))
    torch.testing.assert_close(total, (latent.log_q - latent.log_p).mean(), rtol=1e-12, atol=0)


def test_mutual_information_at_its_ends():
    """The mutual information is 0 for one example and log N for N posteriors that are far apart."""
    one = make_latent(randn(1, 3), torch.tensor(0.7, dtype=FLOAT), samples=5)
    assert decompose(one, num_train=1).mi == 0
    assert all(value.isfinite() for value in decompose(one, num_train=50))  # the last batch of an epoch may be one
    apart = make_latent(100 * torch.arange(8, dtype=FLOAT)[:, None].expand(8, 2), torch.tensor(1.0, dtype=FLOAT))
    torch.testing.assert_close(decompose(apart).mi, torch.tensor(math.log(8), dtype=FLOAT), rtol=1e-12, atol=0)
    equal = make_latent(torch.zeros(8, 2, dtype=FLOAT), torch.tensor(1.0, dtype=FLOAT))
    assert decompose(equal).mi.abs() < 1e-12


def test_total_correlation_of_a_gaussian():
    """If q(z) is N(0, [[1, r], [r, 1]]), the total correlation is -1/2 log(1 - r^2) and the dimension-wise KL is 0."""
    rho, scale = 0.8, torch.tensor(0.3, dtype=FLOAT)
    uniform = torch.quasirandom.SobolEngine(2, scramble=True, seed=0).draw(2000, dtype=FLOAT)
    covariance = torch.tensor([[1, rho], [rho, 1]], dtype=FLOAT) - scale**2 * torch.eye(2, dtype=FLOAT)
    loc = torch.special.ndtri(uniform) @ torch.linalg.cholesky(covariance).T
    _, tc, dwkl = decompose(make_latent(loc, scale))
    assert abs(tc + math.log(1 - rho**2) / 2) < 0.03
    assert abs(dwkl) < 0.02


def test_unit_weights_are_the_elbo():
    """For alpha = beta = gamma = 1 the loss is exactly the negative ELBO, for any N and estimator."""
    for estimator in ("mss", "mws"):
        trace = make_trace(make_latent(*six_points(), samples=2))
        objective = TotalCorrelation(alpha=1.0, gamma=1.0, beta=1, estimator=estimator).double()
        objective.set_num_train(100)
        torch.testing.assert_close(objective(trace)["loss"], ELBO().double()(trace)["loss"], rtol=1e-14, atol=0)


def test_total_correlation_loss_is_the_papers_in_expectation():
    """It differs from the sampled form by the closed-form minus the sampled KL, which has mean 0, for any weights."""
    trace = make_trace(make_latent(*six_points(), samples=20_000))
    for alpha, beta, gamma in [(0.0, 6.0, 1.0), (2.0, 0.5, 3.0), (1.0, 1.0, 1.0)]:
        terms = TotalCorrelation(alpha, beta, gamma, "mss").double()(trace)
        sampled = alpha * terms["mi"] + beta * terms["tc"] + gamma * terms["dwkl"] - LOG_PX
        difference = trace.kl.mean() - (trace.latent.log_q - trace.latent.log_p).mean()
        torch.testing.assert_close(terms["loss"] - sampled, difference, rtol=0, atol=1e-12)
        assert difference.abs() < 0.02


def test_training_set_size_comes_from_the_data(tmp_path):
    import lightning.pytorch as pl
    from conftest import RandomImages

    model = BetaTCVAE((1, 5, 4), alpha=1.0, beta=6.0, gamma=1.0, estimator="mss", latent_dim=2)
    trainer = pl.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(model, RandomImages((1, 5, 4), binarize="dynamic"))
    assert model.objective.num_train == 100


# Moments.


def whitened(batch, size):
    """Return codes (batch, size) with mean 0 and covariance I (divided by the batch size), up to rounding."""
    codes = randn(batch, size)
    return torch.linalg.qr(codes - codes.mean(0)).Q * math.sqrt(batch)


@pytest.mark.parametrize("variant", ["I", "II"])
def test_moments_of_whitened_codes(variant):
    """The penalty is 0, also after a shift; in variant II the posterior's variance is part of the covariance."""
    codes = whitened(32, 4)
    scale = torch.tensor(1e-9 if variant == "I" else 0.6, dtype=FLOAT)
    loc = codes if variant == "I" else codes * (1 - scale**2).sqrt()
    for shift in (0.0, 1000.0):
        terms = CovariancePenalty(variant, 10.0, 10.0).double()(make_trace(make_latent(loc + shift, scale)))
        assert terms["dip_od"] < 1e-18
        assert terms["dip_d"] < 1e-18


@pytest.mark.parametrize("variant", ["I", "II"])
def test_moment_penalty_by_hand(variant):
    loc, scale = six_points()
    trace = make_trace(make_latent(loc, scale))
    covariance = torch.cov(loc.T, correction=0)
    if variant == "II":
        covariance = covariance + torch.diag(scale.square().mean(0))
    terms = CovariancePenalty(variant, lambda_od=3, lambda_d=5).double()(trace)
    torch.testing.assert_close(terms["dip_od"], 2 * covariance[0, 1] ** 2, rtol=1e-12, atol=0)
    torch.testing.assert_close(terms["dip_d"], (covariance.diagonal() - 1).square().sum(), rtol=1e-12, atol=0)
    penalty = 3 * terms["dip_od"] + 5 * terms["dip_d"]
    torch.testing.assert_close(terms["loss"], penalty - trace.elbo.mean(), rtol=1e-12, atol=0)


# Maximum mean discrepancy.


def test_mmd_of_two_points_by_hand():
    z = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]], dtype=FLOAT)
    y = torch.tensor([[[0.0, 2.0], [0.0, 0.0]]], dtype=FLOAT)

    def k(square):  # D = 2
        return math.exp(-square / 4)

    by_hand = k(4) + k(4) - 2 * (k(4) + k(0) + k(8) + k(4)) / 4
    torch.testing.assert_close(mmd(z, y, rbf), torch.tensor(by_hand, dtype=FLOAT), rtol=1e-12, atol=0)
    assert mmd(z, z, rbf) == k(4) - 1  # the U-statistic of equal samples is below 0


def test_kernels():
    """k(x, x) = 1, and other values are those of the docstrings."""
    x = randn(5, 4)
    y = torch.zeros(1, 4, dtype=FLOAT)
    square = x.square().sum(1, keepdim=True)
    for kernel in KERNELS.values():
        torch.testing.assert_close(kernel(x, x).diagonal(), torch.ones(5, dtype=FLOAT), rtol=1e-12, atol=0)
    torch.testing.assert_close(rbf(x, y), torch.exp(-square / 8), rtol=1e-12, atol=0)
    by_hand = sum(8 * s / (8 * s + square) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10)) / 7
    torch.testing.assert_close(imq(x, y), by_hand, rtol=1e-12, atol=0)
    # E k = (h / (h + 2))^(d / 2) for x, y ~ N(0, I) and h = d
    drawn = torch.stack([rbf(*pair) for pair in randn(20, 2, 1000, 4)]).mean()
    assert abs(drawn - (4 / 6) ** 2) < 0.005  # 5 standard errors


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("kernel", KERNELS)
def test_mmd_is_unbiased(kernel, samples):
    """The mean is 0 if q(z) = p(z), although the K samples of one example depend on each other."""
    own, y = randn(2, 3000, samples, 6, 2, seed=1)
    shared = randn(3000, 1, 6, 2, seed=2)
    z = math.sqrt(0.7) * shared + math.sqrt(0.3) * own
    values = torch.stack([mmd(*pair, KERNELS[kernel]) for pair in zip(z, y, strict=True)])
    assert values.min() < 0
    assert values.mean().abs() < 4 * values.std() / math.sqrt(3000)


def test_mmd_of_shifted_gaussians():
    """MMD^2 of N(m, I) and N(0, I) is 2 (h / (h + 2))^(d/2) (1 - exp(-|m|^2 / (2 (h + 2)))) for rbf with h = d."""
    d, shift = 3, 1.5
    values = torch.stack([mmd(z + shift / math.sqrt(d), y, rbf) for z, y in randn(100, 2, 1, 200, d)])
    exact = 2 * (d / (d + 2)) ** (d / 2) * (1 - math.exp(-(shift**2) / (2 * (d + 2))))
    assert abs(values.mean() - exact) < 4 * values.std() / 10
    assert values.std() / 10 < 0.003


def test_wae_and_info_vae_are_neighbours():
    """The MMD is 0 in the mean if q = p. alpha = 1 is the WAE; alpha = 0, lambda = 1 is the VAE."""

    def loss(objective, trace):
        torch.manual_seed(0)
        return objective.double()(trace)["loss"]

    at_prior = make_trace(make_latent(torch.zeros(1000, 3, dtype=FLOAT), torch.tensor(1.0, dtype=FLOAT)))
    assert abs(loss(MMD(1.0, "imq"), at_prior) + LOG_PX) < 2e-3
    assert abs(loss(SlicedWasserstein(1.0, 50), at_prior) + LOG_PX) < 1e-2

    trace = make_trace(make_latent(*six_points(), samples=2))
    assert loss(InfoMMD(1.0, 5.0, "imq"), trace) == loss(MMD(5.0, "imq"), trace)
    assert loss(InfoMMD(0.0, 1.0, "rbf"), trace) == loss(ELBO(), trace)


def test_prior_samples():
    """There are as many samples as of q, also with a prior for each example, and with a gradient if p has one."""
    latent = make_latent(*six_points(), samples=3)
    assert sample_prior(latent).shape == (3, 6, 2)
    loc = torch.zeros(6, 2, dtype=FLOAT, requires_grad=True)
    for p in (diagonal(loc, torch.ones_like(loc)), diagonal(loc[0], torch.ones(2, dtype=FLOAT))):
        drawn = sample_prior(Latent(latent.q, p, latent.z))
        assert drawn.shape == (3, 6, 2)
        assert drawn.requires_grad
    mixture = MixtureSameFamily(Categorical(torch.ones(6, dtype=FLOAT)), latent.q)
    assert sample_prior(Latent(latent.q, mixture, latent.z)).shape == (3, 6, 2)


# Sliced Wasserstein.


def test_sliced_wasserstein_in_one_dimension():
    """It is the distance of sorted samples; m^2 for a shift by m; 0 for a set in another order."""
    z = torch.tensor([3.0, -1.0, 0.5], dtype=FLOAT).reshape(1, 3, 1)
    y = torch.tensor([1.0, 4.0, -1.0], dtype=FLOAT).reshape(1, 3, 1)
    by_hand = torch.tensor((0.0 + 0.5**2 + 1.0) / 3, dtype=FLOAT)
    torch.testing.assert_close(sliced_wasserstein(z, y, 4), by_hand, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        sliced_wasserstein(z + 0.7, z.flip(1), 4), torch.tensor(0.49, dtype=FLOAT), rtol=1e-12, atol=0
    )
    cloud = randn(2, 5, 3)
    assert sliced_wasserstein(cloud, cloud.flip(0, 1), 50) == 0


def test_sliced_wasserstein_of_a_shift():
    """The mean over all directions is |m|^2 / D."""
    torch.manual_seed(0)
    cloud, shift = randn(1, 10, 5), randn(5, seed=1)
    distance = sliced_wasserstein(cloud + shift, cloud, 100_000)
    assert abs(distance / (shift.square().sum() / 5) - 1) < 0.01


# Capacity.


def test_capacity_schedule():
    objective = Capacity(capacity=25, gamma=10, steps=1000)
    for step, target in [(0, 0), (1, 0.025), (500, 12.5), (1000, 25), (5000, 25)]:
        objective.apply_schedules(step)
        assert math.isclose(objective.get_buffer("capacity"), target, rel_tol=1e-6)
    objective.apply_schedules(10)
    objective.restore_weights()
    assert objective.get_buffer("capacity") == 25


def test_capacity_loss():
    """The loss is -log p(x | z) if the KL is C, plus gamma for each nat above or below."""
    loc = torch.tensor([[1.0, 1.0], [2.0, 0.0]], dtype=FLOAT)  # KL(N(m, 1), N(0, 1)) = m^2 / 2: 1 and 2 nats
    trace = make_trace(make_latent(loc, torch.tensor(1.0, dtype=FLOAT)))
    for capacity, distance in [(1.5, 0), (0.5, 1), (3.5, 2)]:
        terms = Capacity(capacity, steps=2000, gamma=100).double()(trace)
        torch.testing.assert_close(terms["loss"], torch.tensor(100 * distance - LOG_PX, dtype=FLOAT))


# What all of them keep.


@pytest.mark.parametrize("objective", COUPLED, ids=lambda objective: type(objective).__name__)
def test_a_batch_of_one_is_finite(objective):
    latent = make_latent(randn(1, 3).requires_grad_(), torch.tensor(0.5, dtype=FLOAT))
    loss = objective.double()(make_trace(latent))["loss"]
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("objective", COUPLED, ids=lambda objective: type(objective).__name__)
def test_autocast_rounds_nothing(objective):
    loc, scale = (value.float() for value in six_points())
    z = loc + scale * randn(2, 6, 2).float()
    p = diagonal(torch.zeros(2), torch.ones(2))

    def terms():
        torch.manual_seed(0)
        return objective.float()(make_trace(Latent(diagonal(loc, scale), p, z)))

    plain = terms()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(value, plain[name]) for name, value in terms().items())


def test_flags_of_the_losses():
    """All these losses couple the examples of a batch; free bits need a KL term."""
    assert all(objective.is_batch_coupled for objective in [*COUPLED, Capacity(25.0, 100.0, 2000)])
    for name in ("wae", "swae"):
        with pytest.raises(ConfigError, match="has no KL term"):
            build(config("model", f"model={name}", "model.free_bits=0.1"), "model")
    for name in ("annealed_vae", "beta_tc_vae", "info_vae"):
        build(config("model", f"model={name}", "model.free_bits=0.1"), "model")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: TotalCorrelation(alpha=1.0, beta=6.0, gamma=1.0, estimator="mc"),
            "estimator=mc is not one of mss, mws",
        ),
        (
            lambda: TotalCorrelation(alpha=1.0, gamma=1.0, estimator="mss", beta=-1),
            "beta must be a finite number >= 0, got -1",
        ),
        (lambda: CovariancePenalty("III", 10.0, 10.0), "variant=III is not one of I, II"),
        (lambda: MMD(lambda_mmd=100.0, kernel="linear"), "kernel=linear is not one of imq, rbf"),
        (
            lambda: InfoMMD(lambda_mmd=100.0, kernel="rbf", alpha=1.5),
            r"needs alpha in \[0, 1\] and lambda_mmd >= 1 - alpha, got 1.5",
        ),
        (lambda: InfoMMD(kernel="rbf", alpha=0.5, lambda_mmd=0.4), "got 0.5 and 0.4"),
        (lambda: SlicedWasserstein(lambda_sw=10.0, num_projections=0), "num_projections must be >= 1, got 0"),
        (lambda: Capacity(capacity=25.0, gamma=100.0, steps=0), "capacity_steps must be >= 1, got 0"),
    ],
)
def test_impossible_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "objective", [TotalCorrelation(1.0, 6.0, 1.0, "mss"), CovariancePenalty("II", 10.0, 10.0)], ids=["tc", "moments"]
)
def test_posteriors_that_do_not_factorize_are_refused(objective):
    q = MultivariateNormal(torch.zeros(6, 2, dtype=FLOAT), torch.eye(2, dtype=FLOAT))
    with pytest.raises(ValueError, match="factorizes over dimensions, got MultivariateNormal"):
        objective(make_trace(Latent(q, standard(2), q.sample((1,)))))


def test_plain_vae_is_not_batch_coupled():
    assert not VAE((1, 4, 4), latent_dim=20).objective.is_batch_coupled
