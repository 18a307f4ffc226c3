"""Counts given their sum: masses by enumeration, scipy's distributions and quadrature."""

import itertools
import math

import numpy as np
import pytest
import torch
from ppca import linear
from scipy import optimize, stats
from torch.distributions import Normal as TorchNormal

from vaezoo.distributions import MultinomialGivenTotal, NegativeBinomialGivenTotal
from vaezoo.families import Masked, Multinomial, ScaledNegativeBinomial
from vaezoo.models import VAE, ProdLDA
from vaezoo.priors import DirichletNormal

FLOAT = torch.float64
SHARES = torch.tensor([0.2, 0.5, 0.3], dtype=FLOAT)
THETA = torch.tensor([0.7, 3.0, 1.5], dtype=FLOAT)
TOTALS = torch.tensor([4.0, 9.0], dtype=FLOAT)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def negative_binomial(zeros=None):
    logits = None if zeros is None else torch.logit(torch.tensor(zeros, dtype=FLOAT))
    return NegativeBinomialGivenTotal(SHARES.log(), TOTALS, THETA.log(), logits)


def compositions(total):
    """All x of three counts with this sum."""
    found = [x for x in itertools.product(range(total + 1), repeat=3) if sum(x) == total]
    return torch.tensor(found)


# Exact values.


def test_masses_of_the_multinomial():
    """The x with the sum 3 have the mass 1; with the sum 1 it is the categorical distribution; scipy's values."""
    px = MultinomialGivenTotal(SHARES.log(), TOTALS)
    assert len(compositions(3)) == 10
    assert px.log_prob(compositions(3)).exp().sum() == pytest.approx(1, abs=1e-13)
    torch.testing.assert_close(px.log_prob(torch.eye(3)), SHARES.log())
    x = compositions(6)
    truth = stats.multinomial.logpmf(x.numpy(), 6, SHARES.numpy())
    torch.testing.assert_close(px.log_prob(x), torch.from_numpy(truth), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("zeros", [None, [0.3, 0.01, 0.6]])
def test_masses_of_the_negative_binomial(zeros):
    """scipy's values; for fixed l the mass of all x is 1, and of the x with the sum l that of this sum, below 1."""
    total, px = 4, negative_binomial(zeros)
    mean = total * SHARES.numpy()
    theta, pi = THETA.numpy(), np.zeros(3) if zeros is None else np.array(zeros)
    support = np.arange(4000)[:, None]
    mass = (1 - pi) * stats.nbinom.pmf(support, theta, theta / (theta + mean)) + pi * (support == 0)
    ours = px.counts(torch.tensor([[float(total)]], dtype=FLOAT)).log_prob(torch.from_numpy(support)).exp()
    torch.testing.assert_close(ours, torch.from_numpy(mass), rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(ours.sum(0), torch.ones(3, dtype=FLOAT), rtol=0, atol=1e-12)
    x = compositions(total)
    of_this_sum = np.convolve(np.convolve(mass[:, 0], mass[:, 1]), mass[:, 2])[total]
    assert px.log_prob(x).exp().sum() == pytest.approx(of_this_sum, rel=1e-10)
    assert of_this_sum < 0.5
    truth = np.log(mass[x.numpy(), np.arange(3)]).sum(1)
    torch.testing.assert_close(px.log_prob(x), torch.from_numpy(truth), rtol=1e-12, atol=1e-12)


def test_limits_of_the_negative_binomial():
    """theta to infinity: Poisson with the mean l share; pi to 0: without additional zeros."""
    x = compositions(5)
    px = NegativeBinomialGivenTotal(SHARES.log(), TOTALS, torch.full((3,), 25.0, dtype=FLOAT))
    poisson = stats.poisson.logpmf(x.numpy(), 5 * SHARES.numpy()).sum(1)
    torch.testing.assert_close(px.log_prob(x), torch.from_numpy(poisson), rtol=0, atol=1e-4)
    none = NegativeBinomialGivenTotal(SHARES.log(), TOTALS, THETA.log(), torch.full((3,), -40.0, dtype=FLOAT))
    torch.testing.assert_close(none.log_prob(x), negative_binomial().log_prob(x), rtol=1e-14, atol=0)


def test_rare_dimensions_have_their_own_probability():
    """Nothing is added inside of the logarithms: a share of 1e-12 costs l share nats, and a count there ln of it."""
    shares = torch.tensor([1 - 1e-12, 1e-12], dtype=FLOAT)
    px = NegativeBinomialGivenTotal(shares.log(), TOTALS, torch.zeros(2, dtype=FLOAT))
    counts = px.counts(torch.tensor([1000.0], dtype=FLOAT))
    assert counts.log_prob(torch.tensor([0.0, 0.0]))[1] == pytest.approx(-1e-9, rel=1e-6)
    assert counts.log_prob(torch.tensor([0.0, 1.0]))[1] == pytest.approx(math.log(1e-9), rel=1e-8)


@pytest.mark.parametrize("family", [Multinomial(), ScaledNegativeBinomial(3), ScaledNegativeBinomial(3, True)])
def test_an_example_without_counts(family):
    """Given that the sum is 0, x is known: log p = 0, and the gradients are 0 and not NaN."""
    raw = torch.zeros(family.num_outputs, 3, requires_grad=True)
    log_p = family(*raw).log_prob(torch.zeros(3, dtype=torch.long))
    assert log_p == 0
    assert torch.equal(torch.autograd.grad(log_p, raw)[0], torch.zeros_like(raw))


def test_unigram_limit():
    """If the code is ignored, the multinomial starts at the ML fit: pooled shares, where the gradient is 0."""
    x = torch.randint(0, 9, (50, 6), generator=generator())
    family = Multinomial().double()
    (logits,) = family.params_for_data(x.double().mean(0), x)
    torch.testing.assert_close(logits.exp(), x.sum(0) / x.sum(dtype=FLOAT))
    logits.requires_grad_()
    (slope,) = torch.autograd.grad(family(logits).log_prob(x).sum(), logits)
    assert slope.abs().max() < 1e-10
    assert torch.equal(family.totals[[0, 500, 1000]], x.sum(1).double().quantile(torch.tensor([0.0, 0.5, 1.0]).double(),
                       interpolation="nearest"))  # fmt: skip


def test_maximum_likelihood_without_a_code():
    """Shares and dispersions found by gradients of this family are those of scipy's likelihood and optimizer."""
    g = np.random.default_rng(0)
    totals = g.integers(20, 200, (200, 1))
    x = g.negative_binomial(2.0, 2.0 / (2.0 + totals * np.array([0.5, 0.3, 0.2])))
    sums = x.sum(1, keepdims=True)

    def loss(raw):
        mean = sums * np.exp(raw[:3] - np.logaddexp.reduce(raw[:3]))
        theta = np.exp(raw[3:])
        return -stats.nbinom.logpmf(x, theta, theta / (theta + mean)).sum() / len(x)

    truth = optimize.minimize(loss, np.array([0.1, 0, 0, 0, 0, 0])).fun
    family, data = ScaledNegativeBinomial(3).double(), torch.from_numpy(x)
    logits = family.params_for_data(data.double().mean(0), data)[0].requires_grad_()
    start = -family(logits).log_prob(data).mean()
    search = torch.optim.LBFGS([logits, family.log_dispersion], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        search.zero_grad()
        value = -family(logits).log_prob(data).mean()
        value.backward()
        return value

    search.step(closure)
    assert float(closure().detach()) == pytest.approx(truth, abs=1e-5)
    assert truth < start < truth + 0.5  # it starts near


@pytest.mark.parametrize("kind", ["multinomial", "negative binomial", "more zeros"])
def test_samples(kind):
    """Their totals are those of the training examples, and their mean is ``mean``; ``with_total`` sets the total."""
    px = {
        "multinomial": MultinomialGivenTotal(SHARES.log(), TOTALS),
        "negative binomial": negative_binomial(),
        "more zeros": negative_binomial([0.3, 0.01, 0.6]),
    }[kind]
    torch.manual_seed(0)
    drawn = px.sample((40_000,))
    assert drawn.dtype == torch.long
    torch.testing.assert_close(drawn.double().mean(0), px.mean, rtol=0, atol=0.1)
    fixed = px.expand((2,)).with_total(torch.tensor([2.0, 30.0], dtype=FLOAT))
    drawn = fixed.sample((20_000,))
    torch.testing.assert_close(drawn.double().mean(0), fixed.mean, rtol=0.05, atol=0.05)
    if kind == "multinomial":
        assert set(px.sample((100,)).sum(-1).tolist()) == {4, 9}
        assert torch.equal(drawn.sum(-1), torch.tensor([2, 30]).expand(20_000, 2))
        assert torch.equal(px.with_total(torch.tensor(0.0)).sample(), torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize("likelihood", [Multinomial(), ScaledNegativeBinomial(3), ScaledNegativeBinomial(3, True)])
def test_log_marginal_is_that_of_quadrature(likelihood):
    """With one latent dimension: log of the integral of p(x | z, l) N(z; 0, 1), on a grid."""
    torch.manual_seed(0)
    model = VAE((3,), latent_dim=1, encoder=linear, decoder=linear, likelihood=likelihood).double().eval()
    for p in model.encoder.parameters():
        torch.nn.init.zeros_(p)  # q is near the prior
    x = torch.tensor([[7, 0, 3], [0, 1, 0]])
    z = torch.linspace(-9, 9, 4001, dtype=FLOAT)[:, None, None]
    prior = TorchNormal(0.0, 1.0).log_prob(z[:, :, 0])
    log_p = (model.decoder(z.expand(-1, 2, -1)).log_prob(x) + prior).logsumexp(0) + math.log(18 / 4000)
    assert model.log_marginal(x, num_samples=50_000).tolist() == pytest.approx(log_p.tolist(), abs=0.02)
    torch.manual_seed(1)
    assert (model(x, num_samples=2000).elbo < log_p).all()


# What is refused.


def test_refusals():
    with pytest.raises(ValueError, match=r"takes vectors of counts \(D,\), but x has the shape \(1, 8, 8\)"):
        Multinomial().raw_shape((1, 8, 8))
    with pytest.raises(ValueError, match=r"some are missing \(-1\): leave such examples out"):
        Multinomial().check(torch.tensor([[1, -1]]))
    with pytest.raises(ValueError, match="takes whole numbers as integers, got torch"):
        ScaledNegativeBinomial(2).check(torch.tensor([[1.0, 2.0]]))
    with pytest.raises(ValueError, match="Masked cannot leave missing entries out of Multinomial, which needs all of"):
        Masked(Multinomial())
    with pytest.raises(ValueError, match=r"has dispersions of 3 dimensions, but x has the shape \(2,\)"):
        ScaledNegativeBinomial(3).raw_shape((2,))


# The topic model's parts.


@pytest.mark.parametrize(("num", "alpha"), [(3, 0.02), (10, 1.5)])
def test_prior_of_topics(num, alpha):
    """Its variances are those of Laplace's approximation: the inverse curvature of the Dirichlet as a density of z."""

    def energy(z):
        return -alpha * z.log_softmax(0).sum()

    curvature = torch.autograd.functional.hessian(energy, torch.zeros(num, dtype=FLOAT))
    variances = torch.linalg.pinv(curvature).diagonal()
    prior = DirichletNormal((num,), alpha=alpha)()
    torch.testing.assert_close(prior.variance.double(), variances, rtol=1e-5, atol=0)
    assert torch.equal(prior.mean, torch.zeros(num))
    with pytest.raises(ValueError, match="a Dirichlet prior needs at least 2 shares"):
        DirichletNormal((1,), alpha=alpha)
    with pytest.raises(ValueError, match="alpha must be > 0 and finite, got 0"):
        DirichletNormal((3,), alpha=0)


def test_decoder_of_topics():
    """A text of one topic has the words of this topic; equal shares have the normalized product of all topics."""
    torch.manual_seed(0)
    model = ProdLDA((4,), num_topics=3, alpha=0.1)
    weights = model.decoder.net.weights
    one = model.decode(torch.tensor([-90.0, 0.0, -90.0])[None]).log_shares[0]
    torch.testing.assert_close(one, weights[:, 1].log_softmax(0))
    equal = model.decode(torch.zeros(1, 3)).log_shares[0]
    product = weights.softmax(0).prod(1) ** (1 / 3)
    torch.testing.assert_close(equal.exp(), product / product.sum())
