"""Flows against the Jacobian by autograd, quadrature, and normals in closed form."""

import math

import pytest
import torch
from ppca import PPCA, data_with_spectrum, generator, inverse_soft_floor, linear, rotation
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence
from torch.func import jacrev, vmap

from vaezoo.distributions import FlowDistribution
from vaezoo.distributions.flow import IAFLayer, PlanarLayer
from vaezoo.families import FixedScaleNormal, IAFPosterior, PlanarPosterior
from vaezoo.models import IAFVAE, VAE, FlowPriorVAE, PlanarVAE
from vaezoo.nets import MADE
from vaezoo.priors import FlowPrior
from vaezoo.priors.flow import AffineCoupling

DATA_SHAPE = (1, 2, 3)
SETTINGS = {
    PlanarVAE: {"num_flows": 10},
    IAFVAE: {"num_flows": 4, "flow_hidden": [320], "flow_activation": "elu", "context_planes": 1},
    FlowPriorVAE: {"num_flows": 8, "flow_hidden": [128], "flow_activation": "relu"},
}
PAPERS = list(SETTINGS)


def normals(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed))


def disturbed(module, scale=0.7):
    """The module in float64 with random parameters, far from those at the start of training."""
    module = module.double()
    for i, parameter in enumerate(module.parameters()):
        parameter.data = scale * normals(*parameter.shape, seed=100 + i)
    return module


def planar(dim, strength=1.0, seed=0):
    w, u = strength * normals(2, dim, seed=seed)
    return PlanarLayer(w, u, normals(seed=seed + 50))


def iaf(dim, backwards=False, hidden=(12, 10), scale=0.5):
    return IAFLayer(disturbed(MADE(dim, 4, hidden, "elu", backwards), scale), normals(4, seed=9))


LAYERS = {
    "planar": (5, planar),
    "planar, strong": (5, lambda dim: planar(dim, 4.0, seed=1)),
    "planar, steep fold": (5, lambda dim: PlanarLayer(*(x * torch.ones(dim).double() for x in (2, -3)), normals())),
    "planar, D = 1": (1, lambda dim: planar(dim, 2.0, seed=3)),
    "iaf": (5, iaf),
    "iaf, backwards": (5, lambda dim: iaf(dim, True)),
    "iaf, narrow": (5, lambda dim: iaf(dim, hidden=(3,))),
    "iaf, linear": (5, lambda dim: iaf(dim, hidden=(), scale=0.3)),
    "iaf, D = 1": (1, iaf),
    "coupling": (5, lambda dim: disturbed(AffineCoupling(dim, (9,), "tanh", True))),
    "coupling, second half stays": (5, lambda dim: disturbed(AffineCoupling(dim, (9,), "tanh", False))),
    "coupling, D = 2": (2, lambda dim: disturbed(AffineCoupling(dim, (9,), "tanh", True))),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    """log det is slogdet of the Jacobian by autograd. inverse and forward undo each other, with this log det."""
    dim, make = LAYERS[name]
    layer = make(dim)
    z = 2 * normals(40, dim, seed=4)
    y, log_det = layer.forward(z)
    jacobian = vmap(jacrev(lambda z: layer.forward(z)[0]))(z)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian).logabsdet, rtol=0, atol=1e-9)
    assert (y - z).abs().max() > 0.05
    assert log_det.std() > 1e-3 or name == "iaf, D = 1"  # it scales by a function of the context only
    for out, back in (layer.inverse(y), z), (layer.inverse(y)[::-1], log_det):
        torch.testing.assert_close(out[0], back, rtol=0, atol=1e-8)
    again, log_det = layer.inverse(z)
    torch.testing.assert_close(layer.forward(again)[0], z, rtol=0, atol=1e-8)
    torch.testing.assert_close(layer.forward(again)[1], log_det, rtol=0, atol=1e-8)


def test_layers_broadcast():
    """Parameters (B, D) broadcast against z (K, B, D), and against z (K, B, 1, D) for every pair of examples."""
    K, B, D = 3, 4, 5
    outputs = normals(B, 3, D)
    made = disturbed(MADE(D, D, (8,), "elu", False))
    for layer in (PlanarLayer(outputs[:, 0], outputs[:, 1], normals(B)), IAFLayer(made, outputs[:, 2])):
        z = normals(K, B, D, seed=1)
        for move in (layer.forward, layer.inverse):
            (out, log_det), (pairs, pair_log_dets) = move(z), move(z.unsqueeze(2))
            assert (out.shape, log_det.shape) == ((K, B, D), (K, B))
            assert (pairs.shape, pair_log_dets.shape) == ((K, B, B, D), (K, B, B))
            torch.testing.assert_close(pairs.diagonal(dim1=1, dim2=2).mT, out, rtol=0, atol=1e-12)
            torch.testing.assert_close(pair_log_dets.diagonal(dim1=1, dim2=2), log_det, rtol=0, atol=1e-12)


@pytest.mark.parametrize("strength", [0.0, 1e-4, 1.0, 10.0])
def test_planar_is_invertible(strength):
    """w.u' > -1 for any w and u; u' differs from u only along w; u = 0 is the identity."""
    w, u = strength * normals(2, 1000, 4)
    layer = PlanarLayer(w, u, normals(1000))
    torch.testing.assert_close(1 + (w * layer.u).sum(-1), layer.slope, rtol=1e-6, atol=1e-6)
    assert layer.slope.min() >= 1e-3
    assert strength < 10 or (w * u).sum(-1).min() < -100
    unit = w / w.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    moved = layer.u - u
    torch.testing.assert_close((moved * unit).sum(-1, keepdim=True) * unit, moved, rtol=0, atol=1e-9)
    z = normals(1000, 4, seed=2)
    same, log_det = PlanarLayer(w, torch.zeros_like(w), normals(1000)).forward(z)
    torch.testing.assert_close(same, z, rtol=0, atol=1e-9)
    assert log_det.abs().max() < 1e-9


@pytest.mark.parametrize("hidden", [(), (3,), (20,), (16, 16)])
@pytest.mark.parametrize("backwards", [False, True])
def test_made_is_autoregressive(hidden, backwards):
    """The outputs of a dimension depend on the dimensions before it and on the context, and on nothing else."""
    D = 6
    made = disturbed(MADE(D, 2, hidden, "tanh", backwards))
    z, h = normals(D), normals(2)
    full = hidden == () or hidden[0] >= D
    for i in range(2):
        jacobian, of_context = jacrev(lambda z, h, i=i: made(z, h)[i], argnums=(0, 1))(z, h)
        jacobian = jacobian.flip(0, 1) if backwards else jacobian
        assert torch.equal(jacobian, jacobian.tril(-1))
        below = jacobian[torch.tril_indices(D, D, -1).unbind()]
        assert not full or (below != 0).all()
        assert below.abs().max() > 0
        assert (of_context != 0).all()  # also for the first dimension
    if full:
        layer = IAFLayer(made, h)
        jacobian = jacrev(lambda z: layer.forward(z)[0])(z)
        jacobian = jacobian.flip(0, 1) if backwards else jacobian
        assert torch.equal(jacobian, jacobian.tril())
        torch.testing.assert_close(jacobian.diagonal().log().sum(), layer.forward(z)[1], rtol=0, atol=1e-12)


def test_layers_alternate():
    """With reversed orders, or halves in turn, every dimension depends on every other."""
    posterior = disturbed(IAFPosterior([5], num_flows=2, hidden=(10,)), 0.5)
    for q in (posterior(*normals(3, 5)), disturbed(FlowPrior([5], num_flows=3, hidden=(10,)), 0.5)()):
        assert (jacrev(lambda u, q=q: q.forward(u)[0])(normals(5)).abs() > 1e-6).all()


def distribution(kind, dim, num_flows=3):
    """A flow that is far from normal, batch shape ()."""
    if kind == "prior":
        return disturbed(FlowPrior([dim], num_flows=num_flows + 1, hidden=[6], activation="tanh"), 0.5)()
    if kind == "planar":
        family = PlanarPosterior([dim], num_flows)
        outputs = 1.5 * normals(family.num_outputs, dim, seed=21)
    else:
        family = disturbed(IAFPosterior([dim], num_flows, hidden=(6,)))
        outputs = normals(family.num_outputs, dim, seed=22)
    outputs[1] *= 0.3
    return family(*outputs)


CASES = [("planar", 1), ("iaf", 1), ("planar", 2), ("iaf", 2), ("prior", 2)]


@pytest.mark.parametrize(("kind", "dim"), CASES)
@torch.no_grad()
def test_density(kind, dim):
    """The density integrates to 1, and samples have its marginals (Kolmogorov-Smirnov) and its entropy."""
    q = distribution(kind, dim)
    torch.manual_seed(0)
    num = 20_000
    samples = q.sample(torch.Size([num]))
    side = 1201 if dim == 2 else 40_001
    edges = [torch.linspace(float(x.min()) - 3, float(x.max()) + 3, side, dtype=torch.float64) for x in samples.T]
    points = torch.cartesian_prod(*edges).reshape(-1, dim)
    log_density = torch.cat([q.log_prob(chunk) for chunk in points.split(200_000)])
    cell = math.prod(float(e[1] - e[0]) for e in edges)
    mass = log_density.exp() * cell
    assert float(mass.sum()) == pytest.approx(1, abs=1e-6)
    entropies = -q.log_prob(samples)
    error = float(entropies.std()) / math.sqrt(num)
    assert abs(float(entropies.mean()) + float((mass * log_density).sum())) < 4 * error
    mass = mass.reshape([len(e) for e in edges])
    for d, edge in enumerate(edges):
        marginal = mass if dim == 1 else mass.sum(1 - d)
        cdf = torch.searchsorted(edge, samples[:, d].contiguous()) - 1
        fraction = (samples[:, d] - edge[cdf]) / (edge[1] - edge[0])
        total = marginal.cumsum(0) - marginal / 2
        u = torch.lerp(total[cdf], total[cdf + 1], fraction).sort().values
        steps = torch.arange(num + 1).double() / num
        statistic = torch.maximum((u - steps[:-1]).abs().max(), (u - steps[1:]).abs().max())
        assert statistic * math.sqrt(num) < 1.95  # p = 0.001
    skew = ((samples - samples.mean(0)) / samples.std(0)).pow(3).mean(0).abs().max()
    assert skew > 0.1 or (kind, dim) == ("iaf", 1)  # with D = 1, a scale and a shift only


@pytest.mark.parametrize("kind", ["planar", "iaf", "prior"])
def test_distribution(kind):
    """The stored density of a sample equals that by the inverse. Mean and KL have no closed form."""
    q = distribution(kind, 4)
    z = q.rsample(torch.Size([7]))
    kept, afresh = q.log_prob(z), q.log_prob(z.clone())
    torch.testing.assert_close(kept, afresh, rtol=0, atol=1e-9)
    assert kept is q.log_prob(z)
    assert q.sample(torch.Size([2, 3])).shape == (2, 3, 4)
    assert q.log_prob(z) is kept
    normal = Independent(Normal(torch.zeros(4), torch.ones(4)), 1)
    for pair in ((q, normal), (normal, q), (q, q)):
        with pytest.raises(NotImplementedError):
            kl_divergence(*pair)
    with pytest.raises(NotImplementedError):
        _ = q.mean


@pytest.mark.parametrize("kind", ["planar", "iaf", "prior"])
def test_far_away(kind):
    """Where the inverse overflows in float32, the density is nearly 0, and it and its gradients are not NaN."""
    torch.manual_seed(0)
    if kind == "prior":
        module = FlowPrior([10])
        q = module()
    else:
        module = (PlanarPosterior if kind == "planar" else IAFPosterior)([10])
        q = module(*(3 * torch.randn(module.num_outputs, 10)).requires_grad_())
    for parameter in module.parameters():
        parameter.data *= 3
    z = torch.tensor([[10.0], [1e3], [1e6]]) * torch.randn(3, 10)
    z.requires_grad_()
    log_q = q.log_prob(z)
    log_q.sum().backward()
    assert log_q.isfinite().all()
    assert (log_q[1:] < -1e3).all()
    assert all(tensor.grad.isfinite().all() for tensor in (z, *module.parameters()))


@pytest.mark.parametrize("kind", ["planar", "iaf"])
def test_gradient_at_a_fixed_point(kind):
    """log q(z) of a given z has the right gradients in z and in every raw output, through the inverse."""
    dim = 3
    if kind == "planar":
        family = PlanarPosterior([dim], num_flows=4)
    else:
        family = disturbed(IAFPosterior([dim], num_flows=2, hidden=(5,)))
    outputs = normals(family.num_outputs, 2, dim, seed=5).requires_grad_()
    z = normals(2, dim, seed=6).requires_grad_()
    assert torch.autograd.gradcheck(lambda z, outputs: family(*outputs).log_prob(z), (z, outputs), atol=1e-7)
    drawn = family(*outputs).sample()
    assert torch.autograd.grad(family(*outputs).log_prob(drawn).sum(), outputs)[0].abs().min(-1).values.max() > 0


@pytest.mark.parametrize("kind", ["planar", "iaf", "prior"])
def test_compiles(kind):
    """Samples, their density and the density of another point compile to one graph."""
    torch._dynamo.reset()

    def function(z):
        sample = q.rsample()
        return sample, q.log_prob(sample), q.log_prob(z)

    q = distribution(kind, 2, num_flows=1)
    z = normals(4, 2)
    results = []
    for f in (function, torch.compile(function, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(0)
        results.append(f(z))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("paper", PAPERS)
def test_no_layers_is_the_vae(paper):
    """With T = 0, weights, codes and ELBO are those of the VAE to the last digit, with the closed-form KL."""
    results = []
    for model_class, options in ((VAE, {}), (paper, SETTINGS[paper] | {"num_flows": 0})):
        torch.manual_seed(0)
        model = model_class(DATA_SHAPE, latent_dim=3, **options)
        x = torch.rand(5, *DATA_SHAPE, generator=generator(1)).round()
        trace = model(x, num_samples=2)
        assert trace.latent.kl_per_dim is not None
        results.append((trace.elbo, trace.log_w, model.encode(x)))
    for plain, none in zip(*results, strict=True):
        assert torch.equal(plain, none)
    base = Independent(Normal(normals(4, 3), normals(4, 3, seed=1).exp()), 1)
    z = normals(4, 3, seed=2)
    assert torch.equal(FlowDistribution(base, []).log_prob(z), base.log_prob(z))


def test_linear_iaf_is_the_exact_posterior():
    """One linear IAF layer takes a diagonal normal to the full covariance of PPCA's posterior: the ELBO,
    and each importance weight, is the evidence, where a diagonal posterior loses 1/2 (sum ln M_dd - ln det M).
    """
    spectrum, D = torch.tensor([4.2, 1.9, 1.0, 0.6, 0.4, 0.2], dtype=torch.float64), 3
    x, mean, axes = data_with_spectrum(spectrum, 40)
    ppca = PPCA.fit(spectrum, mean, axes, D, rotation(D, 11))
    x = x.unflatten(1, DATA_SHAPE)
    parts = {"encoder": linear, "decoder": linear, "likelihood": FixedScaleNormal(math.sqrt(ppca.variance))}
    model = IAFVAE(
        DATA_SHAPE, latent_dim=D, num_flows=1, flow_hidden=[], flow_activation="elu", context_planes=1, **parts
    ).double()
    # z = 1/2 z_0 + 1/2 A z_0 with z_0 = mu_0 + sigma_0 eps is L eps + mean for L = (I + A) diag(sigma_0) / 2.
    posterior = ppca.posterior(x)
    L = posterior.scale_tril[0]
    sigma = 2 * L.diagonal()
    both = 2 * L / sigma  # I + A
    gain = torch.linalg.inv(both / 2) @ torch.linalg.inv(ppca.m) @ ppca.weight.T
    (decoder,), (encoder,) = model.decoder.net.layers, model.encoder.net.layers
    (made,) = model.encoder.family.mades
    with torch.no_grad():
        decoder.weight.copy_(ppca.weight)
        decoder.bias.copy_(ppca.mean)
        encoder.weight[: 2 * D] = torch.cat([gain, torch.zeros_like(gain)])
        encoder.bias[:D] = -gain @ ppca.mean
        encoder.bias[D : 2 * D] = inverse_soft_floor(sigma.log(), model.encoder.family.base.min_log_scale)
        made.layers[0].weight.copy_(torch.cat([both - torch.eye(D), torch.zeros(D, D)]))
        made.layers[0].bias.copy_(torch.cat([torch.zeros(D), torch.full((D,), -2.0)]))  # sigma_t = 1/2
        made.context.weight.zero_()
    torch.manual_seed(0)
    trace = model(x, num_samples=7)
    evidence = ppca.evidence.log_prob(x.flatten(1))
    torch.testing.assert_close(trace.log_w, evidence.expand(7, -1), rtol=0, atol=1e-9)
    torch.testing.assert_close(model.encode(x), posterior.mean, rtol=0, atol=1e-9)
    assert (ppca.m.diagonal().log().sum() - torch.logdet(ppca.m)) / 2 > 0.1


def test_linear_couplings_are_a_normal():
    """Linear shifts and constant scales give N(b, A A'): density, and moments of samples."""
    prior = disturbed(FlowPrior([5], num_flows=3, hidden=[]))
    with torch.no_grad():
        for layer in prior.couplings:
            (last,) = layer.net.layers
            last.weight[: len(last.weight) // 2] = 0  # s is a number
    p, zero = prior(), torch.zeros(5).double()
    A, b = jacrev(lambda u: p.forward(u)[0])(zero), p.forward(zero)[0]
    exact = MultivariateNormal(b, A @ A.T)
    z = 2 * normals(50, 5)
    torch.testing.assert_close(p.log_prob(z), exact.log_prob(z), rtol=0, atol=1e-9)
    torch.manual_seed(0)
    whitened = torch.linalg.solve(A, (p.sample(torch.Size([20_000])) - b).T)
    torch.testing.assert_close(whitened.cov(), torch.eye(5).double(), rtol=0, atol=0.05)
    assert (A @ A.T - torch.diag((A @ A.T).diagonal())).abs().max() > 0.1


@pytest.mark.parametrize("paper", PAPERS)
def test_starts_near_the_vae(paper):
    """Before training the KL is a few nats, as for the VAE, and its estimate agrees with the importance weights."""
    torch.manual_seed(0)
    model = paper((1, 8, 8), latent_dim=20, **SETTINGS[paper])
    x = torch.rand(20, 1, 8, 8, generator=generator(1)).round()
    trace = model(x, num_samples=50)
    assert 0 < trace.kl.mean() < 30
    torch.testing.assert_close(trace.elbo, trace.log_w.mean(0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("paper", PAPERS)
def test_autocast(paper):
    """Under bf16 autocast densities are float32."""
    model = paper(DATA_SHAPE, latent_dim=3, **SETTINGS[paper])
    with torch.autocast("cpu", torch.bfloat16):
        trace = model(torch.ones(4, *DATA_SHAPE), num_samples=2)
        for value in (trace.latent.log_q, trace.latent.log_p, trace.latent.q.log_prob(trace.latent.z.clone())):
            assert value.dtype == torch.float32
            assert value.isfinite().all()


@pytest.mark.parametrize("paper", PAPERS[:2])
def test_one_dimension(paper):
    model = paper(DATA_SHAPE, latent_dim=1, **SETTINGS[paper] | {"num_flows": 3})
    model(torch.ones(4, *DATA_SHAPE)).elbo.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("paper", "options", "message"),
    [
        (PlanarVAE, {"num_flows": -1}, "num_flows must be >= 0, got -1"),
        (IAFVAE, {"num_flows": -2}, "num_flows must be >= 0, got -2"),
        (FlowPriorVAE, {"num_flows": -3}, "num_flows must be >= 0, got -3"),
        (IAFVAE, {"context_planes": 0}, "context_planes must be >= 1, got 0"),
        (IAFVAE, {"flow_hidden": [0]}, "the flow's hidden must be a list of integers >= 1"),
        (IAFVAE, {"flow_activation": "elo"}, "activation=elo"),
        (FlowPriorVAE, {"latent_dim": 1}, "latent_dim must be >= 2, got 1"),
        (FlowPriorVAE, {"flow_hidden": [8, -1]}, "the flow's hidden must be a list of integers >= 1"),
    ],
)
def test_refusals(paper, options, message):
    with pytest.raises(ValueError, match=message):
        paper(DATA_SHAPE, **{"latent_dim": 3, **SETTINGS[paper], **options})


def test_latents_must_be_vectors():
    for part in (PlanarPosterior, IAFPosterior, FlowPrior):
        with pytest.raises(ValueError, match=r"a flow needs a latent of shape \(D,\), got \(2, 4, 4\)"):
            part((2, 4, 4))
