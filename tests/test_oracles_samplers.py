"""Each sampler against its density: the density is integrated by quadrature, and the draws must have its moments.

A case gives a distribution, the parameters that it depends on, and nodes with weights, so that the sum of
weight * f(node) is the integral of f over the whole space: a grid for vectors, a product rule for the sphere, and
all values for what is discrete. The oracle uses ``log_prob`` at the nodes alone, never a sampler.
"""

import importlib
import inspect
import math
import pkgutil
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Distribution, Independent, kl_divergence
from torch.distributions import Normal as TorchNormal

import vaezoo
from vaezoo.conditional import Conditional
from vaezoo.distributions import (
    CountsGivenTotal,
    Deterministic,
    NearestCode,
    OptimalScaleNormalDistribution,
    SelfMaskedDistribution,
    UniformCodes,
)
from vaezoo.distributions.wrapped import WrappedDistribution
from vaezoo.families import (
    Bernoulli,
    Categorical,
    Categories,
    ContinuousBernoulli,
    CoupledMixtureOfLogistics,
    DimensionScaleNormal,
    DiscretizedLogistic,
    Family,
    FixedScaleNormal,
    FlowPosterior,
    FullCovarianceNormal,
    GaussianExperts,
    IAFPosterior,
    IndexCategorical,
    Joint,
    Laplace,
    LogNormal,
    Masked,
    MixtureOfDiscretizedLogistics,
    Multinomial,
    NegativeBinomial,
    Normal,
    OptimalScaleNormal,
    Ordinal,
    OrdinalColumns,
    PlanarPosterior,
    Poisson,
    Posterior,
    Rescaled,
    ScaledNegativeBinomial,
    SelfMasking,
    SharedScaleNormal,
    SharesOfTotal,
    TokenSequence,
    VonMisesFisher,
    WrappedFamily,
)
from vaezoo.families.categories import CategoryFamily, ColumnFamily
from vaezoo.families.normal import SharedScale
from vaezoo.inference.ex_post_density import Sampler, fit_gaussian_mixture
from vaezoo.models import VRNN
from vaezoo.nets import MLP
from vaezoo.priors import (
    ContextNormal,
    DirichletNormal,
    FlowPrior,
    HypersphericalUniform,
    LabelNormal,
    MixtureOfNormals,
    Prior,
    StandardNormal,
    VampPrior,
)
from vaezoo.trace import Latent

FLOAT = torch.float64
NUM = 40_000  # draws of each case
NODES = 54  # of a grid, along each axis
ERRORS = 5.0  # standard errors that a moment may be off


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=torch.Generator().manual_seed(seed))


@dataclass
class Case:
    """A distribution, with batch shape () or (B,), and what its oracle needs.

    ``nodes`` is (P, *event) or (P, B, *event), ``weights`` (P,) or (P, B); both None: a grid is laid where the draws
    are. Elementwise likelihoods have the event shape ().
    """

    of: type  # the class of the package that is tested
    q: Distribution
    params: list = field(default_factory=list)
    nodes: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    p: Distribution | None = None  # a prior to take the KL from


def raw(*shape, seed=0):
    return randn(*shape, seed=seed).requires_grad_()


def posterior(family, spread=0.5, batch=2, dim=3, seed=0):
    """A posterior with unequal means and scales: its outputs are parameters."""
    outputs = spread * randn(family.num_outputs, batch, dim, seed=seed)
    outputs[1] += torch.tensor([0.6, -0.7, 0.0])[:dim]
    params = [output.requires_grad_() for output in outputs.unbind()]
    return family.double()(*params), params


def diagonal():
    q, params = posterior(Normal())
    loc, log_scale = randn(2, 3, seed=5)
    return Case(Normal, Independent(q, 1), params, p=Independent(TorchNormal(loc, (0.5 * log_scale).exp()), 1))


def full_covariance():
    q, params = posterior(FullCovarianceNormal((3,)), spread=1.0)
    loc, log_scale = randn(2, 3, seed=5)
    return Case(FullCovarianceNormal, q, params, p=Independent(TorchNormal(loc, (0.5 * log_scale).exp()), 1))


def standard():
    return Independent(TorchNormal(torch.zeros(3, dtype=FLOAT), torch.ones(3, dtype=FLOAT)), 1)


def planar():
    q, params = posterior(PlanarPosterior((3,), 3), spread=0.6, seed=1)
    return Case(PlanarPosterior, q, params, p=standard())


def iaf():
    torch.manual_seed(3)
    family = IAFPosterior((3,), num_flows=2, hidden=[4])
    with torch.no_grad():
        for made in family.mades:  # far enough from the identity, and no tails that a grid cannot hold
            made.layers[-1].weight.mul_(0.4)
            made.layers[-1].bias[3:] = torch.tensor([-1.0, 0.2, -2.0])
    q, params = posterior(family, spread=0.3, seed=2)
    return Case(IAFPosterior, q, [*params, *family.parameters()], p=standard())


def flow_prior():
    torch.manual_seed(5)
    p = FlowPrior((3,), num_flows=3, hidden=[6], activation="tanh").double()
    with torch.no_grad():
        for coupling in p.couplings:  # they begin near the identity
            coupling.net.layers[-1].weight.mul_(25)
            coupling.net.layers[-1].bias.copy_(0.3 * randn(len(coupling.net.layers[-1].bias), seed=7))
    return Case(FlowPrior, p(), list(p.parameters()))


def mixture_prior():
    p = MixtureOfNormals((3,), num_components=3).double()
    with torch.no_grad():
        p.logits.copy_(torch.tensor([0.0, 1.0, -0.5]))
        p.loc.copy_(randn(3, 3, seed=2))
        p.log_scale.copy_(0.3 * randn(3, 3, seed=3))
    return Case(MixtureOfNormals, p(), list(p.parameters()))


def vamp_prior():
    torch.manual_seed(1)
    encoder = Conditional((4,), (3,), lambda a, b: MLP(a, b, hidden=[5]), Normal()).double()
    p = VampPrior((3,), encoder, num_components=3).double()
    with torch.no_grad():
        p.pixels.mul_(4)
        encoder.net.layers[-1].bias[3:] = -0.5
    return Case(VampPrior, p(), [*p.parameters(), *encoder.parameters()])


def fitted_mixture():
    codes = torch.cat([randn(300, 3) @ randn(3, 3, seed=1), randn(100, 3, seed=2) + 2])
    return Case(Sampler, fit_gaussian_mixture(codes, num_components=2))


def sphere_rule(num=60):
    """Nodes and weights on the sphere of R^3: Gauss-Legendre in the height, equal angles around."""
    heights, weights = np.polynomial.legendre.leggauss(num)
    angles = 2 * np.pi * np.arange(2 * num) / (2 * num)
    height, angle = (torch.from_numpy(v.ravel()) for v in np.meshgrid(heights, angles, indexing="ij"))
    radius = (1 - height**2).sqrt()
    nodes = torch.stack([radius * angle.cos(), height, radius * angle.sin()], 1)
    return nodes, torch.from_numpy(np.repeat(weights, 2 * num) * np.pi / num)


def sphere():
    q, params = posterior(VonMisesFisher((3,)), spread=1.5, seed=4)
    nodes, weights = sphere_rule()
    return Case(VonMisesFisher, q, params, nodes, weights, p=HypersphericalUniform((3,)).double()())


def sphere_prior():
    return Case(HypersphericalUniform, HypersphericalUniform((3,)).double()(), [], *sphere_rule())


def nearest():
    codes = randn(4, 3)
    index = torch.tensor([[1, 3], [2, 0]])
    q = NearestCode(randn(2, 2, 3, seed=1), index, codes[index])
    return Case(NearestCode, q, [], codes[index].unsqueeze(0), torch.ones(1, dtype=FLOAT), UniformCodes(codes, 2))


def uniform_codes():
    codes = randn(4, 3)
    nodes = codes[torch.tensor(list(product(range(4), repeat=2)))]
    return Case(UniformCodes, UniformCodes(codes, 2), [], nodes, torch.ones(16, dtype=FLOAT))


# Likelihoods: elementwise, a batch of unlike parameters.


def likelihood(family, values, *outputs, weights=None):
    """Of 8-bit data and bits: all values there are."""
    family = family.double().eval()
    params = [torch.tensor(output, dtype=FLOAT, requires_grad=True) for output in outputs]
    nodes = torch.as_tensor(values, dtype=FLOAT)
    weights = torch.ones_like(nodes) if weights is None else torch.as_tensor(weights, dtype=FLOAT)
    return Case(type(family), family(*params), [*params, *family.parameters()], nodes, weights)


LEVELS = np.arange(256) / 255


def bernoulli():
    return likelihood(Bernoulli(), [0.0, 1.0], [-1.5, 0.2, 2.0])


def continuous_bernoulli():
    nodes, weights = np.polynomial.legendre.leggauss(80)
    return likelihood(ContinuousBernoulli(), (nodes + 1) / 2, [-6.0, 0.3, 0.005, 3.0], weights=weights / 2)


def discretized_logistic():
    return likelihood(DiscretizedLogistic(), LEVELS, [0.2, 0.6, 1.05], [-2.0, -6.0, -1.5])  # one of a level or two


def discretized_mixture():
    outputs = [[0.5, -1.0], [0.0, 0.7], [0.2, 0.4], [0.9, 0.6], [-2.5, -3.0], [-2.0, -1.6]]
    return likelihood(MixtureOfDiscretizedLogistics(2), LEVELS, *outputs)


def categorical():
    return likelihood(Categorical(), LEVELS, *randn(256, 3).tolist())


def line(loc, scale, num=8000):
    """A grid about each of the means, wide enough for a Laplace's tails: nodes and weights, (P, B)."""
    loc, scale = torch.tensor(loc, dtype=FLOAT), torch.as_tensor(scale, dtype=FLOAT)
    nodes = loc + 30 * scale * torch.linspace(-1, 1, num, dtype=FLOAT)[:, None]
    return nodes, torch.ones_like(nodes) * 60 * scale / (num - 1)


LOC = [0.3, -1.0, 0.8]


def real(family, scale, *outputs):
    nodes, weights = line(LOC, scale)
    return likelihood(family, nodes, LOC, *outputs, weights=weights)


def fixed_scale():
    return real(FixedScaleNormal(0.3), 0.3)


def shared_scale():
    return real(SharedScaleNormal(initial_scale=0.4), 0.4)


def laplace():
    return real(Laplace(initial_scale=0.7), 0.7)


def normal_per_pixel():
    return real(Normal(), torch.tensor([0.5, -1.5, 0.1]).exp(), [0.5, -1.5, 0.1])


def optimal_scale():
    family = OptimalScaleNormal()
    family.mean_square.fill_(0.49)
    return real(family, 0.7)


def scale_per_dimension():
    family = DimensionScaleNormal((3,)).double()
    with torch.no_grad():
        family.log_scale.copy_(torch.tensor([0.5, -1.5, 0.1]))
    return real(family, family.scale.detach())


def masked():
    case = real(FixedScaleNormal(0.3), 0.3)
    return Case(Masked, Masked(FixedScaleNormal(0.3))(*case.params), case.params, case.nodes, case.weights)


def rescaled():
    """Of u = 2 x: the density of x is twice that of u."""
    case = real(FixedScaleNormal(0.3), 0.3)
    q = Rescaled(FixedScaleNormal(0.3), 2.0).double()(*case.params)
    return Case(Rescaled, q, case.params, case.nodes, 2 * case.weights)


def log_normal():
    loc, log_scale = torch.tensor([0.3, -0.5, 1.0], dtype=FLOAT), torch.tensor([-0.8, -1.2, -0.6], dtype=FLOAT)
    y = loc + 12 * log_scale.exp() * torch.linspace(-1, 1, 8000, dtype=FLOAT)[:, None]
    weights = y.exp() * 24 * log_scale.exp() / 7999
    return likelihood(LogNormal(), y.exp(), loc.tolist(), log_scale.tolist(), weights=weights)


def poisson():
    return likelihood(Poisson(), np.arange(200), [-1.5, 0.2, 3.0])


def negative_binomial():
    return likelihood(NegativeBinomial(), np.arange(2000), [-1.0, 1.0, 3.0], [0.3, -0.7, 2.0])


def index_categorical():
    return likelihood(IndexCategorical(5), np.arange(5), randn(3, 5).tolist())


def ordinal():
    return likelihood(Ordinal(5), np.arange(5), randn(3, 4).tolist())


def categories():
    return likelihood(Categories([3, 3, 3]), np.arange(3), (2 * randn(9)).tolist())


def ordinal_columns():
    return likelihood(OrdinalColumns([4, 4]), np.arange(4), randn(6).tolist())


def of_vectors(family, shape, raw, nodes, weights=None):
    """Of a whole x: nodes (P, *shape)."""
    weights = torch.ones(len(nodes), dtype=FLOAT) if weights is None else weights
    raw = raw.requires_grad_()
    q = family.double()(*family.split(raw, shape))
    return Case(type(family), q, [raw, *family.parameters()], nodes, weights)


def coupled_mixture():
    family = CoupledMixtureOfLogistics(2)
    raw = randn(12, 1, 1, seed=4)
    raw[2:6], raw[6:10], raw[10:] = raw[2:6] / 8 + 0.5, raw[6:10] / 2 - 4, raw[10:]
    levels = torch.from_numpy(LEVELS)
    return of_vectors(family, (2, 1, 1), raw, torch.cartesian_prod(levels, levels)[..., None, None])


def joint():
    """A normal beside a categorical."""
    family = Joint({"real": [1], "word": [1]}, {"real": FixedScaleNormal(0.4), "word": IndexCategorical(3)})
    x = torch.linspace(-3, 4, 2000, dtype=FLOAT)
    nodes = torch.cartesian_prod(x, torch.arange(3, dtype=FLOAT))
    weights = torch.full((6000,), 7 / 1999, dtype=FLOAT)
    return of_vectors(family, (2,), torch.tensor([0.5, 0.3, -1.0, 1.0], dtype=FLOAT), nodes, weights)


def token_sequence():
    torch.manual_seed(0)
    family = TokenSequence(3, 3, hidden=4, embedding=4, num_layers=2)
    nodes = torch.tensor(list(product(range(3), repeat=3)))
    return of_vectors(family, (3,), 2 * randn(4), nodes)


def label_prior():
    p = LabelNormal((3,), num_classes=2).double()
    with torch.no_grad():
        p.loc.copy_(randn(2, 3, seed=2))
        p.log_scale.copy_(0.3 * randn(2, 3, seed=3))
    return Case(LabelNormal, p(torch.tensor([1, 0])), list(p.parameters()))


def context_prior():
    torch.manual_seed(2)
    p = ContextNormal((3,), context_shape=(2,), net=partial(MLP, hidden=[5])).double()
    with torch.no_grad():
        p.normal.net.layers[-1].weight.mul_(4)
        p.normal.net.layers[-1].bias[3:] = torch.tensor([-1.0, 0.3, -0.4])
    return Case(ContextNormal, p(randn(2, 2, seed=1)), list(p.parameters()))


def standard_prior():
    return Case(StandardNormal, StandardNormal((3,)).double()())


def dirichlet_prior():
    """Its variance is that of a Dirichlet's approximation in test_counts_given_total.py::test_prior_of_topics."""
    return Case(DirichletNormal, DirichletNormal((3,), alpha=0.7).double()())


def experts(aggregate):
    """Two parts, the second of which is missing in one of three examples, and both in another."""
    family = GaussianExperts(2, aggregate).double()
    raws = 0.7 * randn(4, 3, 3, seed=6)
    raws[0] += torch.tensor([0.8, -1.0, 0.5])
    raws[2] -= torch.tensor([0.8, -1.0, 0.5])
    params = [raw.requires_grad_() for raw in raws.unbind()]
    missing = torch.tensor([[[False], [False], [True]], [[False], [True], [True]]])  # part, example
    scales = [raw.masked_fill(m, torch.inf) for raw, m in zip(params[1::2], missing, strict=True)]
    return Case(GaussianExperts, family(params[0], scales[0], params[2], scales[1]), params, p=standard())


def product_of_experts():
    return experts("product")


def mixture_of_experts():
    return experts("mixture")


def mixture_of_products():
    return experts("mopoe")


def compositions(total, num=3):
    """All vectors of counts with this sum."""
    return [x for x in product(range(total + 1), repeat=num) if sum(x) == total]


def multinomial():
    """Of x with its sum: each total is as probable as it is often, 2 in two of three cases."""
    family = Multinomial().double()
    family.totals = torch.tensor([2.0, 5.0, 2.0])
    raw = randn(2, 3, seed=8).requires_grad_()
    nodes = [(x, weight) for total, weight in ((2, 2 / 3), (5, 1 / 3)) for x in compositions(total)]
    weights = torch.tensor([weight for _, weight in nodes], dtype=FLOAT)
    return Case(Multinomial, family(raw), [raw], torch.tensor([[x] for x, _ in nodes]), weights)


class AtTotal(Distribution):
    """The distribution of x for this total, which is that of its draws: their sum is another one."""

    def __init__(self, base, total):
        self.base, self.total = base.with_total(total), total[..., None]
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def log_prob(self, value):
        return self.base.log_prob_of(value.to(FLOAT), self.total)

    @property
    def mean(self):
        return self.base.mean

    def sample(self, sample_shape=()):
        return self.base.sample(sample_shape)


def scaled(zero_inflated, dims):
    family = ScaledNegativeBinomial(dims, zero_inflated).double()
    with torch.no_grad():
        family.log_dispersion.copy_(torch.tensor([0.2, 1.5, 0.9])[:dims])
    return family


def negative_binomial_given_total():
    """Of all x, for a total of 3 and of 7."""
    family = scaled(False, 2)
    raw = randn(2, 2, seed=8).requires_grad_()
    q = AtTotal(family(raw), torch.tensor([3.0, 7.0], dtype=FLOAT))
    nodes = torch.cartesian_prod(torch.arange(120), torch.arange(120))[:, None]
    weights = torch.ones(len(nodes), dtype=FLOAT)
    return Case(ScaledNegativeBinomial, q, [raw, *family.parameters()], nodes, weights)


def zero_inflated():
    """Each count for a total of 6."""
    family = scaled(True, 3)
    raw = [value.requires_grad_() for value in (randn(3, seed=8), randn(3, seed=9))]
    q = family(*raw).counts(torch.tensor([6.0], dtype=FLOAT))
    nodes = torch.arange(800)
    return Case(ScaledNegativeBinomial, q, [*raw, *family.parameters()], nodes, torch.ones(800, dtype=FLOAT))


def frame_sequence():
    """Three frames of two bits, each given those before it, for two sequences of latents."""
    torch.manual_seed(4)
    model = VRNN((3, 2), 1, 4, autoregressive=True, smoothing=True, likelihood=Bernoulli()).double().eval()
    with torch.no_grad():
        for p in model.parameters():  # so that frames depend on each other
            p.mul_(3)
    nodes = torch.tensor(list(product([0.0, 1.0], repeat=6)), dtype=FLOAT).reshape(64, 1, 3, 2)
    q = model.decode(randn(2, 3, 1, seed=2))
    return Case(type(q), q, list(model.parameters()), nodes, torch.ones(64, dtype=FLOAT))


# Represented by a possible value in place of the mean: the most probable category, greedy decoding; or, if
# probability is in the tails, by a mean that is not exact (tests/test_coupled_mixture.py).
REPRESENTED = {
    index_categorical, ordinal, categories, ordinal_columns, joint, token_sequence, coupled_mixture, frame_sequence,
}  # fmt: skip

CASES = [
    diagonal, full_covariance, planar, iaf, flow_prior, mixture_prior, vamp_prior, fitted_mixture, sphere,
    sphere_prior, nearest, uniform_codes, bernoulli, continuous_bernoulli, discretized_logistic, discretized_mixture,
    categorical, fixed_scale, shared_scale, laplace, normal_per_pixel, optimal_scale, scale_per_dimension, masked,
    rescaled, log_normal, poisson, negative_binomial, index_categorical, ordinal, categories, ordinal_columns,
    coupled_mixture, joint, token_sequence, label_prior, context_prior, standard_prior, dirichlet_prior,
    product_of_experts, mixture_of_experts, mixture_of_products, multinomial, negative_binomial_given_total,
    zero_inflated, frame_sequence,
]  # fmt: skip
MISSING_VALUES = "test_not_miwae.py::test_log_marginal_and_imputation_are_those_of_quadrature"
# Those that a test of their own covers.
ELSEWHERE = {
    # log_prob is a random estimate, of values and of which are observed; draws are of the values alone.
    SelfMasking: MISSING_VALUES,
    SelfMaskedDistribution: MISSING_VALUES,
}


def laid(case, z):
    """Nodes (P, *batch, *event) and weights (P, *batch): the case's own, or a grid where the draws are."""
    q = case.q
    if case.nodes is not None:
        nodes, weights = case.nodes, case.weights
        nodes = nodes.reshape(
            len(nodes), *[1] * (len(q.batch_shape) + 1 + len(q.event_shape) - nodes.dim()), *nodes.shape[1:]
        )
        weights = weights.reshape(len(weights), *[1] * (len(q.batch_shape) + 1 - weights.dim()), *weights.shape[1:])
        return nodes.expand(len(nodes), *q.batch_shape, *q.event_shape), weights.expand(len(weights), *q.batch_shape)
    dim = z.shape[-1]
    z = z.detach().reshape(len(z), -1, dim)
    steps = torch.linspace(-6.5, 6.5, NODES, dtype=FLOAT)
    grid = torch.cartesian_prod(*[steps] * dim)
    roots = [torch.linalg.cholesky(part.T.cov()) for part in z.unbind(1)]
    nodes = torch.stack([part.mean(0) + grid @ root.T for part, root in zip(z.unbind(1), roots, strict=True)], 1)
    volumes = torch.stack([(steps[1] - steps[0]) ** dim * root.diagonal().prod() for root in roots])
    weights = volumes.expand(len(grid), -1)
    return nodes.reshape(-1, *q.batch_shape, dim), weights.reshape(-1, *q.batch_shape)


def moments(z, event):
    """The products of up to two dimensions, and a bounded function of each: (N, *batch, M)."""
    z = z.flatten(-len(event)) if len(event) else z.unsqueeze(-1)
    return torch.cat([z, (z.unsqueeze(-1) * z.unsqueeze(-2)).flatten(-2), torch.tanh(2 * z - 0.5)], -1)


def within(draws, exact, exact_square, errors=ERRORS):
    """The mean over draws (N, ...) is within so many standard errors of the exact one, as is that of their squares."""
    spread = (exact_square - exact.square()).clamp(min=0).sqrt()
    off = (draws.mean(0) - exact).abs()
    return bool((off <= errors * spread / math.sqrt(len(draws)) + 1e-5).all())


def drawn(case, how):
    torch.manual_seed(11)
    with torch.no_grad():
        return getattr(case.q, how)(torch.Size([NUM]))


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_draws_have_the_moments_of_the_density(make):
    """All means, all products of two dimensions and a bounded function, of ``sample`` and ``rsample``; the density
    integrates to 1; log q of the draws has the mean of the negative entropy; mean and variance are those it tells.
    """
    case = make()
    q, event = case.q, case.q.event_shape
    ways = ["sample", *(["rsample"] if q.has_rsample else [])]
    if make is nearest:
        ways = ["rsample"]
    z = {way: drawn(case, way) for way in ways}
    if case.of is Sampler:
        z["sampler"] = Sampler.from_distribution(q).sample(NUM, seed=3).double()
    with torch.no_grad():
        nodes, weights = laid(case, next(iter(z.values())))
        log_q = q.log_prob(nodes)
        mass = log_q.exp() * weights
        torch.testing.assert_close(mass.sum(0), torch.ones_like(mass[0]), rtol=0, atol=2e-4)
        values = moments(nodes, event)
        exact, square = ((mass.unsqueeze(-1) * v).sum(0) for v in (values, values.square()))
        entropy, entropy_square = (mass * log_q.clamp(min=-1e6)).sum(0), (mass * log_q.clamp(min=-1e6).square()).sum(0)
        for way, draws in z.items():
            assert draws.shape == (NUM, *q.batch_shape, *event)
            assert within(moments(draws, event), exact, square), way
            assert within(q.log_prob(draws), entropy, entropy_square), way
        dims = math.prod(event)
        mean = exact[..., :dims].reshape(*q.batch_shape, *event)
        for name, value in {
            "mean": mean,
            "variance": exact[..., dims : dims + dims**2 : dims + 1].reshape(mean.shape) - mean.square(),
        }.items():
            try:
                told = getattr(q, name)
            except NotImplementedError:
                continue
            if name == "mean" and make in REPRESENTED:
                continue
            torch.testing.assert_close(
                told,
                value,
                rtol=0,
                atol=2e-3 if case.nodes is None else 1e-5,
                msg=lambda text, name=name: f"{name}: {text}",
            )


@pytest.mark.parametrize("make", [m for m in CASES if m().p is not None], ids=lambda make: make.__name__)
def test_kl_is_that_of_the_densities(make):
    """The closed form, or the mean of the estimate at the draws, is the integral of q (log q - log p)."""
    case = make()
    z = drawn(case, "rsample")
    with torch.no_grad():
        nodes, weights = laid(case, z)
        log_q, log_p = case.q.log_prob(nodes), case.p.log_prob(nodes)
        mass = log_q.exp() * weights
        exact, square = ((mass * (log_q - log_p) ** power).sum(0) for power in (1, 2))
        kl = Latent(case.q, case.p, z).kl
        torch.manual_seed(11)
        sampled = case.q.log_prob(z) - case.p.log_prob(z)
    assert within(sampled, exact, square)
    try:
        closed = kl_divergence(case.q, case.p)
    except NotImplementedError:
        torch.testing.assert_close(kl, sampled.mean(0))
    else:
        torch.testing.assert_close(closed, exact, rtol=0, atol=1e-3)
        torch.testing.assert_close(kl, closed)


PATHWISE = [make for make in CASES if make().q.has_rsample and make().params]


@pytest.mark.parametrize("make", PATHWISE, ids=lambda make: make.__name__)
def test_gradients_of_draws_are_those_of_the_density(make):
    """d/dtheta of E f(z) and of E log q(z), through ``rsample`` in parts, against the integral's own derivative."""
    case = make()
    q, params, event = case.q, case.params, case.q.event_shape
    dims = max(1, math.prod(event))
    linear, square = randn(dims, seed=21), randn(dims, dims, seed=22)

    def function(z):
        z = z.flatten(-len(event)) if len(event) else z.unsqueeze(-1)
        return z @ linear + 0.3 * ((z @ square) * z).sum(-1)

    nodes, weights = laid(case, drawn(case, "rsample"))
    mass = q.log_prob(nodes).exp() * weights
    per_case = torch.linspace(1, 2, max(1, math.prod(q.batch_shape)), dtype=FLOAT).reshape(q.batch_shape)

    def slopes(value):
        found = torch.autograd.grad(value, params, retain_graph=True, allow_unused=True)
        return torch.cat(
            [torch.zeros(p.numel()) if g is None else g.flatten() for g, p in zip(found, params, strict=True)]
        )

    exact = [slopes((mass * f * per_case).sum()) for f in (function(nodes), q.log_prob(nodes))]
    torch.manual_seed(13)
    parts: list = [[], []]
    for _ in range(25):
        z = q.rsample(torch.Size([NUM // 25]))
        for found, value in zip(parts, (function(z), q.log_prob(z)), strict=True):
            found.append(slopes((value.mean(0) * per_case).sum()))
    for found, truth in zip(parts, exact, strict=True):
        found = torch.stack(found)
        error = found.std(0) / math.sqrt(len(found))
        assert truth.abs().max() > 0.05 or truth is exact[1]
        assert ((found.mean(0) - truth).abs() <= 5 * error + 2e-3 * (1 + truth.abs())).all()


# Nothing wraps or repeats them.
NO_EXPANSION = {
    planar, iaf, flow_prior, nearest, uniform_codes, sphere_prior, negative_binomial_given_total, frame_sequence,
}  # fmt: skip


@pytest.mark.parametrize("make", [m for m in CASES if m not in NO_EXPANSION], ids=lambda make: make.__name__)
def test_expanded_distributions_are_the_same_ones(make):
    """As ``MixtureSameFamily`` and ``Independent`` repeat them: log densities and means, once for each repetition."""
    q = make().q
    more = q.expand(torch.Size([4, *q.batch_shape]))
    assert (more.batch_shape, more.event_shape) == (torch.Size([4, *q.batch_shape]), q.event_shape)
    torch.manual_seed(0)
    with torch.no_grad():
        z = q.sample(torch.Size([4]))
        torch.testing.assert_close(more.log_prob(z), q.log_prob(z))
        torch.testing.assert_close(more.mean, q.mean.expand(4, *q.mean.shape))
        assert more.sample().shape == z.shape


# Nothing is left out.


def modules():
    """All modules of the package."""
    names = [info.name for info in pkgutil.walk_packages(vaezoo.__path__, "vaezoo.") if "plugins" not in info.name]
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


def defined(*bases):
    """Classes of the package below these bases."""
    found = {
        cls
        for module in modules()
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, bases) and cls.__module__ == module.__name__
    }
    return found - set(bases)


ABSTRACT = {Posterior, FlowPosterior, SharedScale, WrappedFamily, CategoryFamily, ColumnFamily, SharesOfTotal}


def test_every_family_and_prior_has_a_case():
    """Whoever adds one adds a case."""
    missing = defined(Family, Prior) - ABSTRACT - set(ELSEWHERE) - {make().of for make in CASES}
    assert not missing, f"add a case to CASES for {', '.join(sorted(cls.__name__ for cls in missing))}"


def test_every_other_test_exists():
    for place in ELSEWHERE.values():
        file, name = place.split("::")
        assert f"\ndef {name}(" in (Path(__file__).parent / file).read_text(), place


def test_every_distribution_has_a_case():
    seen = {type(case.q) for case in (make() for make in CASES)}
    seen |= {type(case.q.base_dist) for case in (make() for make in CASES) if isinstance(case.q, Independent)}
    seen |= {type(negative_binomial_given_total().q.base), *ELSEWHERE}
    seen |= {OptimalScaleNormalDistribution}  # evaluation's, which is torch's normal in another class
    seen |= {WrappedDistribution, CountsGivenTotal, Deterministic}  # base classes; a point, which has no density
    missing = defined(Distribution) - seen - {type(discretized_mixture().q)}
    missing -= {type(discretized_mixture().q.component_distribution)}
    assert not missing, f"add a case to CASES for {', '.join(sorted(cls.__name__ for cls in missing))}"
