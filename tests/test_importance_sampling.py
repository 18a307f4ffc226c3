"""Tests of log p(x) by importance sampling: exact for an exact posterior, with correct errors for another."""

import math
import shutil
import warnings
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from ppca import PPCA, data_with_spectrum
from test_contract import bits, labels, make
from torch.distributions import kl_divergence
from torch.testing import assert_close

from vaezoo.evaluation.base import EvaluationSettings
from vaezoo.evaluation.likelihood import likelihood
from vaezoo.inference.importance_sampling import LogMarginalEstimate, estimate_log_marginal
from vaezoo.models import VAE
from vaezoo.nets import MLP
from vaezoo.types import Batch

SPECTRUM = torch.tensor([4.0, 2.0, 1.0, 0.3, 0.3, 0.3], dtype=torch.float64)


def linear_gaussian(exact, excess=0.3):
    """A linear VAE whose posterior is exact, or wider by e^excess (its weights are bounded); its data; log p(x)."""
    x, mean, axes = data_with_spectrum(SPECTRUM, 12)
    ppca = PPCA.fit(SPECTRUM, mean, axes, 3, torch.eye(3, dtype=torch.float64))
    model = ppca.vae((1, 2, 3))
    if not exact:
        (encoder,) = model.encoder.net.layers
        with torch.no_grad():
            encoder.bias[3:] += excess
    return model, x.reshape(-1, 1, 2, 3), ppca.evidence.log_prob(x)


def as_run(model, x):
    """A run whose test set is x."""
    batch = Batch(x, torch.full((len(x),), -1))
    data = SimpleNamespace(noun="sentence")
    return SimpleNamespace(model=model, data=data, split=lambda name, num: batch, batches=lambda name, num: [batch])


@pytest.mark.parametrize(("num_samples", "chunk_size"), [(2, None), (13, 5), (100, 7), (1000, None)])
def test_exact_posterior_is_exact(num_samples, chunk_size):
    """Every weight is p(x), so the estimate has no error and ess = K."""
    model, x, truth = linear_gaussian(exact=True)
    result = estimate_log_marginal(model, x, num_samples=num_samples, chunk_size=chunk_size)
    assert_close(result.log_p, truth, rtol=0, atol=1e-9)
    assert_close(result.mc_error, torch.zeros_like(truth), rtol=0, atol=1e-9)
    assert_close(result.ess, torch.full_like(truth, num_samples), rtol=1e-9, atol=0)
    assert_close(model.log_marginal(x, num_samples=num_samples, chunk_size=chunk_size), result.log_p, rtol=0, atol=0)


def test_gap_is_the_kl_of_the_posteriors():
    """log p(x) - ELBO = KL(q(z | x), p(z | x)), in closed form; with the same samples it is never below 0."""
    model, x, truth = linear_gaussian(exact=False)
    exact, _, _ = linear_gaussian(exact=True)
    q, posterior = model.encoder(x), exact.encoder(x)
    result = estimate_log_marginal(model, x, num_samples=20_000)
    assert_close(result.log_p - result.elbo, kl_divergence(q, posterior), rtol=0, atol=0.02)
    assert_close(result.elbo, truth - kl_divergence(q, posterior), rtol=0, atol=0.02)
    few = estimate_log_marginal(model, x, num_samples=3)
    assert (few.log_p > few.elbo).all()
    assert_close(estimate_log_marginal(exact, x, num_samples=3).elbo, truth, rtol=0, atol=1e-9)


def test_errors_are_calibrated():
    """For a wrong posterior, (estimate - log p(x)) / mc_error is standard normal, up to the bias of the logarithm."""
    model, x, truth = linear_gaussian(exact=False)
    num = 2000
    result = estimate_log_marginal(model, x[:1].expand(num, -1, -1, -1), num_samples=400)
    assert (result.ess < 350).all()  # the weights do vary
    error = result.log_p - truth[0]
    z = (error + result.mc_error.square() / 2) / result.mc_error
    for width, share in [(1.0, 0.6827), (2.0, 0.9545)]:
        within = float((z.abs() < width).double().mean())
        assert abs(within - share) < 4 * math.sqrt(share * (1 - share) / num)
    spread = float(error.std() / result.mc_error.mean())
    assert spread == pytest.approx(1, abs=0.065)  # 4 standard errors of a standard deviation
    assert float(result.log_p.std()) / math.sqrt(num) == pytest.approx(result.error)
    assert result.draw_error == pytest.approx(result.error, rel=0.065)  # one example: all spread is the draws'
    assert abs(result.mean - float(truth[0])) < 5 * result.error


def test_collapsed_samples_have_no_error():
    """If one sample carries all the weight, mc_error is 1 nat whatever the true error is: the note says so."""
    model, x, truth = linear_gaussian(exact=False, excess=5)
    result = estimate_log_marginal(model, x, num_samples=200)
    assert result.ess.median() < 1.5
    assert (truth - result.log_p).median() > 50  # the true error, of which mc_error knows nothing
    assert result.draw_error <= 1 / math.sqrt(len(x))
    assert not result.converged
    found = likelihood(as_run(model, x), EvaluationSettings(200, None))
    assert found.values["log_p"] == result.mean
    assert "log_p_draw_error" not in found.values
    assert "has not converged and may be far below log p(x)" in found.note
    assert "1 in the median image, 1 in the worst" in found.note
    assert "of it from the finite number of draws" not in found.note


def test_samples_of_a_good_posterior_have_an_error():
    model, x, truth = linear_gaussian(exact=False)
    result = estimate_log_marginal(model, x, num_samples=200)
    assert result.converged
    assert (truth - result.log_p).abs().mean() < 0.1
    assert estimate_log_marginal(linear_gaussian(exact=True)[0], x, num_samples=2).converged


@pytest.mark.parametrize(("seconds", "text"), [(30.0, "6 min"), (3.0, "36 s"), (2.5, "")])
def test_a_long_estimate_is_announced(monkeypatch, capsys, seconds, text):
    """The first example may wait for the compiler, so the second one is timed: 12 examples as long as that one."""
    model, x, _ = linear_gaussian(exact=True)
    times = iter([1000.0, 1000.0 + seconds])
    monkeypatch.setattr("vaezoo.evaluation.progress.measure_time", lambda device: next(times))
    likelihood(as_run(model, x), EvaluationSettings(2, None))
    err = capsys.readouterr().err
    line = f"log p(x) of 12 sentences by 2 importance samples takes about {text} (task.num_samples and task.num_images"
    assert (line in err) == bool(text)
    assert err.count("takes about") == bool(text)


def test_bound_rises_to_log_px():
    """E L_1 < E L_5 < ... < log p(x) (Burda et al. 2016, theorem 1), and the last gap is mc_error^2 / 2."""
    model, x, truth = linear_gaussian(exact=False)
    many = x[:1].expand(500, -1, -1, -1)
    gaps, errors = [], []
    for num_samples in (1, 5, 25):
        result = estimate_log_marginal(model, many, num_samples=num_samples)
        d = result.log_p - truth[0]
        gap = d.expm1() - d  # E exp(d) = 1, so that its mean is that of -d, with less noise
        gaps.append(float(gap.mean()))
        errors.append(float(gap.std()) / math.sqrt(len(many)))
    assert all(a > b + 3 * (e + f) for a, b, e, f in zip(gaps, gaps[1:], errors, errors[1:], strict=False))
    assert gaps[-1] > 5 * errors[-1]
    assert gaps[-1] == pytest.approx(float(result.mc_error.square().mean()) / 2, rel=0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_estimate_is_the_mean_weight(dtype):
    """The mean of K weights in float64, also if the chunks have more samples; its error as defined."""
    model, x, _ = linear_gaussian(exact=False)
    model.to(dtype)
    draws = []

    def record(*args, forward=model.forward, **kwargs):
        trace = forward(*args, **kwargs)
        draws.append(trace.log_w)
        return trace

    model.forward = record
    result = estimate_log_marginal(model, x[:1].to(dtype), num_samples=40, chunk_size=7)
    assert [len(log_w) for log_w in draws] == [7] * 6
    assert draws[0].dtype == dtype
    w = torch.cat(draws)[:40, 0].double().exp()
    assert_close(result.log_p[0], w.mean().log(), rtol=0, atol=1e-12)
    assert_close(result.mc_error[0], w.std() / w.mean() / math.sqrt(40), rtol=1e-9, atol=0)
    assert_close(result.ess[0], w.sum() ** 2 / w.square().sum(), rtol=1e-9, atol=0)


def test_one_sample_has_no_error():
    model, x, _ = linear_gaussian(exact=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = estimate_log_marginal(model, x, num_samples=1)
    assert result.mc_error.isnan().all()
    assert_close(result.ess, torch.ones_like(result.ess))


@pytest.mark.parametrize("name", ["mlp_vae", "cvae", "iaf_vae", "ladder_vae", "s_vae", "vamp_vae", "vq_vae"])
def test_result_does_not_depend_on_the_batch(name):
    """The random numbers of an example depend on its index: the number of examples per call changes no digit."""
    model = make(name, net="mlp")
    x, y = bits(5, 1, 9, 7), labels(5)
    passes = partial(estimate_log_marginal, model, num_samples=10, chunk_size=4)
    whole = passes(x, y)
    parts = passes(x[:2], y[:2]), passes(x[2:], y[2:], start_index=2)
    for value, *pieces in zip(whole, *parts, strict=True):
        assert torch.equal(value, torch.cat(pieces))
    other = passes(x, y, seed=model.seed + 1)
    assert torch.equal(other.log_p, whole.log_p) == (name == "vq_vae")


def test_each_example_has_its_own_samples():
    model, x, _ = linear_gaussian(exact=False)
    values = model.log_marginal(x[:1].expand(4, -1, -1, -1), num_samples=3)
    assert len(values.unique()) == 4


def test_state_is_unchanged():
    """The caller's random state and the modes of the modules."""
    model = make("mlp_vae", net="mlp").train()
    model.decoder.eval()
    state = torch.get_rng_state()
    estimate_log_marginal(model, bits(3, 1, 9, 7), num_samples=5)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert not model.decoder.training


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_equals_eager():
    """The same samples and digits, from one graph for all chunks, including the last one."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = VAE((1, 9, 7), latent_dim=3, encoder=partial(MLP, hidden=[8]), decoder=partial(MLP, hidden=[8]))
    x = bits(3, 1, 9, 7)
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = estimate_log_marginal(model, x, num_samples=41, chunk_size=10, compile=True)
    for got, expected in zip(compiled, estimate_log_marginal(model, x, num_samples=41, chunk_size=10), strict=True):
        assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_sums_are_not_in_bfloat16():
    """Under the caller's autocast layers are in bf16; sums over pixels, chunks and samples are not."""
    model = make("mlp_vae", net="mlp")
    x = bits(4, 1, 9, 7)
    full = estimate_log_marginal(model, x, num_samples=50)
    with torch.autocast("cpu", torch.bfloat16):
        half = estimate_log_marginal(model, x, num_samples=50)
    assert half.log_p.dtype == torch.float64
    assert not torch.equal(half.log_p, full.log_p)
    assert_close(half.log_p, full.log_p, rtol=0, atol=0.5)


def test_progress_wraps_the_loop():
    seen = []

    def track(numbers):
        for i in numbers:
            yield i
            seen.append((i, len(numbers)))

    model, x, _ = linear_gaussian(exact=True)
    estimate_log_marginal(model, x, num_samples=2, progress=track)
    assert seen == [(i, 12) for i in range(12)]


def test_means_and_their_errors():
    log_px = torch.tensor([-1.0, -2.0, -6.0], dtype=torch.float64)
    result = LogMarginalEstimate(log_px, log_px, torch.tensor([0.3, 0.0, 0.4], dtype=torch.float64), torch.ones(3))
    assert result.mean == pytest.approx(-3)
    assert result.error == pytest.approx(math.sqrt(7 / 3))  # (4 + 1 + 9) / 2 is the variance
    assert result.draw_error == pytest.approx(0.5 / 3)


def test_numbers_out_of_range():
    model, x, _ = linear_gaussian(exact=True)
    for wrong in ({"num_samples": 0}, {"chunk_size": 0}):
        with pytest.raises(ValueError, match="num_samples and chunk_size must be >= 1, got"):
            estimate_log_marginal(model, x, **wrong)
