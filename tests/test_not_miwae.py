"""Entries that are missing because of their values, against quadrature of a linear-Gaussian model."""

import math
from types import SimpleNamespace

import pytest
import torch
from ppca import generator, linear
from torch.distributions import Normal as TorchNormal

from vaezoo.errors import DoesNotApply
from vaezoo.evaluation.ais import annealed
from vaezoo.families import FixedScaleNormal, Laplace, Masked, Poisson, Rescaled, SelfMasking
from vaezoo.inference.imputation import impute
from vaezoo.models import MissingIWAE, NotMIWAE

FLOAT = torch.float64
NAN = float("nan")
SCALE = 0.6
X = torch.tensor([[0.8, NAN], [NAN, -0.5], [0.3, 0.9], [NAN, NAN]], dtype=FLOAT)


def model(intercept, slope, cls=NotMIWAE):
    """A linear-Gaussian model of two columns and one code; q does not depend on x."""
    torch.manual_seed(0)
    made = cls((2,), latent_dim=1, num_samples=4, encoder=linear, decoder=linear, likelihood=FixedScaleNormal(SCALE))
    made = made.double().eval()
    with torch.no_grad():
        for p in made.encoder.parameters():
            p.zero_()
        made.decoder.net.layers[0].weight.copy_(torch.tensor([[0.9], [-1.2]]))
        made.decoder.net.layers[0].bias.copy_(torch.tensor([0.2, 0.1]))
        if cls is NotMIWAE:
            made.likelihood.intercept.copy_(torch.tensor(intercept))
            made.likelihood.slope.copy_(torch.tensor(slope))
    return made


def quadrature(x, intercept, slope):
    """log p(x_o, s) and E[x_m | x_o, s] of one row, by sums over a grid of z and of each missing value."""
    z = torch.linspace(-7, 7, 801, dtype=FLOAT)
    values = torch.linspace(-9, 9, 1201, dtype=FLOAT)
    log_z = TorchNormal(0.0, 1.0).log_prob(z) + math.log(14 / 800)
    means = torch.stack([0.9 * z + 0.2, -1.2 * z + 0.1], 1)
    firsts = torch.zeros(2, 801, dtype=FLOAT)
    for d in range(2):
        px = TorchNormal(means[:, d], SCALE)
        if x[d].isnan():
            log_p = px.log_prob(values[:, None]) + math.log(18 / 1200)
            log_p = log_p + torch.nn.functional.logsigmoid(-(intercept[d] + slope[d] * values))[:, None]
            firsts[d] = (log_p.softmax(0) * values[:, None]).sum(0)
            log_z = log_z + log_p.logsumexp(0)
        else:
            seen = torch.nn.functional.logsigmoid(torch.as_tensor(intercept[d] + slope[d] * x[d]))
            log_z = log_z + px.log_prob(x[d]) + seen
            firsts[d] = x[d]
    return log_z.logsumexp(0), (log_z.softmax(0) * firsts).sum(1)


MASKS = [([0.4, -0.3], [-1.5, 2.0]), ([0.4, -0.3], [0.0, 0.0])]


@pytest.mark.parametrize(("intercept", "slope"), MASKS)
def test_log_marginal_and_imputation_are_those_of_quadrature(intercept, slope):
    """The bound of many samples is log p(x_o, s), and what is filled in is E[x_m | x_o, s], not the decoder's mean."""
    made = model(intercept, slope)
    truth = [quadrature(x, intercept, slope) for x in X]
    log_p = made.log_marginal(X, num_samples=100_000)
    assert log_p.tolist() == pytest.approx([float(value) for value, _ in truth], abs=0.02)
    filled = impute(made, X, None, torch.zeros(2, dtype=torch.bool), num_samples=100_000).best
    expected = torch.stack([mean for _, mean in truth])
    torch.testing.assert_close(filled, expected, rtol=0, atol=0.03)
    at_random = impute(model(0, 0, MissingIWAE), X, None, torch.zeros(2, dtype=torch.bool), num_samples=100_000).best
    if any(slope):
        assert (at_random - expected)[X.isnan()].abs().min() > 0.1
    else:
        torch.testing.assert_close(at_random, expected, rtol=0, atol=0.03)
    torch.manual_seed(0)
    assert (made(X, num_samples=5000).elbo < log_p).all()


def test_a_constant_probability_shifts_the_bound():
    """If s does not depend on x, every log weight is that of ``missing_iwae`` plus log p(s)."""
    made, at_random = model([0.4, -0.3], [0.0, 0.0]), model(0, 0, MissingIWAE)
    log_w = []
    for one in (made, at_random):
        torch.manual_seed(3)
        log_w.append(one(X).log_w)
    log_odds = torch.tensor([0.4, -0.3]).double()
    shift = torch.nn.functional.logsigmoid(torch.where(X.isnan(), -log_odds, log_odds)).sum(1)
    torch.testing.assert_close(log_w[0] - log_w[1], shift.expand(4, 4), rtol=0, atol=1e-6)


def test_missing_values_are_drawn_anew():
    """Each sample of z and each row has a draw of its own, and the gradient passes through it."""
    made = model([0.4, -0.3], [-1.5, 2.0])
    px = made(X).px.base_dist
    assert px.drawn.shape == (4, 4, 2)
    assert px.drawn is px.drawn
    assert len(px.drawn.unique()) == px.drawn.numel()
    assert not torch.equal(made(X).px.base_dist.drawn, px.drawn)
    loc = torch.zeros(2, dtype=FLOAT, requires_grad=True)
    family = made.likelihood
    torch.manual_seed(0)
    log_p = family(loc).log_prob(torch.tensor([NAN, 1.0], dtype=FLOAT))
    (slope,) = torch.autograd.grad(log_p[0], loc)
    torch.manual_seed(0)
    x_m = (SCALE * torch.randn(2, dtype=FLOAT))[0]
    expected = 1.5 * torch.sigmoid(0.4 - 1.5 * x_m)  # d/dx log sigmoid(-(a + b x)), x = loc + scale eps
    torch.testing.assert_close(slope, torch.stack([expected, torch.zeros_like(expected)]), rtol=1e-6, atol=1e-12)


def test_start_at_the_data():
    """The intercepts are the log odds of the shares of observed entries; what is wrapped starts as it would alone."""
    family = SelfMasking(Rescaled(FixedScaleNormal(1.0), 2.0), 2).double()
    x = torch.randn(200, 2, dtype=FLOAT, generator=generator(0)).where(torch.arange(200)[:, None] % 4 > 0, NAN)
    (loc,) = family.params_for_data(x.nanmean(0), x)
    assert family.intercept.tolist() == pytest.approx([math.log(3)] * 2)
    assert family.slope.tolist() == [0, 0]
    torch.testing.assert_close(loc, x.nanmean(0))
    assert torch.equal(family(loc).mean, loc)


def test_refusals():
    with pytest.raises(ValueError, match="draws missing real numbers from an elementwise distribution, which Poisson"):
        SelfMasking(Poisson(), 2)
    assert SelfMasking(Masked(Laplace()), 2).supports_missing


def test_annealed_importance_sampling_is_left_out():
    """Its chains need the same log p(x | z) each time, and this one has a draw in it."""
    with pytest.raises(DoesNotApply, match="the likelihood draws the missing entries"):
        annealed(SimpleNamespace(model=model(*MASKS[0])), SimpleNamespace(annealed=2))
