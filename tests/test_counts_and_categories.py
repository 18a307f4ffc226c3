"""Families of counts, categories and positive numbers against sums over all values, scipy and closed forms."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from ppca import generator
from scipy import stats
from torch import nn

from vaezoo.conditional import Conditional
from vaezoo.families import (
    Categories,
    DimensionScaleNormal,
    Family,
    IndexCategorical,
    LogNormal,
    Masked,
    NegativeBinomial,
    Normal,
    Ordinal,
    OrdinalColumns,
    Poisson,
    SharedScaleNormal,
)
from vaezoo.missing import is_observed
from vaezoo.models import VAE
from vaezoo.nets import MLP, MaskedInput

FLOAT = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=generator(seed))


class Silent(nn.Module):
    """A network with output 0."""

    def __init__(self, in_shape, out_shape):
        super().__init__()
        self.out_shape = out_shape

    def forward(self, inputs, context=None):
        return inputs.new_zeros(len(inputs), *self.out_shape)


def started(family, x, mean=None):
    """p(x) of a decoder with output 0 that was initialized from the data."""
    decoder = Conditional((2,), x.shape[1:], Silent, family).double()
    decoder.init_from_data(x.double().mean(0) if mean is None else mean, x)
    return decoder(torch.zeros(1, 2, dtype=FLOAT)).base_dist


# Counts.


@pytest.mark.parametrize("mean", [1e-3, 0.7, 25.0, 3000.0])
@pytest.mark.parametrize("dispersion", [0.05, 1.0, 40.0, 2e4])
def test_negative_binomial(mean, dispersion):
    """Equal to scipy.stats.nbinom(theta, theta / (theta + mu)); the masses sum to 1."""
    family = NegativeBinomial(max_log_dispersion=60)  # far from the ceiling
    d = family(torch.tensor(math.log(mean), dtype=FLOAT), torch.tensor(math.log(dispersion), dtype=FLOAT))
    scipy = stats.nbinom(dispersion, dispersion / (dispersion + mean))
    x = np.unique(np.concatenate([np.arange(50), np.geomspace(50, 1e5, 200).astype(int)]))
    np.testing.assert_allclose(d.log_prob(torch.from_numpy(x)).numpy(), scipy.logpmf(x), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose([d.mean, d.variance], scipy.stats("mv"), rtol=1e-9)
    every = torch.arange(int(scipy.isf(1e-13)) + 2)
    assert d.log_prob(every).exp().sum().item() == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("mean", [1e-3, 0.7, 25.0, 3000.0])
def test_poisson(mean):
    """Equal to scipy.stats.poisson; the masses sum to 1; float32 parameters lose no digits at large counts."""
    log_rate = torch.tensor(math.log(mean), dtype=FLOAT)
    d = Poisson()(log_rate)
    x = torch.arange(int(stats.poisson.isf(1e-13, mean)) + 2)
    np.testing.assert_allclose(d.log_prob(x).numpy(), stats.poisson.logpmf(x.numpy(), mean), rtol=1e-10, atol=1e-10)
    assert d.log_prob(x).exp().sum().item() == pytest.approx(1, abs=1e-10)
    assert d.mean.item() == d.variance.item() == pytest.approx(mean, rel=1e-12)
    single = torch.tensor(math.log(1e5))
    exact = stats.poisson.logpmf(100_000, math.exp(single.double().item()))
    assert Poisson()(single).log_prob(torch.tensor(100_000)).item() == pytest.approx(exact, rel=1e-6)


def test_negative_binomial_becomes_poisson():
    """The difference falls as 1 / theta, and the ceiling of theta is where the option says."""
    x, log_mean = torch.arange(40), torch.tensor(2.0, dtype=FLOAT)
    exact = Poisson()(log_mean).log_prob(x)
    gaps = []
    for log_dispersion in (9.0, 13.0, 17.0):
        d = NegativeBinomial(max_log_dispersion=60)(log_mean, torch.tensor(log_dispersion, dtype=FLOAT))
        gaps.append((d.log_prob(x) - exact).abs().max().item())
    assert gaps[0] / gaps[1] == pytest.approx(math.exp(4), rel=0.02)
    assert gaps[2] < 3e-5
    far = NegativeBinomial(max_log_dispersion=3)(log_mean, torch.tensor(50.0, dtype=FLOAT))
    assert far.log_dispersion.item() == pytest.approx(3, abs=1e-12)


def test_counts_start_at_the_moments_of_the_data():
    """Mean and variance are those of the observed data, if the variance is larger than the mean."""
    torch.manual_seed(0)
    true = NegativeBinomial()(torch.tensor([1.0, 3.0], dtype=FLOAT), torch.tensor([0.5, -0.5], dtype=FLOAT))
    x = true.sample(torch.Size([2000]))
    x = torch.cat([x, torch.full((2000, 1), 3)], 1)  # a constant: the variance is below the mean
    d = started(NegativeBinomial(), x)
    torch.testing.assert_close(d.mean[0], x.double().mean(0), rtol=1e-6, atol=0)
    torch.testing.assert_close(d.variance[0, :2], x[:, :2].double().var(0, correction=0), rtol=1e-5, atol=0)
    assert d.log_dispersion[0, 2] == pytest.approx(4, abs=1e-6)
    holes = x.clone()
    holes[::3, 0] = -1
    observed = x[is_observed(holes)[:, 0], 0].double()
    mean = torch.stack([observed.mean(), *x[:, 1:].double().mean(0)])
    d = started(Masked(NegativeBinomial()), holes, mean)
    assert d.mean[0, 0].item() == pytest.approx(observed.mean().item(), rel=1e-6)
    assert d.variance[0, 0].item() == pytest.approx(observed.var(correction=0).item(), rel=1e-5)
    torch.testing.assert_close(started(Poisson(), x).mean[0], x.double().mean(0), rtol=1e-6, atol=0)


def test_shared_dispersions():
    """With ``num_dims``, each dimension has one learned dispersion, and the network emits the means only."""
    family = NegativeBinomial(num_dims=3).double()
    assert family.raw_shape((3,)) == (3,)
    with torch.no_grad():
        family.log_dispersion.copy_(torch.tensor([-1.0, 0.5, 2.0]))
    log_mean, x = randn(5, 3), torch.randint(0, 9, (5, 3), generator=generator(1))
    both = NegativeBinomial()(log_mean, family.log_dispersion)
    torch.testing.assert_close(family(log_mean).log_prob(x), both.log_prob(x), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"x has the shape \(4,\): use num_dims=4"):
        Conditional((2,), (4,), Silent, family)


@pytest.mark.parametrize("family", [Poisson(), NegativeBinomial()])
def test_extreme_counts_have_finite_gradients(family):
    """In float32, for means from e^-30 to e^30 and counts from 0 to 10^6."""
    raw = torch.stack([torch.linspace(-30, 30, 61)] * family.num_outputs).requires_grad_()
    for x in (0, 1, 1_000_000):
        log_p = family(*raw).log_prob(torch.tensor(x))
        (slope,) = torch.autograd.grad(log_p.sum(), raw)
        assert log_p.isfinite().all()
        assert slope.isfinite().all()


# Categories.


def test_index_categorical():
    """log p(k) = logits_k - logsumexp(logits); integers in, integers out; represented by the most probable one."""
    family = IndexCategorical(5)
    assert family.raw_shape((2, 3)) == (2, 3, 5)
    logits = randn(4, 2, 3, 5)
    d = family(logits)
    every = torch.stack([d.log_prob(torch.full((2, 3), k)) for k in range(5)], -1)
    torch.testing.assert_close(every, logits.log_softmax(-1), rtol=0, atol=1e-13)
    torch.testing.assert_close(every.exp().sum(-1), torch.ones(4, 2, 3, dtype=FLOAT), rtol=0, atol=1e-10)
    assert d.sample().dtype == d.mean.dtype == family.point_estimate(logits).dtype == torch.int64
    assert torch.equal(family.point_estimate(logits), logits.argmax(-1))


@pytest.mark.parametrize("spread", [0.5, 5.0, 60.0])
def test_ordinal_is_the_cumulative_logit_model(spread):
    """P(x <= k) = sigmoid(t_k) with rising thresholds; the masses sum to 1."""
    raw = spread * randn(7, 3, 4)
    d = Ordinal(5)(raw)
    thresholds = torch.cat([raw[..., :1], raw[..., :1] + (nn.functional.softplus(raw[..., 1:]) + 1e-6).cumsum(-1)], -1)
    mass = torch.stack([d.log_prob(torch.full((3,), k)).exp() for k in range(5)], -1)
    torch.testing.assert_close(mass.sum(-1), torch.ones(7, 3, dtype=FLOAT), rtol=0, atol=1e-10)
    torch.testing.assert_close(mass.cumsum(-1)[..., :-1], torch.sigmoid(thresholds), rtol=0, atol=1e-12)
    single = raw.float().requires_grad_()
    for k in range(5):
        log_p = Ordinal(5)(single).log_prob(torch.full((3,), k))
        (slope,) = torch.autograd.grad(log_p.sum(), single)
        assert log_p.isfinite().all()
        assert slope.isfinite().all()


def test_ordinal_of_two_levels_is_bernoulli():
    raw, x = randn(7, 3, 1), torch.randint(0, 2, (7, 3), generator=generator(1))
    bernoulli = torch.distributions.Bernoulli(logits=-raw[..., 0])
    torch.testing.assert_close(Ordinal(2)(raw).log_prob(x), bernoulli.log_prob(x.double()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [IndexCategorical, Ordinal])
def test_categories_start_at_their_frequencies(kind):
    """(n_k + 1/V) / (N + 1) of the observed examples, also for a category that was never seen."""
    x = torch.randint(0, 3, (200, 2, 3), generator=generator(1))
    x[:50, 0, 0] = -1
    d = started(Masked(kind(4)), x, torch.zeros(2, 3, dtype=FLOAT)).base
    counts = torch.stack([(x == k).sum(0) for k in range(4)], -1).double()
    frequencies = (counts + 0.25) / (counts.sum(-1, keepdim=True) + 1)
    torch.testing.assert_close(d.probs[0], frequencies, rtol=1e-6, atol=1e-8)
    uniform = kind(4)(*kind(4).params_for_mean(torch.zeros(2, 3, dtype=FLOAT)))
    torch.testing.assert_close(uniform.probs, torch.full((2, 3, 4), 0.25, dtype=FLOAT), rtol=1e-12, atol=0)


SIZES = [5, 3, 2, 2, 3, 4, 5]


@pytest.mark.parametrize(("columns", "single"), [(Categories, IndexCategorical), (OrdinalColumns, Ordinal)])
def test_columns_are_one_family_each(columns, single):
    """Each column of the packed family is the family of its own size, with its own part of the raw output."""
    family = columns(SIZES)
    lengths = [single(size).raw_shape((1,))[-1] for size in SIZES]
    assert family.raw_shape((7,)) == (sum(lengths),)
    raw = randn(6, sum(lengths))
    parts = [single(size)(part) for size, part in zip(SIZES, raw.split(lengths, -1), strict=True)]
    x = torch.stack([torch.randint(0, size, (6,), generator=generator(i)) for i, size in enumerate(SIZES)], -1)
    d = family(raw)
    expected = torch.stack([part.log_prob(x[:, i]) for i, part in enumerate(parts)], -1)
    torch.testing.assert_close(d.log_prob(x), expected, rtol=0, atol=1e-14)
    assert torch.equal(d.mean, torch.stack([part.mode for part in parts], -1))
    assert torch.equal(family.point_estimate(raw), d.mode)
    torch.manual_seed(0)
    drawn = d.sample(torch.Size([20_000]))
    for i, part in enumerate(parts):
        frequencies = torch.stack([(drawn[..., i] == k).double().mean(0) for k in range(SIZES[i])], -1)
        assert (frequencies - part.probs).abs().max() < 5 * 0.5 / math.sqrt(20_000)
    start = started(family, x, torch.zeros(7, dtype=FLOAT))
    for i, size in enumerate(SIZES):
        alone = started(single(size), x[:, i : i + 1])
        torch.testing.assert_close(
            torch.stack([start.log_prob(torch.tensor(SIZES).sub(1).clamp(max=k))[0, i] for k in range(size)]),
            alone.logits[0, 0],
            rtol=0,
            atol=1e-12,
        )


def test_wide_tables():
    """10,000 columns of 2 to 30 categories: one graph, equal to the eager pass, with holes."""
    sizes = torch.randint(2, 31, (10_000,), generator=generator(0)).tolist()
    family = Masked(Categories(sizes))
    raw = torch.randn(2, *family.raw_shape((10_000,)), generator=generator(1)).requires_grad_()
    x = (torch.rand(2, 10_000, generator=generator(2)) * torch.tensor(sizes)).long()
    x[:, ::7] = -1
    results = []
    for compiler in (lambda f: f, partial(torch.compile, backend="aot_eager", fullgraph=True)):
        log_p = compiler(lambda raw, x: family(raw).log_prob(x))(raw, x)
        results.append((log_p, *torch.autograd.grad(log_p.sum(), raw)))
    assert (results[0][0][:, ::7] == 0).all()
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled, rtol=1e-5, atol=1e-6)


# Real numbers.


def test_log_normal():
    """Equal to scipy.stats.lognorm, with mean and variance; it integrates to 1; it starts at the moments of ln x."""
    loc, log_scale, x = randn(4), randn(4, seed=1), randn(4, seed=2).exp()
    family = LogNormal(min_log_scale=-40)  # far from the floor
    d = family(loc, log_scale)
    scipy = stats.lognorm(log_scale.exp().numpy(), scale=loc.exp().numpy())
    np.testing.assert_allclose(d.log_prob(x).numpy(), scipy.logpdf(x.numpy()), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose([d.mean, d.variance], scipy.stats("mv"), rtol=1e-10)
    y = torch.linspace(-40, 40, 20_001, dtype=FLOAT)[:, None]  # x = exp(y)
    torch.testing.assert_close(
        torch.trapezoid((d.log_prob(y.exp()) + y).exp(), y, dim=0), torch.ones(4, dtype=FLOAT), rtol=0, atol=1e-10
    )
    data = (1.3 + 0.4 * randn(500, 2)).exp()
    data[:100, 0] = torch.nan
    start = started(Masked(LogNormal()), data, data.nanmean(0)).base
    logs = data.log()
    torch.testing.assert_close(start.loc[0], logs.nanmean(0), rtol=1e-9, atol=0)
    torch.testing.assert_close(start.scale[0], (logs - logs.nanmean(0)).square().nanmean(0).sqrt(), rtol=1e-9, atol=0)
    mean = torch.tensor([0.1, 7.0], dtype=FLOAT)
    torch.testing.assert_close(family(*family.params_for_mean(mean)).mean, mean, rtol=1e-9, atol=0)


def test_a_missing_positive_number_has_no_gradient():
    """The filled value is one that has a density."""
    raw = randn(2, 5).requires_grad_()
    log_p = Masked(LogNormal())(*raw).log_prob(torch.tensor([1.0, math.nan, 2.0, math.nan, 0.3], dtype=FLOAT))
    (slope,) = torch.autograd.grad(log_p.sum(), raw)
    assert slope.isfinite().all()
    assert (slope[:, [1, 3]] == 0).all()
    with pytest.raises(ValueError, match=r"LogNormal takes numbers > 0, got values in \[0.0, 2.0\]"):
        LogNormal().check(torch.tensor([0.0, 2.0]))
    Masked(LogNormal()).check(torch.tensor([math.nan, 2.0]))


def test_scale_of_each_dimension():
    """The best scale of each dimension is its root mean square error; with one dimension it is the shared scale."""
    error = randn(50, 3) * torch.tensor([0.1, 1.0, 30.0])
    family = DimensionScaleNormal((3,), initial_scale=0.7).double()
    torch.testing.assert_close(family.scale, torch.full((3,), 0.7, dtype=FLOAT), rtol=1e-6, atol=0)
    rms = error.square().mean(0).sqrt()
    with torch.no_grad():
        family.log_scale.copy_(rms.log() + torch.log(-torch.expm1(family.min_log_scale - rms.log())))
    log_p = family(torch.zeros(50, 3, dtype=FLOAT)).log_prob(error)
    np.testing.assert_allclose(log_p.detach(), stats.norm.logpdf(error, 0, rms), rtol=1e-9)
    (slope,) = torch.autograd.grad(log_p.mean(), family.log_scale)
    assert slope.abs().max() < 1e-12
    one, shared = DimensionScaleNormal((1,), 0.4), SharedScaleNormal(0.4)
    x = torch.randn(5, 1, generator=generator(1))
    assert torch.equal(one(torch.zeros(5, 1)).log_prob(x), shared(torch.zeros(5, 1)).log_prob(x))
    channels = DimensionScaleNormal((2, 1, 1))
    assert channels.raw_shape((2, 4, 3)) == (2, 4, 3)
    with pytest.raises(ValueError, match=r"scales of shape \(3,\), but x has the shape \(4,\): use shape=\[4\]"):
        family.raw_shape((4,))


# All of them.

COUNTS = torch.tensor([[0, 3, 7], [2, 1, 4]])
KINDS = [
    (Poisson(), COUNTS), (NegativeBinomial(), COUNTS), (IndexCategorical(8), COUNTS), (Ordinal(8), COUNTS),
    (Categories([3, 4, 8]), COUNTS), (OrdinalColumns([3, 4, 8]), COUNTS), (LogNormal(), COUNTS + 0.5),
    (DimensionScaleNormal((3,)), COUNTS.float()),
]  # fmt: skip


@pytest.mark.parametrize(("family", "x"), KINDS, ids=lambda value: type(value).__name__)
def test_models_of_tables(family: Family, x):
    """A VAE of such data with holes, from its own start: one graph, finite loss and gradients, samples it can score."""
    torch.compiler.reset()  # the limit of graphs for one function would count the other families
    net = partial(MaskedInput, net=partial(MLP, hidden=[5]))
    torch.manual_seed(0)
    model = VAE((3,), latent_dim=2, encoder=net, decoder=partial(MLP, hidden=[5]), likelihood=Masked(family))
    model.likelihood.check(x)
    model.decoder.init_from_data(x.float().mean(0), x)
    hole = torch.nan if x.is_floating_point() else -1
    x = x.masked_fill(torch.tensor([[False, True, False], [False, False, True]]), hole)
    results = []
    for compiler in (lambda f: f, partial(torch.compile, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(0)
        loss = compiler(lambda x: model.objective(model(x))["loss"])(x)
        results.append((loss, *torch.autograd.grad(loss, list(model.parameters()))))
    for eager, compiled in zip(*results, strict=True):
        assert eager.dtype == torch.float32
        assert eager.isfinite().all()
        torch.testing.assert_close(eager, compiled, rtol=1e-5, atol=1e-5)
    drawn = model.sample(4).sample()
    assert drawn.shape == (4, 3)
    model.likelihood.check(drawn)
    assert model.log_marginal(x, num_samples=5).isfinite().all()
    assert (model.log_marginal(x.masked_fill(is_observed(x), hole), num_samples=5_000, seed=1).abs() < 0.2).all()


def test_checks_of_whole_numbers():
    """Floats, negative numbers and categories beyond the last one are refused, with what to do."""
    for family in (Poisson(), NegativeBinomial(), IndexCategorical(8), Ordinal(8)):
        name = type(family).__name__
        family.check(COUNTS)
        with pytest.raises(ValueError, match=rf"{name} takes whole numbers as integers, got torch.float32: convert"):
            family.check(COUNTS.float())
        with pytest.raises(ValueError, match=rf"{name} takes whole numbers >= 0, got values in \[-1, 6\].*Masked"):
            family.check(COUNTS - 1)
        Masked(family).check(COUNTS - 1)
    with pytest.raises(ValueError, match=r"IndexCategorical takes the categories 0 ... 6, got 7: use 8 categories"):
        IndexCategorical(7).check(COUNTS)
    with pytest.raises(ValueError, match=r"Categories: column 1 has the categories 0 ... 2, got 3"):
        Categories([3, 3, 8]).check(COUNTS)
    with pytest.raises(ValueError, match=r"Categories has 2 sizes, but x has the shape \(3,\)"):
        Conditional((2,), (3,), Silent, Categories([3, 3]))
    for sizes in ([], [1, 2], [2.0], 3, "ab"):
        with pytest.raises(ValueError, match="sizes must be a list of the numbers of categories"):
            Categories(sizes)
    with pytest.raises(ValueError, match="the number of categories must be >= 2, got 1"):
        Ordinal(1)
    with pytest.raises(ValueError, match="num_dims must be >= 1, got 0"):
        NegativeBinomial(0)


def test_integers_are_not_converted_for_networks_that_take_them():
    """A network with ``takes_integers`` is given int64; other networks are given floats."""
    seen = []

    class Net(nn.Module):
        def __init__(self, in_shape, out_shape):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
            self.out_shape = out_shape

        def forward(self, inputs, context=None):
            seen.append(inputs)
            return torch.zeros(len(inputs), *self.out_shape)

    class IntegerNet(Net):
        takes_integers = True

    x = torch.tensor([[100_001, 3, -1]])
    Conditional((3,), (2,), IntegerNet, Normal())(x)
    assert torch.equal(seen[0], x)
    Conditional((3,), (2,), Net, Normal())(x)
    assert seen[1].dtype == torch.bfloat16
    assert seen[1].isnan().tolist() == [[False, False, True]]
