"""Data with missing entries: the exact answers of probabilistic PCA, identities with complete data, and gradients."""

import math
from functools import partial

import pytest
import torch
from ppca import PPCA, data_with_spectrum, generator, inverse_soft_floor, linear, rotation
from torch import nn
from torch.distributions import Independent, MultivariateNormal

from vaezoo.conditional import Conditional
from vaezoo.families import (
    Bernoulli,
    FixedScaleNormal,
    Laplace,
    Masked,
    Normal,
    OptimalScaleNormal,
    Rescaled,
)
from vaezoo.missing import fill_missing, is_observed, to_float, to_whole
from vaezoo.models import VAE
from vaezoo.nets import MLP, ConvEncoder, LabelConditioned, MaskedInput
from vaezoo.priors import VampPrior

FLOAT = torch.float64
NAN = float("nan")
SPECTRUM = torch.tensor([4.2, 1.9, 1.0, 0.6, 0.4, 0.2], dtype=FLOAT)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=generator(seed))


def with_holes(x, share=0.4, seed=5):
    """x with NaN at random; the first example is complete, the second one has no observed entry."""
    holes = torch.rand(x.shape, generator=generator(seed)) < share
    holes[0], holes[1] = False, True
    return x.masked_fill(holes, NAN)


def test_marks_of_missing_entries():
    """NaN in floats, a negative number in integers; both are converted into each other."""
    x, k = torch.tensor([[1.5, NAN, 0.0]]), torch.tensor([[3, -1, 0]])
    assert is_observed(x).tolist() == is_observed(k).tolist() == [[True, False, True]]
    assert is_observed(torch.tensor([math.inf, -1.0])).all()
    assert fill_missing(x).tolist() == [[1.5, 0, 0]]
    assert fill_missing(k, 1).tolist() == [[3, 1, 0]]
    assert fill_missing(k).dtype == torch.int64
    assert to_whole(to_float(k, torch.float32)).tolist() == k.tolist()
    assert to_float(k, FLOAT).isnan().tolist() == [[False, True, False]]
    largest = torch.tensor([2**24, 2**24 - 1])
    assert to_whole(to_float(largest, torch.float32)).tolist() == largest.tolist()


# Probabilistic PCA with holes.


class Exact(nn.Module):
    """The exact posterior of a PPCA with a diagonal M for every set of observed entries (see ``orthogonal``)."""

    def __init__(self, ppca, floor):
        super().__init__()
        self.ppca, self.floor = ppca, floor

    def forward(self, inputs, context=None):
        observed = is_observed(inputs).to(FLOAT)
        centred = fill_missing(inputs - self.ppca.mean)
        variance = 1 / (1 + observed @ self.ppca.weight.square() / self.ppca.variance)  # (B, D) as M is diagonal
        loc = variance * (centred @ self.ppca.weight) / self.ppca.variance
        return torch.cat([loc, inverse_soft_floor(variance.log() / 2, self.floor)], 1)


def test_importance_weights_of_the_exact_posterior_are_the_evidence_of_what_is_observed():
    """log p(x_o) = log N(x_o; mu_o, W_o W_o' + sigma^2 I): each weight p(x_o, z) / q(z | x_o) is equal to it.

    Each row of W has one number that is not 0, so the posterior is diagonal for every set of observed entries.
    """
    weight = torch.zeros(6, 2, dtype=FLOAT)
    weight[torch.arange(6), torch.tensor([0, 1, 0, 1, 1, 0])] = randn(6, seed=3)
    ppca = PPCA(weight, torch.linspace(-1, 1, 6, dtype=FLOAT), 0.3)
    model = ppca.vae((6,))
    model.decoder.family = Masked(model.decoder.family)
    model.encoder.net = Exact(ppca, model.encoder.family.min_log_scale)
    torch.manual_seed(0)
    x = with_holes(ppca.evidence.sample(torch.Size([20])))
    log_w = model(x, num_samples=7).log_w
    for i, example in enumerate(x):
        o = is_observed(example)
        covariance = weight[o] @ weight[o].T + ppca.variance * torch.eye(int(o.sum()), dtype=FLOAT)
        exact = MultivariateNormal(ppca.mean[o], covariance).log_prob(example[o]) if o.any() else torch.zeros(())
        torch.testing.assert_close(log_w[:, i], exact.to(FLOAT).expand(7), rtol=0, atol=1e-12)
        bound = model.log_marginal(x[i : i + 1], num_samples=5)
        torch.testing.assert_close(bound, exact.to(FLOAT).expand(1), rtol=0, atol=1e-12)


def ppca_model(masked):
    x, mean, axes = data_with_spectrum(SPECTRUM, 40)
    ppca = PPCA.fit(SPECTRUM, mean, axes, 3, rotation(3, 11))
    model = ppca.vae((6,))
    if masked:
        model.decoder.family = Masked(model.decoder.family)
    return model, x


def test_complete_data_give_the_same_bits():
    """If all entries are observed, the loss and the gradients are those of the family without a mask."""
    results = []
    for masked in (False, True):
        model, x = ppca_model(masked)
        torch.manual_seed(0)
        loss = model.objective(model(x, num_samples=3))["loss"]
        gradients = torch.autograd.grad(loss, list(model.decoder.net.parameters()) + list(model.encoder.parameters()))
        results.append([loss, *gradients])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_an_example_without_observed_entries():
    """Its log p(x | z) is 0, so that its ELBO is -KL."""
    model, x = ppca_model(masked=True)
    model.encoder = Conditional((6,), (3,), partial(MaskedInput, net=linear), Normal()).double()
    trace = model(torch.full_like(x, NAN), num_samples=4)
    assert torch.equal(trace.log_px, torch.zeros(4, 40, dtype=FLOAT))
    assert torch.equal(trace.elbo, -trace.kl.sum(1))
    assert (trace.kl > 0).all()


@pytest.mark.parametrize("family", [FixedScaleNormal(0.5), Normal(), Laplace(), Bernoulli()])
def test_a_missing_entry_has_no_gradient(family):
    """The gradient of its raw parameters is exactly 0, and finite for the others."""
    raw = randn(family.num_outputs, 5, 4).requires_grad_()
    x = with_holes((randn(5, 4, seed=1) > 0).double())
    log_px = Masked(family).double()(*raw).log_prob(x)
    (slope,) = torch.autograd.grad(log_px.sum(), raw)
    observed = is_observed(x)
    assert torch.equal(log_px[~observed], torch.zeros(int((~observed).sum()), dtype=FLOAT))
    assert (slope[:, ~observed] == 0).all()
    assert (slope[:, observed] != 0).all()
    expected = family(*raw).log_prob(fill_missing(x))
    assert torch.equal(log_px[observed], expected[observed])


def test_masked_family_passes_on_what_it_wraps():
    """Outputs, kinds of data, samples, means; ``check`` looks at observed entries only."""
    family = Normal()
    masked = Masked(family)
    assert (masked.num_outputs, masked.supported_data, masked.space) == (2, family.supported_data, "real")
    raw = (torch.zeros(3, 2), torch.zeros(3, 2))
    assert torch.equal(masked(*raw).mean, raw[0])
    assert torch.equal(masked.point_estimate(*raw), raw[0])
    px = Independent(masked(*raw), 1)
    torch.manual_seed(0)
    drawn = px.rsample(torch.Size([4]))
    torch.manual_seed(0)
    assert torch.equal(drawn, Independent(family(*raw), 1).rsample(torch.Size([4])))
    Masked(Bernoulli()).check(torch.tensor([1.0, NAN, 0.0]))
    with pytest.raises(ValueError, match="Bernoulli takes only the values 0 and 1"):
        Masked(Bernoulli()).check(torch.tensor([0.5, NAN]))
    with pytest.raises(ValueError, match="Bernoulli takes only the values 0 and 1"):
        Bernoulli().check(torch.tensor([1.0, NAN]))
    with pytest.raises(ValueError, match=r"out of OptimalScaleNormal.* use SharedScaleNormal"):
        Masked(OptimalScaleNormal())
    mean = torch.tensor([0.5, NAN])
    assert masked.params_for_mean(mean)[0].tolist() == masked.params_for_data(mean, raw[0])[0].tolist() == [0.5, 0.0]


def test_compiled_pass_is_one_graph():
    """The compiled loss of data with missing entries has the value and the gradients of the eager pass."""
    x = with_holes(randn(8, 6)).float()
    results = []
    for compiler in (lambda f: f, partial(torch.compile, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(0)
        net = partial(MaskedInput, net=partial(MLP, hidden=[5]))
        model = VAE((6,), latent_dim=2, encoder=net, decoder=linear, likelihood=Masked(FixedScaleNormal(0.5)))
        torch.manual_seed(0)
        loss = compiler(lambda x, model=model: model.objective(model(x))["loss"])(x)
        results.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    for eager, compiled in zip(*results, strict=True):
        assert eager.isfinite().all()
        torch.testing.assert_close(eager, compiled, rtol=1e-5, atol=1e-6)


# Units.


@pytest.mark.parametrize("c", [1000.0, -0.02])
def test_another_unit_of_a_column_moves_the_elbo(c):
    """A column of u times c moves the ELBO by -ln |c| for each observed entry, and the gradients stay the same."""
    x = with_holes(randn(9, 3))
    results = []
    for scale in ([2.0, 0.5, 3.0], [2.0, 0.5 * c, 3.0]):
        torch.manual_seed(0)
        net = partial(MaskedInput, net=partial(MLP, hidden=[5]))
        likelihood = Masked(Rescaled(FixedScaleNormal(0.5), scale))
        model = VAE((3,), latent_dim=2, encoder=net, decoder=linear, likelihood=likelihood).double()
        torch.manual_seed(0)
        elbo = model(x).elbo
        results.append((elbo, *torch.autograd.grad(elbo.sum(), list(model.parameters()))))
    (elbo, *slopes), (moved, *slopes_moved) = results
    change = -math.log(abs(c)) * is_observed(x[:, 1])
    torch.testing.assert_close(moved - elbo, change.to(FLOAT), rtol=1e-6, atol=1e-6)
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(slopes, slopes_moved, strict=True))


def test_density_in_the_users_unit():
    """If u = 3 + 2 x and x ~ N(m, s^2), then u ~ N(3 + 2 m, (2 s)^2): its log density at u."""
    loc, x = randn(4, 2), randn(4, 2, seed=1)
    ours = Rescaled(FixedScaleNormal(0.7), 2.0).double()(loc).log_prob(x)
    torch.testing.assert_close(ours, FixedScaleNormal(1.4)(3 + 2 * loc).log_prob(3 + 2 * x), rtol=0, atol=1e-7)
    for scale in (0, NAN, [1.0, 0.0], "a"):
        with pytest.raises(ValueError, match="scale must hold finite numbers that are not 0"):
            Rescaled(Normal(), scale)
    with pytest.raises(ValueError, match=r"use Masked\(Rescaled\(family\)\)"):
        Rescaled(Masked(Normal()), 2.0)


# Networks and priors.


@pytest.mark.parametrize("shape", [(5,), (2, 9, 7)], ids=str)
@pytest.mark.parametrize("integers", [False, True])
def test_network_sees_the_filled_data_and_the_mask(shape, integers):
    """Changed by hand: the inner network is given cat([x with 0, mask]), also for integers."""
    seen = []

    class Inner(nn.Module):
        def __init__(self, in_shape, out_shape):
            super().__init__()
            assert in_shape == (2 * shape[0], *shape[1:])
            self.weight = nn.Parameter(torch.zeros(1, dtype=FLOAT))
            self.out_shape = out_shape

        def forward(self, inputs, context=None):
            seen.append(inputs)
            return inputs.new_zeros(len(inputs), *self.out_shape)

    x = with_holes(randn(4, *shape).mul(3).round().abs())
    conditional = Conditional(shape, (2,), partial(MaskedInput, net=Inner), Normal())
    conditional(to_whole(x) if integers else x)
    assert torch.equal(seen[0], torch.cat([x.nan_to_num(0), (~x.isnan()).double()], 1))


def test_masked_input_of_other_networks():
    """It wraps convolutions and networks with labels, in both orders; holes in the labels' part are none."""
    x = with_holes(torch.rand(4, 1, 9, 7, generator=generator(1)))
    assert MaskedInput((1, 9, 7), (3,), partial(ConvEncoder, channels=[4], hidden=5))(x).isfinite().all()
    mlp, labels = partial(MLP, hidden=[4]), torch.arange(4)
    inner = partial(LabelConditioned, net=mlp, num_classes=4)
    outer = partial(MaskedInput, net=mlp)
    counts = to_whole(with_holes(torch.rand(4, 3, generator=generator(1)).round()))
    for net in (partial(MaskedInput, net=inner), partial(LabelConditioned, net=outer, num_classes=4)):
        assert Conditional((1, 9, 7), (2,), net, Normal())(x, labels).mean.isfinite().all()
        assert Conditional((3,), (2,), net, Normal())(counts, labels).mean.isfinite().all()


def test_pseudo_inputs_of_data_with_holes():
    """They start at the mean of the observed entries, at 1/2 if there are none; complete data give the same bits."""
    encoder = Conditional((3,), (2,), partial(MaskedInput, net=linear), Normal())
    prior = VampPrior((2,), encoder, num_components=4, noise=1e-9)
    x = torch.tensor([[0.2, NAN, NAN], [0.4, 0.6, NAN]])
    prior.init_from_data(x)
    expected = torch.tensor([[0.2, 0.6, 0.5], [0.4, 0.6, 0.5]]).repeat(2, 1)
    torch.testing.assert_close(prior.pseudo_inputs, expected, rtol=0, atol=1e-6)
    complete = torch.rand(4, 3)
    torch.manual_seed(0)
    prior.init_from_data(complete)
    torch.manual_seed(0)
    logits = torch.logit(complete, eps=prior.margin)
    assert torch.equal(prior.pixels, logits + prior.noise * torch.randn_like(logits))


def test_counts_enter_on_a_standardized_logarithmic_scale():
    """(ln(1 + x) - loc) / scale in the columns that are named; the mask and the other columns stay as they are."""
    seen = []

    class Net(torch.nn.Module):
        def __init__(self, in_shape, out_shape):
            super().__init__()
            self.linear = torch.nn.Linear(in_shape[0], out_shape[0])

        def forward(self, inputs, context=None):
            seen.append(inputs)
            return self.linear(inputs)

    x = torch.tensor([[0.5, 7.0, 80_331.0], [-2.0, math.nan, 0.0]])
    MaskedInput((3,), (2,), Net, log_columns=[2, 1], loc=[11.0, 1.0], scale=[0.5, 2.0])(x)
    logs = [(math.log(8) - 1) / 2, 0.0], [(math.log(80_332) - 11) / 0.5, -11 / 0.5]
    expected = [[0.5, logs[0][0], logs[1][0], 1, 1, 1], [-2.0, 0.0, logs[1][1], 1, 0, 1]]
    torch.testing.assert_close(seen[-1], torch.tensor(expected), rtol=1e-5, atol=1e-5)
