"""Tests of annealed importance sampling against exact answers (Neal 2001; Grosse et al. 2015; Wu et al. 2017)."""

import math
import re
from functools import partial

import pytest
import torch
from ppca import PPCA, data_with_spectrum, generator, rotation
from test_contract import bits, labels, make
from torch import Tensor
from torch.testing import assert_close

from vaezoo.inference import ais as annealed
from vaezoo.inference.ais import PathPoint, annealed_importance_sampling, hmc_transition, leapfrog, schedule, simulate

SPECTRUM = torch.tensor([2.0, 1.2, 0.9, 0.4, 0.4, 0.4], dtype=torch.float64)


def linear_gaussian(turned):
    """A linear VAE with the best diagonal posterior, which is exact unless ``turned``; its data; log p(x)."""
    x, mean, axes = data_with_spectrum(SPECTRUM, 12)
    turn = rotation(3, 11) if turned else torch.eye(3, dtype=torch.float64)
    ppca = PPCA.fit(SPECTRUM, mean, axes, 3, turn)
    return ppca.vae((1, 2, 3)), x.reshape(-1, 1, 2, 3), ppca.evidence


def gaussian(z: Tensor) -> PathPoint:
    """N(0, I) as a point of a path."""
    log_f = -z.square().sum(-1) / 2
    return PathPoint(z, log_f, z.sum(-1), -z)


def quartic(z: Tensor) -> PathPoint:
    """exp(-sum z^4 / 4 - |z|^2 / 4), whose energy leapfrog steps change."""
    log_f = -(z**4 + z.square()).sum(-1) / 4
    return PathPoint(z, log_f, log_f, -(z**3) - z / 2)


def test_leapfrog_is_reversible_and_preserves_volume():
    z, v = torch.randn(2, 5, 4, 3, dtype=torch.float64, generator=generator(0))
    step = torch.tensor(0.2, dtype=torch.float64)
    end, v_end = leapfrog(quartic, quartic(z), v, step, 7)
    back, v_back = leapfrog(quartic, end, -v_end, step, 7)
    assert (end.z - z).abs().max() > 0.5
    assert_close(back.z, z, rtol=0, atol=1e-12)
    assert_close(v_back, -v, rtol=0, atol=1e-12)

    def flat(state):
        point, v = leapfrog(quartic, quartic(state[:3]), state[3:], step, 7)
        return torch.cat([point.z, v])

    jacobian = torch.autograd.functional.jacobian(flat, torch.cat([z[0, 0], v[0, 0]]))
    assert float(torch.linalg.slogdet(jacobian).logabsdet) == pytest.approx(0, abs=1e-12)


def test_energy_error_falls_with_the_square_of_the_step():
    z, v = torch.randn(2, 50, 1, 3, dtype=torch.float64, generator=generator(0))
    errors = []
    for num in (20, 40, 80):
        end, v_end = leapfrog(quartic, quartic(z), v, torch.tensor(1 / num, dtype=torch.float64), num)
        energy = [v.square().sum(-1) / 2 - point.log_f for point, v in ((quartic(z), v), (end, v_end))]
        errors.append(float((energy[1] - energy[0]).square().mean().sqrt()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.02)


def test_transition_leaves_its_density_invariant():
    """With a step size of 1.5, leapfrog alone would give a variance of 1 / (1 - 1.5^2 / 4) = 2.3."""
    num, g = 40_000, generator(1)
    step = torch.full((1,), 1.5, dtype=torch.float64)
    z = torch.randn(num, 1, 1, dtype=torch.float64, generator=g)
    for _ in range(5):
        noise = torch.randn(num, 1, 2, dtype=torch.float64, generator=g)
        z, ratio, accepted = hmc_transition(gaussian, z, noise, step, 2)
        assert torch.equal(ratio, z.sum(-1))  # of where the chain is
    assert 0.6 < float(accepted.mean()) < 0.95
    for power, moment, spread in [(1, 0, 1), (2, 1, math.sqrt(2)), (4, 3, math.sqrt(96))]:
        assert float(z.pow(power).mean()) == pytest.approx(moment, abs=4 * spread / math.sqrt(num))


def test_divergent_trajectory_is_rejected():
    z, noise = torch.full((4, 1, 3), 50.0), torch.ones(4, 1, 4)
    after, _, accepted = hmc_transition(quartic, z, noise, torch.ones(1), 10)
    assert torch.equal(after, z)
    assert torch.equal(accepted, torch.zeros(4, 1))


def test_schedule():
    betas = schedule(7)
    assert betas[0] == 0
    assert betas[-1] == 1
    assert_close(betas, 1 - betas.flip(0))
    assert betas.diff().argmax() == 3
    assert betas.diff().min() > 0


@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_one_step_is_importance_sampling(start):
    model, x, _ = linear_gaussian(turned=True)
    seen = []

    def record(z, context=None, decode=model.decode):
        seen.append(z.detach())
        return decode(z, context)

    model.decode = record
    result = annealed_importance_sampling(model, x, num_chains=6, num_steps=1, start=start)
    (z,) = seen
    z = z[:6]  # the others are pilots
    proposal = model.prior() if start == "prior" else model.encoder(x)
    log_w = model.decoder(z).log_prob(x) + model.prior().log_prob(z) - proposal.log_prob(z)
    assert_close(result.log_p, log_w.logsumexp(0) - math.log(6), rtol=0, atol=1e-12)
    w = log_w.exp()
    assert_close(result.mc_error, w.std(0) / w.mean(0) / math.sqrt(6), rtol=1e-9, atol=0)


@pytest.mark.parametrize("num_steps", [1, 2, 9])
def test_exact_posterior_is_exact(num_steps):
    """From q(z | x) = p(z | x), all densities of the path are equal and each weight is p(x), in both directions."""
    model, x, evidence = linear_gaussian(turned=False)
    truth = evidence.log_prob(x.flatten(1))
    for z in (None, torch.randn(12, 3, dtype=torch.float64, generator=generator(3))):
        result = annealed_importance_sampling(model, x, num_chains=3, num_steps=num_steps, start="posterior", z=z)
        assert_close(result.log_p, truth, rtol=0, atol=1e-9)
        assert_close(result.mc_error, torch.zeros_like(truth), rtol=0, atol=1e-9)
        assert_close(result.ess, torch.full_like(truth, 3), rtol=1e-9, atol=0)


def test_weights_are_unbiased_in_both_directions():
    """E w = p(x) and, from z ~ p(z | x), E 1/w = 1/p(x), for any T; the bounds approach each other as T grows."""
    model, x, evidence = linear_gaussian(turned=True)
    num = 1500
    x, z = simulate(model, num, seed=1)
    truth = evidence.log_prob(x.flatten(1))
    gaps = []
    for num_steps in (3, 12):
        passes = partial(annealed_importance_sampling, model, x, num_chains=2, num_steps=num_steps, num_leapfrog=4)
        low, high = passes().log_p, passes(z=z).log_p
        for d in (low - truth, truth - high):
            ratio = d.exp()
            assert float(ratio.mean()) == pytest.approx(1, abs=4 * float(ratio.std()) / math.sqrt(num))
            assert float(d.mean()) < -4 * float(d.std()) / math.sqrt(num)  # a bound, and not by chance
        gaps.append(float((high - low).mean()))
    assert gaps[1] < gaps[0] / 1.5


def test_many_steps_give_log_px():
    model, x, evidence = linear_gaussian(turned=True)
    truth = evidence.log_prob(x.flatten(1))
    result = annealed_importance_sampling(model, x, num_steps=250, num_leapfrog=6)
    assert result.draw_error < 0.04
    assert abs(result.mean - float(truth.mean())) < 4 * result.draw_error
    assert (result.log_p - truth).abs().max() < 0.4
    assert (result.ess > 10).all()


def test_error_is_the_spread_over_repetitions():
    """The standard deviation of log_px over repetitions is mc_error."""
    model, x, _ = linear_gaussian(turned=True)
    result = annealed_importance_sampling(
        model, x[:1].expand(400, -1, -1, -1), num_chains=12, num_steps=40, num_leapfrog=4
    )
    spread = float(result.log_p.std())
    assert spread == pytest.approx(float(result.mc_error.square().mean().sqrt()), rel=0.15)


def test_only_pilots_set_the_step_size(monkeypatch):
    """The step size must not depend on the K chains: other chains, the same step sizes."""
    model, x, _ = linear_gaussian(turned=True)
    moves = []

    def record(at, z, noise, step, num_leapfrog):
        result = hmc_transition(at, z, noise, step, num_leapfrog)
        moves.append((step, result[2]))
        return result

    monkeypatch.setattr(annealed, "hmc_transition", record)
    for z in (torch.zeros(12, 3).double(), torch.full((12, 3), 2.0).double()):
        annealed_importance_sampling(model, x, num_chains=5, num_steps=200, num_leapfrog=4, z=z)
    for (step, accepted), (other_step, other_accepted) in zip(moves[:199], moves[199:], strict=True):
        assert torch.equal(step, other_step)
        assert torch.equal(accepted[5:], other_accepted[5:])
    assert not torch.equal(moves[0][1][:5], moves[199][1][:5])
    late = torch.stack([accepted for _, accepted in moves[100:199]])
    assert float(late.mean()) == pytest.approx(annealed.TARGET_ACCEPTANCE, abs=0.08)  # it lags behind the path


CASES = [
    ("cvae", "prior"),
    ("cvae", "posterior"),
    ("flow_prior_vae", "prior"),
    ("mog_vae", "prior"),
    ("vamp_vae", "prior", "model.num_components=5"),
    ("full_cov_vae", "posterior"),
    ("iaf_vae", "posterior", "model.num_flows=2", "model.flow_hidden=[16]"),
]


@pytest.mark.parametrize(("name", "start", "more"), [(name, start, more) for name, start, *more in CASES])
def test_agrees_with_importance_sampling(name, start, more):
    """Any prior with a density, any posterior to start from: against 50,000 draws from the prior, of three dimensions,
    which miss nothing of the posterior.
    """
    model = make(name, *more, net="mlp").double()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(2)  # so that x depends on z
    x, y = bits(3, 1, 9, 7).double(), labels(3)
    with torch.no_grad():
        z = model.prior().sample((50_000, 1)).reshape(50_000, 1, 3).expand(-1, 3, -1)
        w = model.decode(z, y).log_prob(x).exp()
    exact, exact_error = w.mean(0).log(), w.std(0) / w.mean(0) / math.sqrt(len(w))
    result = annealed_importance_sampling(model, x, y, num_steps=50, num_leapfrog=3, num_chains=24, start=start)
    assert (w.std(0) > w.mean(0)).all()
    assert (exact_error < 0.05).all()
    assert ((result.log_p - exact).abs() < 5 * (exact_error.square() + result.mc_error.square()).sqrt()).all()


@pytest.mark.parametrize("name", ["mlp_vae", "cvae"])
@pytest.mark.parametrize("reverse", [False, True])
def test_result_does_not_depend_on_the_batch(name, reverse):
    """The random numbers of an example depend on its index; two equal calls give the same digits."""
    model = make(name, net="mlp").double()
    x, y = bits(5, 1, 9, 7).double(), labels(5)
    z = torch.randn(5, 3, dtype=torch.float64, generator=generator(0)) if reverse else None
    passes = partial(annealed_importance_sampling, model, num_chains=4, num_steps=10, num_leapfrog=3)
    whole = passes(x, y, z=z)
    parts = (passes(x[i], y[i], z=z if z is None else z[i], start_index=i.start) for i in (slice(0, 2), slice(2, 5)))
    for value, again, *pieces in zip(whole, passes(x, y, z=z), *parts, strict=True):
        assert torch.equal(value, again)
        assert_close(value, torch.cat(pieces), rtol=0, atol=1e-9)
    assert not torch.equal(passes(x, y, z=z, seed=1).log_p, whole.log_p)
    assert whole.log_p.dtype == torch.float64
    same = passes(x[:1].expand(4, -1, -1, -1), y[:1].expand(4), z=z if z is None else z[:1].expand(4, -1))
    assert len(same.log_p.unique()) == 4  # each example has its own draws


def test_state_is_unchanged():
    """The caller's random state, the modes of the modules and the gradients; ``progress`` gets the steps."""
    model = make("mlp_vae", net="mlp").train()
    model.decoder.eval()
    state, seen = torch.get_rng_state(), []
    result = annealed_importance_sampling(
        model, bits(2, 1, 9, 7), num_steps=4, num_leapfrog=2, progress=lambda r: seen.extend(r) or r
    )
    x, _ = simulate(model, 3)
    assert result.log_p.dtype == torch.float64
    assert not result.log_p.requires_grad
    assert not x.requires_grad
    assert seen == [1, 2, 3]
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert not model.decoder.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_simulated_examples_are_samples_of_the_model():
    model, _, evidence = linear_gaussian(turned=True)
    x, z = simulate(model, 20_000)
    assert torch.equal(simulate(model, 20_000)[0], x)
    assert_close(x.flatten(1).T.cov(), evidence.covariance_matrix, rtol=0, atol=0.08)
    noise = (x - model.decode(z).mean).detach().flatten(1)
    assert float(noise.var()) == pytest.approx(0.4, rel=0.02)
    assert (torch.cat([noise, z], 1).T.corrcoef() - torch.eye(9)).abs().max() < 0.04


@pytest.mark.parametrize("name", ["ladder_vae", "s_vae", "vq_vae"])
def test_refuses_other_latents(name):
    model = make(name, net="mlp")
    for call in (lambda: annealed_importance_sampling(model, bits(2, 1, 9, 7)), lambda: simulate(model, 2)):
        with pytest.raises(ValueError, match="one vector of R\\^D"):
            call()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_chains": 0}, "num_chains must be >= 1, got 0"),
        ({"num_steps": 0}, "num_steps must be >= 1, got 0"),
        ({"num_leapfrog": 0}, "num_leapfrog must be >= 1, got 0"),
        ({"start": "encoder"}, "start=encoder is not one of prior, posterior"),
        ({"z": torch.zeros(3, 3)}, "(2, 3), one latent per example, got (3, 3)"),
    ],
)
def test_values_out_of_range_are_refused(settings, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        annealed_importance_sampling(make("mlp_vae", net="mlp"), bits(2, 1, 9, 7), **settings)
    with pytest.raises(ValueError, match="only the values 0 and 1"):
        annealed_importance_sampling(make("mlp_vae", net="mlp"), torch.full((2, 1, 9, 7), 0.5))
