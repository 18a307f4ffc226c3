"""Importance-weighted bounds and their gradients: closed forms, identities, and estimators without bias."""

import math
from functools import partial

import pytest
import torch
from ppca import PPCA, data_with_spectrum, exact_trace, generator, rotation, trace_at
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal

from vaezoo.families import FixedScaleNormal
from vaezoo.models import CIWAE, IWAE, MIWAE, PIWAE, VAE, MoGVAE
from vaezoo.objectives import CombinedImportanceWeighted, ImportanceWeighted, PartiallyImportanceWeighted
from vaezoo.trace import Latent, Trace

FLOAT = torch.float64
DATA_SHAPE = (1, 2, 3)
LATENT_DIM = 3
SPECTRUM = torch.tensor([4.2, 1.9, 1.0, 0.6, 0.4, 0.2], dtype=FLOAT)
EACH = [
    ImportanceWeighted(),
    ImportanceWeighted(num_groups=4),
    CombinedImportanceWeighted(0.25),
    PartiallyImportanceWeighted(num_groups=4),
]


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=generator(seed))


def fitted(turned=True, disturbed=0.0, num=40):
    """Return PPCA's solution, its VAE and its data. If turned or disturbed, the diagonal posterior is not exact."""
    x, mean, axes = data_with_spectrum(SPECTRUM, num)
    turn = rotation(LATENT_DIM, 11) if turned else torch.eye(LATENT_DIM, dtype=FLOAT)
    ppca = PPCA.fit(SPECTRUM, mean, axes, LATENT_DIM, turn)
    model = ppca.vae(DATA_SHAPE)
    with torch.no_grad():
        for i, values in enumerate(model.encoder.parameters()):
            values.add_(disturbed * randn(*values.shape, seed=3 + i))
    return ppca, model, x.unflatten(1, DATA_SHAPE)


def small_vae(cls=VAE, **kwargs):
    """A nonlinear model in float64 whose posterior is far from the true one."""
    torch.manual_seed(0)
    return cls(DATA_SHAPE, latent_dim=2, likelihood=FixedScaleNormal(0.5), **kwargs).double()


def trace_with(log_w):
    """Return a trace with the log weights ``log_w`` (K, B): z = 0, x = 0, and the scale of a normal gives log w."""
    zeros = torch.zeros(*log_w.shape, 1, dtype=FLOAT)
    scale = (-log_w.unsqueeze(-1)).exp() / math.sqrt(2 * math.pi)
    q = Independent(Normal(zeros[0], zeros[0] + 1), 1)
    return Trace(zeros[0], Independent(Normal(zeros, scale), 1), (Latent(q, q, zeros),))


def gradient(model, loss):
    """Return d loss / d theta and d loss / d phi, each as one vector."""
    phi = [p for _, p in model.encoder.named_parameters()]
    theta = [p for p in model.parameters() if all(p is not q for q in phi)]
    grads = torch.autograd.grad(loss, [*theta, *phi], retain_graph=True)
    flat = [g.flatten() for g in grads]
    return torch.cat(flat[: len(theta)]), torch.cat(flat[len(theta) :])


def by_hand(model, trace, a, b, direct):
    """Return the gradients with coefficients a and b (K, B) by the chain rule for each sample, without a hook.

    d log w / d theta at fixed z; (d log w / d z) (d z / d phi), with ``direct`` also the density's own
    parameters at fixed z.
    """
    latent = trace.latent
    fixed = latent.z.detach().requires_grad_()
    log_p = model.decoder(fixed).log_prob(trace.x) + latent.p.log_prob(fixed)
    moments = latent.q.mean.detach(), latent.q.stddev.detach()
    still = Independent(Normal(*moments), 1).log_prob(fixed)
    (dz,) = torch.autograd.grad((log_p - still).sum(), fixed, retain_graph=True)
    theta = -(a * log_p).sum(0).mean()
    phi = -(b[..., None] * dz * latent.z).sum((0, 2)).mean()
    if direct:
        phi = phi + (b * latent.q.log_prob(latent.z.detach())).sum(0).mean()
    of = list(model.encoder.parameters())
    rest = [p for p in model.parameters() if all(p is not q for q in of)]
    flat = [torch.autograd.grad(loss, params, retain_graph=True) for loss, params in ((theta, rest), (phi, of))]
    return tuple(torch.cat([g.flatten() for g in grads]) for grads in flat)


def bound_value(objective, trace):
    return -objective(trace)["loss"].detach()


# Values.


def test_values_by_hand():
    """The bound is the logarithm of the mean of w. sum_k v_k log w_k, as in other zoos, is larger by KL(v, uniform)."""
    log_w = 2 * randn(12, 5)
    trace = trace_with(log_w)
    torch.testing.assert_close(trace.log_w, log_w, rtol=0, atol=1e-12)
    w = log_w.exp()
    iwae = w.mean(0).log().mean()
    groups = torch.stack([w[4 * m : 4 * m + 4].mean(0).log() for m in range(3)])
    values = {
        ImportanceWeighted(): iwae,
        ImportanceWeighted(num_groups=3): groups.mean(),
        CombinedImportanceWeighted(0.25): 0.25 * log_w.mean() + 0.75 * iwae,  # a weight is a float32
        PartiallyImportanceWeighted(num_groups=3): iwae,
    }
    for objective, value in values.items():
        torch.testing.assert_close(bound_value(objective, trace), value, rtol=0, atol=1e-12)
    v = w / w.sum(0)
    wrong = (v * log_w).sum(0).mean()
    torch.testing.assert_close(wrong - iwae, (v * (12 * v).log()).sum(0).mean(), rtol=0, atol=1e-12)
    assert wrong - iwae > 0.5


@pytest.mark.parametrize("gradient", ["reparam", "stl", "dreg"])
def test_axes_of_miwae(gradient):
    """M = 1, K = 50 is the IWAE with 50 samples; M = 50, K = 1 is the ELBO with 50 samples: values and gradients."""
    model, x = small_vae(), randn(4, *DATA_SHAPE, seed=1)
    eps = randn(50, 4, 2, seed=2)

    def miwae(num_groups):
        trace = trace_at(model, x, eps)
        loss = ImportanceWeighted(gradient, num_groups)(trace)["loss"]
        return loss.detach(), *globals()["gradient"](model, loss)

    iwae, elbo = (ImportanceWeighted(gradient)(trace_at(model, x, e))["loss"].detach() for e in (eps, eps[:1]))
    trace = trace_at(model, x, eps)
    torch.testing.assert_close(miwae(1)[0], iwae, rtol=0, atol=1e-12)
    torch.testing.assert_close(miwae(50)[0], -trace.log_w.detach().mean(), rtol=0, atol=1e-12)
    torch.testing.assert_close(elbo, -trace.log_w[0].detach().mean(), rtol=0, atol=1e-12)
    assert miwae(50)[0] - iwae > 0.3
    means = [torch.zeros_like(value) for value in miwae(5)]
    for group in eps.split(10):  # MIWAE is the mean of IWAE over groups of successive samples
        loss = ImportanceWeighted(gradient)(trace_at(model, x, group))["loss"]
        for total, value in zip(means, (loss.detach(), *globals()["gradient"](model, loss)), strict=True):
            total += value / 5
    torch.testing.assert_close(miwae(5), tuple(means), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "objective",
    [ImportanceWeighted(), CombinedImportanceWeighted(0.05), PartiallyImportanceWeighted()],
    ids=lambda objective: type(objective).__name__,
)
def test_one_sample_is_the_elbo(objective):
    """For K = 1 the bound is log w of the sample, and its mean over the noise is the ELBO."""
    _, model, x = fitted(disturbed=0.2)
    trace = trace_at(model, x, randn(1, len(x), LATENT_DIM, seed=5))
    torch.testing.assert_close(bound_value(objective.double(), trace), trace.log_w.detach().mean(), rtol=0, atol=1e-12)
    many = x.repeat(2000, 1, 1, 1)
    with torch.no_grad():
        noisy = trace_at(model, many, randn(1, len(many), LATENT_DIM, seed=6))
        error = noisy.log_w.std() / math.sqrt(len(many))
        assert error < 0.05
        assert (bound_value(objective, noisy) - exact_trace(model, x).elbo.mean()).abs() < 5 * error


def test_bounds_rise_to_the_evidence():
    """On the same samples L_1 <= L_2 <= L_10 <= L_100 (Jensen), and log p(x) - L_K -> Var(w / p(x)) / 2K.

    E w / p(x) = 1 takes most noise out of the last: d - expm1(d) has the same mean as d = L - log p(x).
    """
    ppca, model, x = fitted()
    diagonal = torch.diag(ppca.m.diagonal())
    log_square = torch.logdet(ppca.m) - (torch.logdet(diagonal) + torch.logdet(2 * ppca.m - diagonal)) / 2
    variance = float(torch.expm1(log_square))
    many = x.repeat(250, 1, 1, 1)
    evidence = ppca.evidence.log_prob(many.flatten(1))
    with torch.no_grad():
        trace = trace_at(model, many, randn(100, len(many), LATENT_DIM, seed=7))
        gaps = {}
        for num_samples in (1, 2, 10, 100):
            bound = bound_value(ImportanceWeighted(num_groups=100 // num_samples), trace)
            gaps[num_samples] = float(evidence.mean() - bound)
        noise = torch.expm1(trace.log_w - evidence).mean()
    gap = ppca.m.diagonal().log().sum() / 2 - torch.logdet(ppca.m) / 2
    assert gaps[1] == pytest.approx(float(gap), abs=0.01)
    assert gaps[1] > gaps[2] > gaps[10] > gaps[100] > -0.01
    assert gaps[100] + float(noise) == pytest.approx(variance / 200, rel=0.05)


def test_exact_posterior_gives_the_evidence():
    """If q(z | x) = p(z | x), each bound is log p(x) for any K and M, without variance."""
    ppca, model, x = fitted(turned=False)
    evidence = ppca.evidence.log_prob(x.flatten(1)).mean()
    for objective in EACH:
        for seed in range(3):
            trace = trace_at(model, x, randn(8, len(x), LATENT_DIM, seed=seed))
            torch.testing.assert_close(bound_value(objective, trace), evidence, rtol=0, atol=1e-10)


# Gradients.


def test_gradient_of_iwae():
    """autograd through log 1/K sum w = sum_k v_k grad log w_k, v held constant (Burda et al. 2016, eq. 14)."""
    model, x = small_vae(), randn(4, *DATA_SHAPE, seed=1)
    trace = trace_at(model, x, randn(6, 4, 2, seed=2))
    own = gradient(model, ImportanceWeighted()(trace)["loss"])
    automatic = gradient(model, -(trace.log_w.logsumexp(0) - math.log(6)).mean())
    v = trace.log_w.softmax(0).detach()
    assert v.max() > 0.4
    torch.testing.assert_close(own, automatic, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(own, by_hand(model, trace, v, v, direct=True), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("estimator", ["reparam", "stl", "dreg"])
@pytest.mark.parametrize("name", ["iwae", "miwae", "ciwae", "piwae"])
def test_gradients_by_hand(name, estimator):
    """The gradient of each estimator is that of its a and b by the chain rule."""
    model, x = small_vae(MoGVAE, num_components=3), randn(4, *DATA_SHAPE, seed=1)
    trace = trace_at(model, x, randn(6, 4, 2, seed=2))
    w = trace.log_w.detach().exp()
    v_all, v = w / w.sum(0), torch.cat([part / part.sum(0) for part in w.split(3)])
    square = estimator == "dreg"
    objective, a, b = {
        "iwae": (ImportanceWeighted(estimator), v_all, v_all**2 if square else v_all),
        "miwae": (ImportanceWeighted(estimator, 2), v / 2, (v**2 if square else v) / 2),
        "ciwae": (CombinedImportanceWeighted(0.75, estimator), 0.125 + 0.25 * v_all,
                  0.125 + 0.25 * (v_all**2 if square else v_all)),
        "piwae": (PartiallyImportanceWeighted(estimator, 2), v_all, (v**2 if square else v) / 2),
    }[name]  # fmt: skip
    expected = by_hand(model, trace, a, b, direct=estimator == "reparam")
    own = gradient(model, objective(trace)["loss"])
    torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-12)


def test_ends_of_ciwae():
    """beta = 1 is the ELBO with K samples and beta = 0 the IWAE: values and gradients."""
    model, x = small_vae(), randn(4, *DATA_SHAPE, seed=1)
    trace = trace_at(model, x, randn(6, 4, 2, seed=2))
    for beta, bound in ((1.0, trace.log_w.mean()), (0.0, -ImportanceWeighted()(trace)["loss"])):
        loss = CombinedImportanceWeighted(beta)(trace)["loss"]
        torch.testing.assert_close(-loss, bound, rtol=0, atol=1e-12)
        torch.testing.assert_close(gradient(model, loss), gradient(model, -bound), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("nats", [0, 60, 2000])
def test_piwae_is_iwae_for_theta_and_miwae_for_phi(nats):
    """The prior belongs to theta. It is exact, even if the weights of one group are e^60 or e^2000 times larger."""
    model, x = small_vae(MoGVAE, num_components=3), randn(4, *DATA_SHAPE, seed=1)
    model.encoder.offset[2:] = -2  # a narrow q, so that far out it is tiny, and the weight large
    eps = randn(6, 4, 2, seed=2)
    if nats:
        eps[3:] = 1.1 * math.sqrt(nats) * eps[3:].sign()

    def gradients(objective):
        trace = trace_at(model, x, eps)
        loss = objective(trace)["loss"]
        return *gradient(model, loss), trace.log_w.detach()

    theta, phi, log_w = gradients(PartiallyImportanceWeighted(num_groups=2))
    first, second = log_w.unflatten(0, (2, 3)).logsumexp(1)
    assert ((first - second).abs() >= nats).all()
    torch.testing.assert_close(theta, gradients(ImportanceWeighted())[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(phi, gradients(ImportanceWeighted(num_groups=2))[1], rtol=1e-10, atol=1e-12)
    if nats:  # and the two differ: the worse group is lost to IWAE's encoder alone
        assert (gradients(ImportanceWeighted())[1] - phi).norm() > 0.1 * phi.norm()
    model.float()
    x, eps = x.float(), eps.float()
    theta32, phi32, _ = gradients(PartiallyImportanceWeighted(num_groups=2))
    torch.testing.assert_close(theta32.double(), theta, rtol=1e-3, atol=1e-4 * float(theta.abs().max()))
    torch.testing.assert_close(phi32.double(), phi, rtol=1e-3, atol=1e-4 * float(phi.abs().max()))


@pytest.mark.parametrize("num_samples", [1, 5])
@pytest.mark.parametrize("estimator", ["reparam", "stl", "dreg"])
def test_no_noise_at_the_exact_posterior(estimator, num_samples):
    """If q(z | x) = p(z | x), the gradient of phi through z is 0 for each draw; with log q's own part it is not.

    Roeder et al. 2017, section 3.
    """
    _, model, x = fitted(turned=False)
    for i in range(5):  # one example and one draw at a time
        trace = trace_at(model, x[i : i + 1], randn(num_samples, 1, LATENT_DIM, seed=i))
        _, phi = gradient(model, ImportanceWeighted(estimator)(trace)["loss"])
        assert phi.abs().max() > 0.1 if estimator == "reparam" else phi.abs().max() < 1e-10


def test_one_sample_dreg_is_stl():
    """For K = 1 there is one weight, v = v^2 = 1."""
    model, x = small_vae(), randn(4, *DATA_SHAPE, seed=1)
    trace = trace_at(model, x, randn(1, 4, 2, seed=2))
    stl, dreg, reparam = (gradient(model, ImportanceWeighted(g)(trace)["loss"]) for g in ("stl", "dreg", "reparam"))
    torch.testing.assert_close(dreg, stl, rtol=1e-12, atol=0)
    torch.testing.assert_close(stl[0], reparam[0], rtol=1e-12, atol=0)
    assert (stl[1] - reparam[1]).norm() > 0.1 * reparam[1].norm()


@pytest.mark.parametrize(
    ("objective", "estimator", "num_samples", "biased"),
    [
        (ImportanceWeighted, "dreg", 5, False),
        (ImportanceWeighted, "stl", 5, True),
        (ImportanceWeighted, "stl", 1, False),
        (partial(CombinedImportanceWeighted, 0.05), "dreg", 5, False),
    ],
)
def test_estimators_without_bias(objective, estimator, num_samples, biased):
    """Over many draws, DReG has the mean of reparam; STL has it only for K = 1 (Tucker et al. 2019, section 4)."""
    _, model, x = fitted(disturbed=0.2, num=8)
    differences, plain = [], []
    for seed in range(100):
        eps = randn(num_samples, 200 * len(x), LATENT_DIM, seed=seed)
        many = x.repeat(200, 1, 1, 1)
        ours, reparam = (
            gradient(model, objective(gradient=g)(trace_at(model, many, eps))["loss"]) for g in (estimator, "reparam")
        )
        torch.testing.assert_close(ours[0], reparam[0], rtol=1e-10, atol=1e-12)  # theta's is the same for each draw
        differences.append(ours[1] - reparam[1])
        plain.append(reparam[1])
    difference = torch.stack(differences)
    error = difference.std(0) / math.sqrt(len(difference))
    scores = (difference.mean(0) / error).abs()
    assert error.norm() < 0.02 * torch.stack(plain).mean(0).norm()
    assert scores.max() > 20 if biased else scores.max() < 4.5


def test_dreg_has_less_noise():
    """Near the optimum, at K = 50, DReG's gradient of phi has a higher signal-to-noise ratio than that of reparam."""
    _, model, x = fitted(disturbed=0.05, num=8)
    ratios = {}
    for estimator in ("reparam", "dreg"):
        draws = []
        for seed in range(100):
            trace = trace_at(model, x, randn(50, len(x), LATENT_DIM, seed=seed))
            draws.append(gradient(model, ImportanceWeighted(estimator)(trace)["loss"])[1])
        draws = torch.stack(draws)
        ratios[estimator] = float(draws.mean(0).norm() / draws.std(0).norm())
    assert ratios["dreg"] > 2 * ratios["reparam"]


@pytest.mark.parametrize("estimator", ["stl", "dreg"])
def test_estimators_compile(estimator):
    """The compiled pass is one graph with the loss and gradients of the eager pass (others: tests/test_contract.py)."""
    objective = ImportanceWeighted(estimator, 2)
    if "compile" in objective.limits:
        pytest.skip(objective.limits["compile"])
    torch._dynamo.reset()
    model, x = small_vae(), randn(4, *DATA_SHAPE, seed=1)

    def loss(x):
        return objective(model(x, num_samples=6))["loss"]

    results = []
    for function in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(1)
        model.zero_grad()
        value = function(x)
        value.backward()
        results.append([value.detach(), *(p.grad for p in model.parameters())])
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-11)


# The models.


def test_models_pick_their_parts():
    """Each model draws M K samples in groups of K; the loss is the negative bound."""
    x = randn(4, *DATA_SHAPE, seed=1)
    for cls, kwargs, objective in [
        (IWAE, {"num_samples": 6}, ImportanceWeighted()),
        (MIWAE, {"num_samples": 3, "num_groups": 2}, ImportanceWeighted(num_groups=2)),
        (CIWAE, {"num_samples": 6, "beta": 0.25}, CombinedImportanceWeighted(0.25)),
        (PIWAE, {"num_samples": 3, "num_groups": 2}, PartiallyImportanceWeighted(num_groups=2)),
    ]:
        model = small_vae(cls, **kwargs)
        trace = model(x)
        assert trace.log_w.shape == (6, 4)
        torch.testing.assert_close(model.objective(trace)["loss"].detach(), -bound_value(objective, trace))
        with torch.no_grad():  # evaluation has no gradient to hook
            assert model.objective(model(x))["loss"].isfinite()
    assert small_vae(MIWAE, num_samples=3, num_groups=2, gradient="stl").objective.gradient == "stl"


def test_mistakes():
    """Settings that are out of range are refused in one sentence."""
    with pytest.raises(ValueError, match="gradient=path is not one of reparam, stl, dreg"):
        IWAE(DATA_SHAPE, latent_dim=20, num_samples=5, gradient="path")
    with pytest.raises(ValueError, match="num_groups must be >= 1, got 0"):
        MIWAE(DATA_SHAPE, latent_dim=20, num_samples=4, num_groups=0)
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\], got 2"):
        CIWAE(DATA_SHAPE, latent_dim=20, num_samples=16, beta=2)
    with pytest.raises(ValueError, match="has no KL term"):
        IWAE(DATA_SHAPE, latent_dim=20, num_samples=5, free_bits=0.1)
    model, x = small_vae(MIWAE, num_samples=4, num_groups=8), randn(4, *DATA_SHAPE)
    with pytest.raises(ValueError, match="12 samples cannot be cut into num_groups=8 equal groups"):
        model.objective(model(x, num_samples=12))
    q = MultivariateNormal(torch.zeros(4, 2, dtype=FLOAT), torch.eye(2, dtype=FLOAT))
    z = q.rsample(torch.Size([3]))
    trace = Trace(x, model.decoder(z), (Latent(q, model.prior(), z),))
    assert ImportanceWeighted()(trace)["loss"].isfinite()
    with pytest.raises(ValueError, match="not MultivariateNormal"):
        ImportanceWeighted("stl")(trace)
    bits = Independent(Bernoulli(torch.full((4, 2), 0.5, dtype=FLOAT)), 1)
    trace = Trace(x, model.decoder(z), (Latent(bits, bits, bits.sample(torch.Size([3]))),))
    with pytest.raises(ValueError, match="not Bernoulli"):
        ImportanceWeighted("dreg")(trace)
