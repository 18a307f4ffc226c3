"""The trace, the objective, the means over examples and the seeds: identities and exact values."""

import math
import shutil
from functools import partial

import pytest
import torch
from ppca import generator, trace_at
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    kl_divergence,
)

from vaezoo import seeding
from vaezoo.conditional import Conditional
from vaezoo.distributions import Deterministic
from vaezoo.families import FixedScaleNormal
from vaezoo.families import Normal as NormalFamily
from vaezoo.models import VAE, BetaVAE
from vaezoo.nets import MLP
from vaezoo.objectives import ELBO
from vaezoo.trace import Latent, Trace
from vaezoo.training.evaluation_loop import batch_values
from vaezoo.training.means import ExampleMean
from vaezoo.types import Batch

FLOAT = torch.float64
DATA_SHAPE = (1, 3, 4)
CPU = torch.device("cpu")


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=generator(seed))


def diagonal(loc, scale):
    return Independent(Normal(loc, scale), 1)


def make_model(cls=VAE, latent_dim=4, **kwargs):
    torch.manual_seed(0)
    model = cls(DATA_SHAPE, latent_dim=latent_dim, likelihood=FixedScaleNormal(0.5), **kwargs).double()
    with torch.no_grad():
        model.encoder.net.layers[-1].weight.mul_(5)  # far from the prior
    return model


def trace_with_kl(kl):
    """A trace whose KL per dimension is ``kl`` (B, D) exactly: KL(N(m, 1), N(0, 1)) = m^2 / 2. Returns m, too."""
    loc = (2 * kl).sqrt().requires_grad_()
    q = diagonal(loc, torch.ones_like(loc))
    p = diagonal(torch.zeros(kl.shape[1], dtype=FLOAT), torch.ones(kl.shape[1], dtype=FLOAT))
    x = torch.zeros(len(kl), 2, dtype=FLOAT)
    px = diagonal(x[None] + 1, torch.ones(1, len(kl), 2, dtype=FLOAT))  # does not depend on z
    return Trace(x, px, (Latent(q, p, q.sample(torch.Size([1]))),)), loc


def three_layers(num_samples, batch=5):
    """A hierarchy: N(. | x), then N(. | samples) with a mixture prior, then one-hot codes."""
    torch.manual_seed(num_samples)
    q1 = diagonal(randn(batch, 3, seed=1), randn(batch, 3, seed=2).exp())
    z1 = q1.rsample(torch.Size([num_samples]))
    q2 = diagonal(z1[..., :2].tanh(), z1[..., 1:].sigmoid() + 0.5)  # batch shape (K, B)
    q3 = Independent(OneHotCategorical(logits=z1.unsqueeze(-2) * randn(2, 1, seed=3)), 1)  # event (2, 3)
    p1 = diagonal(torch.zeros(3, dtype=FLOAT), torch.ones(3, dtype=FLOAT))
    p3 = Independent(OneHotCategorical(logits=torch.zeros(2, 3, dtype=FLOAT)), 1)
    x = randn(batch, 6, seed=4)
    px = diagonal(z1.repeat(1, 1, 2), torch.ones_like(x))
    z2 = q2.sample()
    return Trace(x, px, (Latent(q1, p1, z1), Latent(q2, mixture(2), z2), Latent(q3, p3, q3.sample())))


def mixture(dim, components=3):
    """A mixture of diagonal normals over ``dim`` dimensions: torch has no KL to it."""
    parts = diagonal(2 * randn(components, dim, seed=7), randn(components, dim, seed=8).exp())
    return MixtureSameFamily(Categorical(logits=randn(components, seed=9)), parts)


# The bound.


def test_elbo_is_log_px_minus_kl():
    """ELBO = E_q log p(x | z) - KL, with log p summed over the data dimensions (Kingma & Welling 2013, eq. 3)."""
    model, x = make_model(), randn(6, *DATA_SHAPE)
    torch.manual_seed(3)
    trace = model(x, num_samples=5)
    latent, mean = trace.latent, model.decoder(trace.latent.z).mean
    sse = ((x - mean) / 0.5).square().flatten(2).sum(2)
    log_px = -(sse + 12 * math.log(2 * math.pi * 0.25)) / 2
    torch.testing.assert_close(trace.log_px, log_px, rtol=1e-12, atol=0)
    variance, loc = latent.q.variance, latent.q.mean
    kl = (variance + loc.square() - 1 - variance.log()) / 2
    torch.testing.assert_close(latent.kl_per_dim, kl, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(trace.kl, kl.sum(1, keepdim=True), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(trace.elbo, log_px.mean(0) - kl.sum(1), rtol=1e-12, atol=0)
    log_w = log_px + (-latent.z.square() + ((latent.z - loc) / variance.sqrt()).square() + variance.log()).sum(2) / 2
    torch.testing.assert_close(trace.log_w, log_w, rtol=1e-12, atol=1e-12)


def test_mean_log_weight_is_the_elbo():
    """E log w = ELBO: log w at K = 1 is an unbiased estimate of the bound."""
    model, x = make_model(), randn(6, *DATA_SHAPE)
    torch.manual_seed(4)
    with torch.no_grad():
        single = model(x, num_samples=1)
        assert single.log_w.shape == (1, 6)
        trace = model(x, num_samples=20_000)
    difference = trace.log_w - trace.log_px + trace.kl.sum(1)  # log p(z) - log q(z | x) + KL
    assert difference.std() > 0.1
    assert (difference.mean(0).abs() < 5 * difference.std(0) / math.sqrt(20_000)).all()


def test_samples_are_reparameterized():
    """A model's forward pass uses z = mu + sigma eps with eps ~ N(0, I) from the default generator."""
    model, x = make_model(num_samples=3), randn(6, *DATA_SHAPE)
    torch.manual_seed(5)
    own = model(x)
    torch.manual_seed(5)
    given = trace_at(model, x, torch.randn(3, 6, 4, dtype=FLOAT))
    torch.testing.assert_close(own.elbo, given.elbo, rtol=1e-12, atol=0)
    own.elbo.sum().backward()
    gradient = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    given.elbo.sum().backward()
    torch.testing.assert_close(gradient, [p.grad for p in model.parameters()], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("num_samples", [1, 4])
def test_hierarchy(num_samples):
    """ELBO = log p(x | z) - sum_l KL_l, means over K. A layer that depends on samples has batch shape (K, B)."""
    trace = three_layers(num_samples)
    first, second, third = trace.latents
    kl2 = (second.q.log_prob(second.z) - second.p.log_prob(second.z)).mean(0)
    logits = third.q.base_dist.logits
    kl3 = (logits.exp() * (logits + math.log(3))).sum((-1, -2)).mean(0)  # sum p ln(3 p)
    expected = torch.stack([kl_divergence(first.q, first.p), kl2, kl3], 1)
    torch.testing.assert_close(trace.kl, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(trace.elbo, trace.log_px.mean(0) - expected.sum(1), rtol=1e-12, atol=0)
    log_w = trace.px.log_prob(trace.x)
    for latent in trace.latents:
        log_w = log_w + latent.p.log_prob(latent.z) - latent.q.log_prob(latent.z)
    torch.testing.assert_close(trace.log_w, log_w, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="one stochastic layer, but this one has 3"):
        _ = trace.latent
    if num_samples == 4:
        many = three_layers(20_000)
        gap = many.log_w - many.log_px + many.kl.sum(1)
        assert (gap.mean(0).abs() < 5 * gap.std(0) / math.sqrt(20_000)).all()


def test_kl_per_dim_on_samples():
    """A closed-form KL that depends on K samples is averaged over them, for each dimension."""
    loc = randn(4, 5, 3)
    q, p = diagonal(loc, torch.ones_like(loc)), diagonal(torch.zeros(3, dtype=FLOAT), torch.ones(3, dtype=FLOAT))
    latent = Latent(q, p, q.sample())
    torch.testing.assert_close(latent.kl_per_dim, (loc.square() / 2).mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(latent.kl, (loc.square() / 2).mean(0).sum(1), rtol=1e-12, atol=0)


def test_full_covariance():
    """If only the joint KL exists, it is 1/2 [tr S + m'm - D - ln det S], and there is no KL per dimension."""
    half = randn(5, 3, 3)
    covariance = half @ half.mT + torch.eye(3, dtype=FLOAT)
    q = MultivariateNormal(randn(5, 3, seed=1), covariance)
    p = MultivariateNormal(torch.zeros(3, dtype=FLOAT), torch.eye(3, dtype=FLOAT))
    latent = Latent(q, p, q.sample(torch.Size([2])))
    trace = covariance.diagonal(dim1=1, dim2=2).sum(1)
    expected = (trace + q.mean.square().sum(1) - 3 - torch.logdet(covariance)) / 2
    assert latent.kl_per_dim is None
    torch.testing.assert_close(latent.kl, expected, rtol=1e-10, atol=0)


def test_kl_estimate_is_unbiased():
    """Without a closed form, mean_K [log q - log p] estimates the KL, which is a sum over a fine grid in 1-D."""
    q, p = diagonal(randn(6, 1, seed=1), randn(6, 1, seed=2).exp()), mixture(1)
    grid = torch.linspace(-30, 30, 60_001, dtype=FLOAT)[:, None, None]
    log_q = q.log_prob(grid)
    exact = (log_q.exp() * (log_q - p.log_prob(grid))).sum(0) * 1e-3
    torch.manual_seed(6)
    z = q.sample(torch.Size([40_000]))
    latent = Latent(q, p, z)
    assert latent.kl_per_dim is None
    assert latent.kl.shape == (6,)
    error = (latent.log_q - latent.log_p).std(0) / 200
    assert ((latent.kl - exact).abs() < 5 * error).all()
    elementwise = Independent(
        MixtureSameFamily(Categorical(torch.ones(1, 2, dtype=FLOAT)), Normal(randn(1, 2), randn(1, 2).exp())), 1
    )
    assert Latent(q, elementwise, z).kl_per_dim is None


def test_degenerate_mixture():
    """A mixture whose components are all N(0, I) is N(0, I): the mean of the estimate is the closed-form KL."""
    zeros = torch.zeros(3, 2, dtype=FLOAT)
    q = diagonal(randn(5, 2, seed=1), randn(5, 2, seed=2).exp())
    z = q.sample(torch.Size([20_000]))
    estimate = Latent(q, MixtureSameFamily(Categorical(logits=zeros[:, 0]), diagonal(zeros, zeros + 1)), z)
    exact = Latent(q, diagonal(zeros[0], zeros[0] + 1), z)
    torch.testing.assert_close(estimate.log_p, exact.log_p, rtol=1e-12, atol=1e-12)
    error = (exact.log_q - exact.log_p).std(0) / math.sqrt(20_000)
    assert ((estimate.kl - exact.kl).abs() < 5 * error).all()


# Symmetries.


def test_permuting_latents_changes_nothing():
    """The ELBO does not depend on the order of the latent dimensions."""
    order = torch.tensor([2, 0, 3, 1])
    model, other, x, eps = make_model(), make_model(), randn(6, *DATA_SHAPE), randn(3, 6, 4, seed=1)
    with torch.no_grad():
        last, first = other.encoder.net.layers[-1], other.decoder.net.layers[0]
        rows = torch.cat([order, order + 4])
        last.weight.copy_(last.weight[rows])
        last.bias.copy_(last.bias[rows])
        first.weight.copy_(first.weight[:, order])
    one, two = trace_at(model, x, eps), trace_at(other, x, eps[..., order])
    torch.testing.assert_close(two.elbo, one.elbo, rtol=1e-12, atol=0)
    torch.testing.assert_close(two.log_w, one.log_w, rtol=1e-12, atol=0)
    torch.testing.assert_close(two.latent.kl_per_dim, one.latent.kl_per_dim[:, order], rtol=1e-12, atol=1e-14)
    assert (trace_at(other, x, eps).elbo - one.elbo).abs().max() > 1e-3  # the order of eps does matter


@pytest.mark.parametrize("free_bits", [0.0, 0.7])
def test_repeating_the_batch_changes_nothing(free_bits):
    """Losses are means over examples: a repeated batch has the same loss and gradient."""
    model, x, eps = make_model(BetaVAE, beta=3.0, free_bits=free_bits), randn(6, *DATA_SHAPE), randn(2, 6, 4, seed=1)
    results = []
    for copies in (1, 3):
        trace = trace_at(model, x.repeat(copies, 1, 1, 1), eps.repeat(1, copies, 1))
        loss = model.objective(trace)["loss"]
        gradient = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        results.append([loss, trace.elbo.mean(), *gradient])
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-12)


def test_repeating_the_samples_changes_nothing():
    """The loss is a mean over the K posterior samples as well."""
    model, x, eps = make_model(BetaVAE, beta=3.0), randn(6, *DATA_SHAPE), randn(2, 6, 4, seed=1)
    once, twice = (trace_at(model, x, noise) for noise in (eps, eps.repeat(2, 1, 1)))
    torch.testing.assert_close(twice.elbo, once.elbo, rtol=1e-12, atol=0)
    torch.testing.assert_close(model.objective(twice)["loss"], model.objective(once)["loss"], rtol=1e-12, atol=0)


# The objective.


def test_beta_is_only_in_the_loss():
    """loss(beta) = -mean log p(x | z) + beta mean KL; at beta = 1 it is -ELBO (Higgins et al. 2017)."""
    model, x, eps = make_model(), randn(6, *DATA_SHAPE), randn(3, 6, 4, seed=1)
    trace = trace_at(model, x, eps)
    distortion, rate = -trace.log_px.mean(), trace.kl.sum(1).mean()
    for beta in (0.0, 0.5, 1.0, 4.0):
        torch.testing.assert_close(ELBO(beta)(trace)["loss"], distortion + beta * rate, rtol=1e-12, atol=0)
    torch.testing.assert_close(model.objective(trace)["loss"], -trace.elbo.mean(), rtol=1e-12, atol=0)
    heavy = make_model(BetaVAE, beta=7.0)
    torch.testing.assert_close(trace_at(heavy, x, eps).elbo, trace.elbo, rtol=0, atol=0)
    torch.testing.assert_close(heavy.objective(trace)["loss"], distortion + 7 * rate, rtol=1e-12, atol=0)
    objective = ELBO(2.0)
    objective.beta.fill_(3.0)  # as a schedule does
    torch.testing.assert_close(objective(trace)["loss"], distortion + 3 * rate, rtol=1e-12, atol=0)
    assert objective.configured_weights["beta"] == 2.0
    assert not objective.state_dict()


@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_impossible_weights(value):
    """A weight that is not a finite number >= 0 raises, with its name and value."""
    with pytest.raises(ValueError, match=f"beta must be a finite number >= 0, got {value}"):
        ELBO(value)
    with pytest.raises(ValueError, match=f"free_bits must be a finite number >= 0, got {value}"):
        VAE(DATA_SHAPE, latent_dim=20, free_bits=value)


def test_free_bits():
    """Rate = sum_d max(free_bits, mean_B KL_d) (Kingma et al. 2016, eq. 15): the mean over the batch has the floor."""
    kl = torch.tensor([[0.1, 0.0, 2.0], [0.3, 1.6, 3.0]], dtype=FLOAT)  # means 0.2, 0.8, 2.5
    trace, loc = trace_with_kl(kl)
    objective = ELBO(beta=2.0).double()
    objective.set_weight("free_bits", 0.5)
    loss = objective(trace)["loss"]
    assert loss.item() == pytest.approx(2 * (0.5 + 0.8 + 2.5) - trace.log_px.mean().item(), rel=1e-7)
    (gradient,) = torch.autograd.grad(loss, loc)
    assert gradient[:, 0].tolist() == [0.0, 0.0]  # floored
    torch.testing.assert_close(gradient[:, 1:], (2 * loc / 2).detach()[:, 1:], rtol=1e-12, atol=0)  # beta m / B
    torch.testing.assert_close(trace.elbo, trace.log_px.mean(0) - kl.sum(1), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="a prior that factorize over dimensions: use"):
        objective(three_layers(2))


def test_validation_step_adds_up_the_bound():
    """The means of validation: the ELBO without beta, a KL per dimension that sums to the KL, and active units."""
    x, y = randn(7, *DATA_SHAPE), torch.zeros(7)
    model = make_model(BetaVAE, beta=5.0)
    with torch.no_grad():
        model.encoder.net.layers[-1].weight[0] = 0  # the first dimension's mean is constant, and not 0
        model.encoder.net.layers[-1].bias[0] = -2
    torch.manual_seed(8)
    trace = model(x)
    for part in (slice(0, 5), slice(5, 7)):  # a ragged last batch
        torch.manual_seed(8)
        eps = torch.randn(1, 7, 4, dtype=FLOAT)[:, part]
        model.forward = lambda x, context, eps=eps: trace_at(model, x, eps)
        model.eval_step("val", Batch(x[part], y[part]))
    values = model.stage_values("val")
    distortion, rate = -trace.log_px.mean().item(), trace.kl.sum(1).mean().item()
    assert values["elbo"] == pytest.approx(-distortion - rate, rel=1e-12)
    assert values["log_px"] == pytest.approx(-distortion, rel=1e-12)
    assert values["kl"] == pytest.approx(rate, rel=1e-12)
    assert values["loss"] == pytest.approx(distortion + 5 * rate, rel=1e-12)
    per_dim = [values[f"kl_dim/{d:03d}"] for d in range(4)]
    assert per_dim == pytest.approx(trace.latent.kl_per_dim.mean(0).tolist(), rel=1e-12)
    used = trace.latent.q.mean.var(0, unbiased=False) > 0.01
    assert used.tolist() == [False, True, True, True]
    assert values["active_units"] == 3


@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_objective_compiles_to_one_graph():
    """x -> loss compiles to one graph, whose loss is the eager one for the same noise."""
    from torch._inductor import config as inductor

    torch.manual_seed(0)
    net = partial(MLP, hidden=[16])
    model = BetaVAE((1, 4, 4), beta=4.0, latent_dim=2, likelihood=FixedScaleNormal(0.5), encoder=net, decoder=net)
    x = torch.rand(8, 1, 4, 4, generator=generator(1))

    def loss(x):
        return model.objective(model(x))["loss"]

    with inductor.patch(fallback_random=True):  # eager's random numbers
        compiled = torch.compile(loss, fullgraph=True)
        for seed in (0, 1):
            torch.manual_seed(seed)
            eager = loss(x)
            torch.manual_seed(seed)
            ours = compiled(x)
            torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-5)
        parameters = list(model.parameters())
        gradients = [torch.autograd.grad(value, parameters) for value in (ours, eager)]
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)
        model.objective.beta.fill_(9.0)  # a schedule needs no new graph
        with torch.compiler.set_stance("fail_on_recompile"):
            torch.manual_seed(1)
            annealed = compiled(x)
    torch.manual_seed(1)
    torch.testing.assert_close(annealed, loss(x), rtol=1e-5, atol=1e-5)
    assert (annealed - eager).abs() > 1e-3


# Sample dimensions.


class Sees(nn.Module):
    """A network whose output depends on its inputs and its context, and that takes only one batch dimension."""

    def __init__(self, in_shape, out_shape):
        super().__init__()
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        self.weight = nn.Parameter(randn(math.prod(in_shape), math.prod(out_shape), seed=1))
        self.mix = nn.Parameter(randn(2, math.prod(out_shape), seed=2))

    def forward(self, inputs, context=None):
        assert inputs.shape[1:] == self.in_shape
        h = torch.tanh(inputs.flatten(1) @ self.weight)
        if context is not None:
            assert context.shape == (len(inputs), 2)
            h = h + context @ self.mix
        return h.unflatten(1, self.out_shape)


@pytest.mark.parametrize("with_context", [False, True])
@pytest.mark.parametrize("leading", [(3,), (2, 3), (4, 2, 3)])
@pytest.mark.parametrize(("in_shape", "out_shape"), [((4,), (2, 3, 5)), ((2, 3), (4,))])
def test_sample_dimensions_fold_and_unfold(with_context, leading, in_shape, out_shape):
    """p(y | inputs[k, b], context[b]) for each k and b, with any dimensions before the batch dimension."""
    conditional = Conditional(in_shape, out_shape, Sees, NormalFamily()).double()
    inputs, context = randn(*leading, *in_shape), randn(3, 2, seed=5) if with_context else None
    y = randn(3, *out_shape, seed=6)
    together = conditional(inputs, context)
    assert together.batch_shape == leading
    assert together.event_shape == out_shape
    log_p = together.log_prob(y)
    assert log_p.shape == leading
    for index in torch.cartesian_prod(*(torch.arange(n) for n in leading)).reshape(-1, len(leading)).tolist():
        b = index[-1]
        alone = conditional(inputs[tuple(index)][None], None if context is None else context[b : b + 1])
        torch.testing.assert_close(log_p[tuple(index)], alone.log_prob(y[b : b + 1])[0], rtol=1e-12, atol=0)
        outputs = conditional.net(inputs[tuple(index)][None], None if context is None else context[b : b + 1])[0]
        torch.testing.assert_close(together.mean[tuple(index)], outputs[: out_shape[0]], rtol=1e-12, atol=1e-14)


# Means over examples.


@pytest.mark.parametrize("sizes", [[10, 10, 3], [23], [1] * 23, [7, 16]])
def test_example_mean(sizes):
    """The sum over examples divided by their number, in float64: it does not depend on the sizes of the batches."""
    scalar, vector = randn(23).float() + 1e4, randn(23, 3, seed=1).float()
    metric, start = ExampleMean(), 0
    for size in sizes:
        metric.update({"a": scalar[start : start + size], "b": vector[start : start + size]})
        start += size
    means = metric.compute()
    torch.testing.assert_close(means["a"], scalar.double().mean(), rtol=1e-14, atol=0)
    torch.testing.assert_close(means["b"], vector.double().mean(0), rtol=1e-12, atol=1e-14)
    metric.reset()
    metric.update({"a": scalar[:2], "b": vector[:2]})
    torch.testing.assert_close(metric.compute()["a"], scalar[:2].double().mean(), rtol=1e-14, atol=0)


def test_example_means_merge():
    """The sums and counts of two processes add up to those of one, also if one has more examples."""
    values = randn(23)
    parts = []
    for part in (values[:4], values[4:]):
        parts.append(ExampleMean())
        parts[-1].update({"a": part})
    parts[0].merge_state(parts[1])
    torch.testing.assert_close(parts[0].compute()["a"], values.mean(), rtol=1e-12, atol=1e-14)


# Randomness as a function.


def test_derived_seeds():
    """Seeds are the same on every machine and in every version, have 63 bits, and differ for other seeds or keys."""
    assert seeding.derive(0) == 2631537505891389924
    assert seeding.derive(7, "order", 3) == 1569714343349645784
    names = [(0,), (1,), (0, 1), (0, "1"), (0, "a", 1, 23), (0, "a", 12, 3), (0, "a1", 23), (0, "a", "b"), (0, "ab")]
    seeds = [seeding.derive(*name) for name in names]
    assert len(set(seeds)) == len(names)
    assert all(0 <= s < 2**63 for s in seeds)


def test_reseed_and_generator_give_the_same_numbers():
    expected = torch.rand(5, generator=seeding.generator(3, "x", 1))
    with seeding.isolated(CPU, 3, "x", 1):
        assert torch.equal(torch.rand(5), expected)
    with torch.random.fork_rng(devices=[]):
        seeding.reseed(CPU, 3, "x", 1)
        assert torch.equal(torch.rand(5), expected)
    assert not torch.equal(torch.rand(5, generator=seeding.generator(3, "x", 2)), expected)


def test_isolated_restores_the_generators():
    """Random draws or an error inside the block do not change the draws after it."""

    def fail():
        with seeding.isolated(CPU, 0, "picture"):
            torch.rand(11)
            raise KeyError

    torch.manual_seed(9)
    expected = torch.rand(6)
    torch.manual_seed(9)
    first = torch.rand(2)
    with seeding.isolated(CPU, 0, "picture"):
        torch.rand(3)
    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.cat([first, torch.rand(4)]), expected)


# Weights of the samples, and codes without a density.


def mixture_trace(x: Tensor, q: Tensor, exact: bool = True) -> tuple[Trace, Tensor]:
    """A mixture of three normals whose class is an enumerated latent: the trace, and log p(x) in closed form.

    Args:
        x: data, (B, 1).
        q: q(k | x), (B, 3).
    """
    means, scale = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64), 0.7
    prior = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    classes = torch.arange(3).unsqueeze(1).expand(3, len(x))  # sample k is class k
    px = Independent(Normal(means[classes].unsqueeze(-1), scale), 1)
    latent = Latent(Categorical(q), Categorical(prior), classes)
    log_joint = Normal(means, scale).log_prob(x) + prior.log()
    return Trace(x, px, (latent,), weights=q.T), log_joint.logsumexp(1)


def test_enumerated_latent_is_the_closed_mixture():
    """With the exact q(k | x), the ELBO is log p(x); with any q, the bound of K samples is log p(x), the ELBO below."""
    x = torch.linspace(-2, 3, 7, dtype=torch.float64).unsqueeze(1)
    uniform = torch.full((7, 3), 1 / 3, dtype=torch.float64)
    trace, log_p = mixture_trace(x, uniform)
    log_joint = trace.log_px + trace.latent.log_p
    exact, _ = mixture_trace(x, log_joint.softmax(0).T)
    torch.testing.assert_close(exact.elbo, log_p, rtol=1e-14, atol=1e-14)
    skewed = torch.tensor([0.7, 0.1, 0.2], dtype=torch.float64).expand(7, 3)
    for q in (uniform, skewed):
        trace, _ = mixture_trace(x, q)
        torch.testing.assert_close(trace.log_w.logsumexp(0) - math.log(3), log_p, rtol=1e-14, atol=1e-14)
        posterior = Categorical(log_joint.softmax(0).T)
        torch.testing.assert_close(trace.elbo, log_p - kl_divergence(Categorical(q), posterior), rtol=1e-12, atol=1e-12)
        assert torch.equal(trace.mean_log_px, (q.T * trace.log_px).sum(0).mean())


def test_uniform_weights_are_no_weights():
    x = torch.randn(5, 2, dtype=torch.float64)
    loc = torch.randn(5, 3, dtype=torch.float64)
    q, p = Independent(Normal(loc, 0.5), 1), Independent(Normal(torch.zeros_like(loc[0]), 1.0), 1)
    z = q.sample((4,))
    px = Independent(Normal(z[..., :2], 1.0), 1)
    plain = Trace(x, px, (Latent(q, p, z),))
    weighted = Trace(x, px, (Latent(q, p, z),), weights=torch.full((4, 5), 0.25, dtype=torch.float64))
    for name in ("elbo", "log_w", "kl", "mean_log_px"):
        torch.testing.assert_close(getattr(weighted, name), getattr(plain, name), rtol=1e-13, atol=1e-13)


def test_mixture_posterior_with_one_sample_of_each_component():
    """Stratified sampling: the weighted mean of log p(x, z_k) - log q(z_k) is unbiased for the ELBO of the mixture."""
    num, w = 200_000, torch.tensor([0.3, 0.7], dtype=torch.float64)
    loc, scale = torch.tensor([-1.0, 2.0], dtype=torch.float64), torch.tensor([0.5, 0.8], dtype=torch.float64)
    mixture = MixtureSameFamily(Categorical(w), Normal(loc, scale))
    generator = torch.Generator().manual_seed(0)
    z = (loc + scale * torch.randn(num, 2, generator=generator, dtype=torch.float64)).T  # (K, B): component k
    q = MixtureSameFamily(Categorical(w.expand(num, 2)), Normal(loc.expand(num, 2), scale.expand(num, 2)))
    p = Normal(torch.zeros(num, dtype=torch.float64), 1.0)
    x = torch.zeros(num, 1, dtype=torch.float64)
    px = Independent(Normal(z.unsqueeze(-1), 1.0), 1)
    trace = Trace(x, px, (Latent(q, p, z),), weights=w.unsqueeze(1).expand(2, num))
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    log_joint = Normal(grid, 1.0).log_prob(torch.zeros(())) + Normal(0.0, 1.0).log_prob(grid)
    density = mixture.log_prob(grid)
    elbo = torch.trapezoid(density.exp() * (log_joint - density), grid)
    error = float(trace.elbo.std()) / num**0.5
    assert abs(float(trace.elbo.mean() - elbo)) < 4 * error < 0.02
    evidence = torch.trapezoid(log_joint.exp(), grid)
    weights = trace.log_w.exp().mean(0)  # unbiased for p(x)
    assert abs(float(weights.mean() - evidence)) < 4 * float(weights.std()) / num**0.5 < 0.02 * float(evidence)


def test_code_without_density_has_no_bound():
    """log p(x | z) is there; asking for a bound raises an error, it is never invented."""
    code = Deterministic(torch.ones(5, 3), event_dims=1)
    p = Independent(Normal(torch.zeros(3), 1.0), 1)
    z = code.rsample((2,))
    trace = Trace(torch.zeros(5, 2), Independent(Normal(z[..., :2], 1.0), 1), (Latent(code, p, z),))
    assert not trace.has_bound
    torch.testing.assert_close(trace.log_px, torch.full((2, 5), -1 - math.log(2 * math.pi)))
    for name in ("elbo", "kl", "log_w"):
        with pytest.raises(ValueError, match="no ELBO: its code has no density"):
            getattr(trace, name)
    with pytest.raises(ValueError, match="no density"):
        trace.latent.log_q.sum()
    values = batch_values(trace, {"loss": -trace.mean_log_px})
    assert values.keys() == {"log_px", "loss"}


def test_model_without_latents_has_kl_zero():
    trace = Trace(torch.zeros(5, 2), Independent(Normal(torch.ones(1, 5, 2), 1.0), 1), ())
    assert trace.kl.shape == (5, 0)
    assert torch.equal(trace.elbo, trace.log_px[0])
    assert torch.equal(trace.log_w, trace.log_px)
