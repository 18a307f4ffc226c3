"""The parameters of posteriors: distributions are rebuilt from them, and a new posterior needs only its own file."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace, Normal
from torch.distributions import Gamma as TorchGamma

from vaezoo import seeding
from vaezoo.distributions import (
    NearestCode,
    TriangularNormal,
    VonMisesFisherDistribution,
    get_parameters,
    is_diagonal_normal,
    with_parameters,
)
from vaezoo.errors import DoesNotApply
from vaezoo.evaluation.latent import latent
from vaezoo.families import (
    FullCovarianceNormal,
    IAFPosterior,
    OptimalScaleNormal,
    PlanarPosterior,
    Posterior,
    VonMisesFisher,
    diagonal_normal,
)
from vaezoo.models import VAE


def make(family):
    """q of four examples, D = 3."""
    torch.manual_seed(0)
    q = family(*torch.randn(family.num_outputs, 4, 3))
    return Independent(q, 1) if not q.event_shape else q


POSTERIORS = {
    "diagonal normal": (diagonal_normal((3,)), True, {"loc": (4, 3), "scale": (4, 3)}),
    "full covariance": (FullCovarianceNormal((3,)), False, {"loc": (4, 3), "scale_tril": (4, 3, 3)}),
    "von Mises-Fisher": (VonMisesFisher((3,)), False, {"loc": (4, 3), "concentration": (4,)}),
    "IAF": (IAFPosterior((3,)), False, None),
    "planar": (PlanarPosterior((3,)), False, None),
    "no layers": (IAFPosterior((3,), num_flows=0), True, {"loc": (4, 3), "scale": (4, 3)}),
    "optimal scale": (OptimalScaleNormal(), False, {"loc": (4, 3), "scale": (4, 3)}),
}


@pytest.mark.parametrize("name", POSTERIORS)
def test_a_distribution_is_rebuilt_from_its_parameters(name):
    """It has the same densities, for all examples or for some of them."""
    family, diagonal, shapes = POSTERIORS[name]
    q = make(family.eval())
    assert is_diagonal_normal(q) == diagonal
    if shapes is None:
        with pytest.raises(NotImplementedError, match="a FlowDistribution cannot be rebuilt"):
            get_parameters(q)
        return
    parameters = get_parameters(q)
    assert {key: tuple(value.shape) for key, value in parameters.items()} == shapes
    z = q.sample()
    again = with_parameters(q, **parameters)
    assert type(again) is type(q)
    assert torch.equal(again.log_prob(z), q.log_prob(z))
    some = with_parameters(q, **{key: value[[2, 0]] for key, value in parameters.items()})
    assert torch.equal(some.log_prob(z[[2, 0]]), q.log_prob(z)[[2, 0]])


def test_other_distributions_are_not_diagonal_normals():
    ones = torch.ones(4, 3)
    assert is_diagonal_normal(Independent(Normal(ones, ones), 1))
    for q in (Normal(ones, ones), Independent(Laplace(ones, ones), 1), TriangularNormal(ones, scale_tril=torch.eye(3)),
              VonMisesFisherDistribution(torch.eye(3), torch.ones(3))):  # fmt: skip
        assert not is_diagonal_normal(q)
    with pytest.raises(NotImplementedError, match="a NearestCode cannot"):
        get_parameters(NearestCode(torch.zeros(2, 5, 3), torch.zeros(2, 5).long(), torch.zeros(2, 5, 3)))
    with pytest.raises(NotImplementedError, match="a Laplace cannot"):
        get_parameters(Independent(Laplace(ones, ones), 1))


class LogGamma(Distribution):
    """log of Gamma(concentration, 1), for each dimension: a posterior that is defined only in this file."""

    has_rsample = True
    arg_constraints = {}  # noqa: RUF012 - as torch declares it

    def __init__(self, concentration):
        self.gamma = TorchGamma(concentration, torch.ones_like(concentration))
        super().__init__(concentration.shape[:-1], concentration.shape[-1:], validate_args=False)

    def rsample(self, sample_shape=()):
        return self.gamma.rsample(sample_shape).log()

    def log_prob(self, value):
        return (self.gamma.log_prob(value.exp()) + value).sum(-1)

    @property
    def mean(self):
        return self.gamma.concentration.digamma()


@get_parameters.register
def _(q: LogGamma) -> dict[str, Tensor]:
    return {"concentration": q.gamma.concentration}


class LogGammaPosterior(Posterior):
    def forward(self, *params):
        return LogGamma(params[0].exp())


def run_with(posterior):
    """The parts of a trained run that the group ``latent`` uses, with 30 images in batches of 20 and 10."""
    torch.manual_seed(0)
    model = VAE((1, 2, 3), latent_dim=2, posterior=posterior).eval()
    x, y = torch.rand(30, 1, 2, 3).round(), torch.zeros(30)
    return SimpleNamespace(model=model, batches=lambda *_, **__: zip(x.split(20), y.split(20), strict=True))


def test_a_new_posterior_needs_only_its_own_file():
    """Its mutual information is that of the same samples, computed by hand."""
    run = run_with(lambda shape: LogGammaPosterior())
    values = latent(run, None).values
    q = run.model.encoder(torch.cat([x for x, _ in run.batches()]))
    with torch.no_grad(), seeding.isolated(torch.device("cpu"), run.model.seed, "latent"):
        z = q.sample()
        pairs = q.log_prob(z[:, None].double())  # (30, 30): log q(z_m | x_n)
        log_qz = pairs.logsumexp(1) - torch.tensor(30.0).log()
        information = (pairs.diagonal() - log_qz).mean()
    assert values["mutual_information"] == pytest.approx(float(information), rel=1e-5)
    assert "active_units" not in values


def test_a_flow_posterior_is_skipped_with_the_reason():
    with pytest.raises(DoesNotApply, match="a FlowDistribution cannot be rebuilt"):
        latent(run_with(IAFPosterior), None)
