"""The likelihood of PixelCNN++ against its chain rule, the formula of the paper and the uncoupled mixture."""

import math
from functools import partial

import pytest
import torch
from ppca import generator
from torch.distributions import Independent

from vaezoo.conditional import Conditional
from vaezoo.families import CoupledMixtureOfLogistics, MixtureOfDiscretizedLogistics
from vaezoo.nets import MLP

FLOAT = torch.float64
LEVELS = torch.arange(256, dtype=FLOAT) / 255


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=generator(seed))


def levels(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=generator(seed)).double() / 255


def test_one_channel_is_the_uncoupled_mixture():
    """From the same network output: log p to the last digits, the mean, and the same start."""
    ours, theirs = CoupledMixtureOfLogistics(4), MixtureOfDiscretizedLogistics(4)
    shape = (1, 3, 5)
    assert ours.raw_shape(shape) == theirs.raw_shape(shape) == (12, 3, 5)
    raw, x = randn(2, 6, 12, 3, 5), levels(6, *shape, seed=1)
    one = ours(*ours.split(raw, shape))
    other = Independent(theirs(*theirs.split(raw, shape)), 3)
    torch.testing.assert_close(one.log_prob(x), other.log_prob(x), rtol=1e-14, atol=0)
    torch.testing.assert_close(one.mean, other.mean, rtol=0, atol=1e-15)
    mean = torch.rand(shape, dtype=FLOAT, generator=generator(2))
    assert torch.equal(torch.cat(ours.params_for_mean(mean)), torch.cat(theirs.params_for_mean(mean)))


def pixel(num=3, seed=0, spread=1.0):
    """The distribution of one RGB pixel, and its raw parameters as lists by component."""
    family = CoupledMixtureOfLogistics(num)
    raw = spread * randn(10 * num, 1, 1, seed=seed)
    raw[num : 4 * num] = raw[num : 4 * num] / 4 + 0.5
    raw[4 * num : 7 * num] -= 2
    return family(*family.split(raw, (3, 1, 1))), raw.flatten()


def test_chain_rule_sums_to_one():
    """sum_r P(r) = 1, sum_g P(g | r) = 1 and sum_b P(b | r, g) = 1, where P(r) and P(r, g) leave channels out."""
    px, raw = pixel()
    for r in (0.0, 77 / 255, 1.0):
        for g in LEVELS[[0, 3, 200]]:
            x = torch.stack([torch.full_like(LEVELS, r), torch.full_like(LEVELS, g), LEVELS], 1)[..., None, None]
            total = px.log_prob(x).exp().sum()
            weights = raw[:3].softmax(0)
            first = px.channel(0, []).log_prob(torch.tensor(r, dtype=FLOAT)).flatten()
            second = px.channel(1, [torch.tensor(r, dtype=FLOAT)]).log_prob(g).flatten()
            expected = (weights * (first + second).exp()).sum()  # P(r, g)
            assert total.item() == pytest.approx(expected.item(), rel=1e-10)
    for r in (0.0, 77 / 255, 1.0):
        grid = px.channel(1, [torch.tensor(r, dtype=FLOAT)])
        mass = grid.expand(torch.Size([256, 3, 1, 1])).log_prob(LEVELS[:, None, None, None]).exp().sum(0)
        torch.testing.assert_close(mass, torch.ones_like(mass), rtol=0, atol=1e-10)


def test_two_channels_sum_to_one():
    """All 256^2 values of a pixel with two channels."""
    family = CoupledMixtureOfLogistics(2)
    raw = randn(2 * (1 + 2 + 2 + 1), 1, 1)
    raw[2:6], raw[6:10] = raw[2:6] / 4 + 0.5, raw[6:10] - 2
    assert family.raw_shape((2, 1, 1)) == (12, 1, 1)
    x = torch.cartesian_prod(LEVELS, LEVELS)[..., None, None]
    mass = family(*family.split(raw, (2, 1, 1))).log_prob(x).exp()
    assert mass.sum().item() == pytest.approx(1, abs=1e-10)


def test_the_papers_formula():
    """Eq. 2 and 3 of Salimans et al. 2017 by hand, in [-1, 1]: means of green and blue move with x in these units."""
    px, raw = pixel(num=2, seed=3)
    x = levels(3, seed=5)
    weights = raw[:2].softmax(0)
    loc = raw[2:8].reshape(2, 3)
    log_scale = -7 + torch.nn.functional.softplus(raw[8:14].reshape(2, 3) + 7)
    a = raw[14:20].reshape(2, 3).tanh()
    total = 0.0
    for i in range(2):
        m = 2 * loc[i] - 1  # in the units of the paper
        s = 2 * log_scale[i].exp()
        u = 2 * x - 1
        means = [m[0], m[1] + a[i, 0] * u[0], m[2] + a[i, 1] * u[0] + a[i, 2] * u[1]]
        p = weights[i]
        for c in range(3):
            upper = torch.sigmoid((u[c] + 1 / 255 - means[c]) / s[c]) if x[c] < 1 else 1.0
            lower = torch.sigmoid((u[c] - 1 / 255 - means[c]) / s[c]) if x[c] > 0 else 0.0
            p = p * (upper - lower)
        total = total + p
    assert px.log_prob(x[:, None, None]).item() == pytest.approx(math.log(total), rel=1e-9)


def test_samples_have_the_moments_of_the_density():
    """Means, variances and the covariance of two channels, by the sum over all values; and a pixel's own component."""
    family = CoupledMixtureOfLogistics(2)
    raw = randn(12, 1, 2, seed=4)  # two pixels
    raw[2:6], raw[6:10], raw[10:] = raw[2:6] / 4 + 0.5, raw[6:10] / 2 - 2.5, 2 * raw[10:]
    px = family(*family.split(raw, (2, 1, 2)))
    torch.manual_seed(0)
    num = 40_000
    drawn = px.sample(torch.Size([num]))
    assert drawn.shape == (num, 2, 1, 2)
    torch.testing.assert_close(drawn, (drawn * 255).round() / 255, rtol=0, atol=0)
    values = torch.cartesian_prod(LEVELS, LEVELS)
    for column in range(2):
        one = family(*family.split(raw[..., column : column + 1], (2, 1, 1)))
        mass = one.log_prob(values[..., None, None]).exp()
        for f in (lambda v: v[:, 0], lambda v: v[:, 1], lambda v: v[:, 0] * v[:, 1], lambda v: v[:, 1].square()):
            exact, square = (mass * f(values)).sum(), (mass * f(values).square()).sum()
            found = f(drawn[:, :, 0, column]).mean()
            assert abs(found - exact) < 5 * ((square - exact.square()) / num).sqrt()
    more = px.expand(torch.Size([4]))
    torch.testing.assert_close(more.log_prob(drawn[:4]), px.log_prob(drawn[:4]))
    torch.testing.assert_close(more.mean, px.mean.expand(4, 2, 1, 2))


def test_mean_far_from_the_edges():
    """If no probability is in the tails, the means are those of the samples' density."""
    family = CoupledMixtureOfLogistics(2)
    raw = torch.tensor([0.3, -0.2, 0.45, 0.5, 0.55, 0.6, -4.5, -4.2, -4.0, -4.6, 0.4, -0.7], dtype=FLOAT)[:, None, None]
    px = family(*family.split(raw, (2, 1, 1)))
    values = torch.cartesian_prod(LEVELS, LEVELS)
    exact = px.log_prob(values[..., None, None]).exp() @ values
    torch.testing.assert_close(px.mean.flatten(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shift", [-60.0, 0.0, 60.0])
def test_extremes_have_finite_gradients(shift):
    """In float32, for extreme weights, locations, scales and coefficients."""
    family = CoupledMixtureOfLogistics(3)
    raw = (randn(2, 30, 2, 2) * 5 + shift).float().requires_grad_()
    for x in (0.0, 0.4, 1.0):
        log_p = family(*family.split(raw, (3, 2, 2))).log_prob(torch.full((3, 2, 2), x))
        (slope,) = torch.autograd.grad(log_p.sum(), raw)
        assert log_p.isfinite().all()
        assert slope.isfinite().all()


def test_in_a_decoder():
    """It starts at the mean image, compiles as one graph, and refuses data that are no image."""
    family = CoupledMixtureOfLogistics(4)
    decoder = Conditional((2,), (3, 4, 5), partial(MLP, hidden=[6]), family)
    mean = torch.rand(3, 4, 5, generator=generator(1))
    decoder.init_mean(mean)
    torch.nn.init.zeros_(decoder.net.layers[-1].weight)
    torch.testing.assert_close(decoder(torch.zeros(1, 2)).mean[0], mean, rtol=0, atol=0.1)
    z, x = torch.randn(2, 7, 2, generator=generator(2)), levels(7, 3, 4, 5).float()
    loss = torch.compile(lambda z, x: decoder(z).log_prob(x), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(loss(z, x), decoder(z).log_prob(x), rtol=1e-5, atol=1e-4)
    assert loss(z, x).shape == (2, 7)
    with pytest.raises(ValueError, match=r"needs images \(C, H, W\), got examples of shape \(4,\)"):
        Conditional((2,), (4,), MLP, family)
    with pytest.raises(ValueError, match="num_components must be >= 1, got 0"):
        CoupledMixtureOfLogistics(0)
