"""Tests of ex-post density estimation: codes with known moments and modes, and dependence on codes and seed only."""

import pytest
import torch

from vaezoo.inference.ex_post_density import (
    Sampler,
    fit_density,
    fit_gaussian_mixture,
    flow_sampler,
    gmm_sampler,
    two_stage_sampler,
    whiten,
)
from vaezoo.models import VAE

FITS = (gmm_sampler, flow_sampler, two_stage_sampler)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def two_modes(num):
    """N(0, I/4) around (2, 0, 0) and (-2, 0, 0)."""
    codes = normal(0, num, 3) / 2
    codes[:, 0] += 2 * normal(1, num).sign()
    return codes


def in_the_gap(z):
    """Share of z between the modes: 0.023 of the codes, 0.37 of the normal with their moments."""
    return float((z[:, 0].abs() < 1).double().mean())


@pytest.fixture(scope="module", autouse=True)
def short_training():
    """A fifth of the training, which is enough for these codes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vaezoo.inference.ex_post_density.MAX_ROUNDS", 12)
        yield


@pytest.fixture
def shortest_training(monkeypatch):
    """Two rounds, for tests that do not depend on the density that is found."""
    monkeypatch.setattr("vaezoo.inference.ex_post_density.MAX_ROUNDS", 2)


@pytest.fixture(scope="module")
def modes(short_training):
    codes = two_modes(1000)
    return {fit: fit(codes) for fit in FITS}


def test_one_component_has_the_moments_of_the_codes():
    """The mean, and the covariance with 1/N, plus 1e-6 I."""
    codes = normal(0, 50, 4) @ normal(1, 4, 4) + 3
    p = fit_gaussian_mixture(codes, num_components=1)
    z = codes.double()
    assert torch.allclose(p.mean, z.mean(0), atol=1e-12)
    covariance = (z - z.mean(0)).T @ (z - z.mean(0)) / 50 + 1e-6 * torch.eye(4)
    assert torch.allclose(p.component_distribution.covariance_matrix[0], covariance, atol=1e-9)


@pytest.mark.parametrize("fit", FITS)
def test_samplers_of_normal_codes(fit):
    """The mean is within 0.1 standard deviations, the covariance within 20 %; scales differ a hundredfold."""
    codes = normal(0, 1000, 16) @ (normal(1, 16, 16) * torch.linspace(-1, 1, 16).mul(2.3).exp()) + 5
    z = fit(codes).sample(20_000)
    assert z.shape == (20_000, 16)
    assert z.dtype == torch.float32
    root = torch.linalg.inv(torch.linalg.cholesky(codes.T.double().cov()))
    white = (z.double() - codes.double().mean(0)) @ root.T
    assert white.mean(0).abs().max() < 0.1
    assert (white.T.cov() - torch.eye(16)).abs().max() < 0.2


def test_samplers_find_two_modes(modes):
    """The normal with the right moments misses them; both modes have their share."""
    codes = two_modes(2000)
    assert in_the_gap(codes) < 0.04
    assert in_the_gap(gmm_sampler(codes, num_components=1).sample(4000)) > 0.33
    for fit, most in ((gmm_sampler, 0.04), (flow_sampler, 0.2), (two_stage_sampler, 0.25)):
        z = modes[fit].sample(4000)
        assert in_the_gap(z) < most, fit.__name__
        assert 0.4 < (z[:, 0] > 0).double().mean() < 0.6, fit.__name__


@pytest.mark.parametrize("fit", FITS)
def test_samples_depend_on_codes_and_seed_only(fit, modes, monkeypatch):
    """They do not depend on the default random state and do not change it; another seed gives other samples."""
    monkeypatch.setattr("vaezoo.inference.ex_post_density.MAX_ROUNDS", 3)
    codes = two_modes(100)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = fit(codes).sample(5, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    with torch.no_grad():
        assert torch.equal(fit(codes).sample(5, seed=3), first)
    assert not torch.equal(fit(codes, seed=1).sample(5, seed=3), first)
    sampler = modes[fit]
    assert torch.equal(sampler.sample(5), sampler.sample(5))
    assert not torch.equal(sampler.sample(5), sampler.sample(5, seed=1))
    assert not sampler.sample(5).requires_grad


def test_sampler_of_a_prior():
    """The samples of the prior, flattened, for any shape of z."""
    model = VAE((1, 8, 8), latent_dim=6)
    z = Sampler.from_distribution(model.prior()).sample(20_000)
    assert z.shape == (20_000, 6)
    assert (z.T.cov() - torch.eye(6)).abs().max() < 0.05
    assert z.mean(0).abs().max() < 0.05
    maps = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2, 3, 3), 1.0), 3)
    assert Sampler.from_distribution(maps).sample(4).shape == (4, 18)
    assert model.decode(z[:2]).mean.shape == (2, 1, 8, 8)


def test_whitening(shortest_training):
    """Mean 0, covariance I, and the way back; an axis without variance is removed and comes back constant."""
    codes = normal(0, 200, 3) @ normal(1, 3, 5) + 2
    codes[:, 4] = 7
    white, back = whiten(codes)
    assert white.shape == (200, 3)
    assert torch.allclose(white.T.cov(), torch.eye(3), atol=1e-4)
    assert white.mean(0).abs().max() < 1e-5
    assert torch.allclose(back(white).float(), codes, atol=1e-4)
    assert torch.allclose(flow_sampler(codes[:40]).sample(5)[:, 4], torch.tensor(7.0))


@pytest.mark.parametrize("learns", [True, False])
def test_training_keeps_the_weights_with_the_lowest_held_out_loss(learns):
    """Training lowers the weight; if held-out codes prefer it high, it stays at its start."""
    module = torch.nn.Linear(1, 1)
    start = module.weight.item()
    fit_density(
        module, lambda z: module.weight.sum() * (1 if module.training or learns else -1), normal(0, 20, 1), "test"
    )
    assert (module.weight.item() < start) == learns
    assert learns or module.weight.item() == start


def test_a_sampler_is_any_function():
    assert torch.equal(
        Sampler(lambda num: torch.arange(num).unsqueeze(1)).sample(3), torch.tensor([[0.0], [1.0], [2.0]])
    )


@pytest.mark.parametrize("fit", FITS)
def test_wrong_codes_are_refused(fit, shortest_training):
    with pytest.raises(ValueError, match=r"at least 2 codes \(N, D\), got the shape \(1, 3\)"):
        fit(torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"got the shape \(9, 2, 2\)"):
        fit(torch.zeros(9, 2, 2))
    with pytest.raises(ValueError, match="needs finite codes"):
        fit(torch.full((20, 3), torch.nan))
    few = normal(0, 5, 3)
    if fit is gmm_sampler:
        with pytest.raises(ValueError, match="num_components must be from 1 to 5, the number of codes, got 10"):
            gmm_sampler(few)
    else:
        with pytest.raises(ValueError, match="needs codes that differ"):
            fit(torch.ones(20, 3))
        assert fit(few).sample(2).isfinite().all()
