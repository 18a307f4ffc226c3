"""The linear-Gaussian VAE against probabilistic PCA: Tipping & Bishop 1999; Lucas et al. 2019, arXiv:1911.02469."""

import math

import pytest
import torch
from ppca import PPCA, data_with_spectrum, exact_trace, generator, linear, rotation
from torch.distributions import MultivariateNormal, kl_divergence

from vaezoo.families import FixedScaleNormal
from vaezoo.models import BetaVAE

SPECTRUM = torch.tensor([4.2, 1.9, 1.0, 0.6, 0.4, 0.2], dtype=torch.float64)
DATA_SHAPE = (1, 2, 3)
LATENT_DIM = 3


def fitted(turned: bool, num: int = 40):
    """Return PPCA's maximum-likelihood solution, axis-aligned or rotated, its VAE and its data."""
    x, mean, axes = data_with_spectrum(SPECTRUM, num)
    turn = rotation(LATENT_DIM, 11) if turned else torch.eye(LATENT_DIM, dtype=torch.float64)
    ppca = PPCA.fit(SPECTRUM, mean, axes, LATENT_DIM, turn)
    return ppca, ppca.vae(DATA_SHAPE), x.unflatten(1, DATA_SHAPE)


def log_det_gap(ppca: PPCA) -> float:
    """Return 1/2 (sum ln M_dd - ln det M), the gap of the best diagonal posterior."""
    return float(ppca.m.diagonal().log().sum() - torch.logdet(ppca.m)) / 2


def test_optimum_meets_the_evidence():
    """With R = I, the mean ELBO = -1/2 [D ln 2 pi + sum_{i<=q} ln lambda_i + (D - q) ln sigma^2 + D] (PPCA)."""
    ppca, model, x = fitted(turned=False)
    dim = len(SPECTRUM)
    log_dets = float(SPECTRUM[:LATENT_DIM].log().sum()) + (dim - LATENT_DIM) * math.log(ppca.variance)
    closed = -(dim * math.log(2 * math.pi) + log_dets + dim) / 2
    assert float(ppca.evidence.log_prob(x.flatten(1)).mean()) == pytest.approx(closed, abs=1e-10)
    assert float(exact_trace(model, x).elbo.detach().mean()) == pytest.approx(closed, abs=1e-10)


def test_exact_posterior_has_no_variance():
    """If q(z | x) = p(z | x), each importance weight is p(x), and so is each bound (Burda et al. 2016)."""
    torch.manual_seed(0)
    ppca, model, x = fitted(turned=False)
    evidence = ppca.evidence.log_prob(x.flatten(1))
    torch.testing.assert_close(model(x, num_samples=7).log_w, evidence.expand(7, -1), rtol=0, atol=1e-9)
    for num_samples, chunk_size in [(1, 100), (13, 5), (12, 4)]:
        bound = model.log_marginal(x, num_samples=num_samples, chunk_size=chunk_size)
        torch.testing.assert_close(bound, evidence, rtol=0, atol=1e-9)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("disturbed", [False, True])
def test_gap_is_the_divergence_from_the_posterior(turned, disturbed):
    """log p(x) - ELBO = KL(q(z | x), p(z | x)) for each x and any encoder (Kingma & Welling 2013, eq. 1)."""
    ppca, model, x = fitted(turned)
    if disturbed:
        (encoder,) = model.encoder.net.layers
        with torch.no_grad():
            for values in (encoder.weight, encoder.bias):
                values.add_(0.3 * torch.randn(values.shape, dtype=values.dtype, generator=generator(3)))
    trace = exact_trace(model, x)
    q = MultivariateNormal(trace.latent.q.mean, scale_tril=torch.diag_embed(trace.latent.q.stddev))
    gap = ppca.evidence.log_prob(x.flatten(1)) - trace.elbo
    torch.testing.assert_close(gap, kl_divergence(q, ppca.posterior(x)), rtol=0, atol=1e-9)
    if not disturbed:
        torch.testing.assert_close(gap, torch.full_like(gap, log_det_gap(ppca)), rtol=0, atol=1e-9)
    assert turned or disturbed or gap.abs().max() < 1e-9
    assert not turned or log_det_gap(ppca) > 0.1  # the rotated case does lose something


def test_own_samples_agree():
    """The ELBO at the model's own samples is the exact one within the Monte Carlo error."""
    torch.manual_seed(1)
    _, model, x = fitted(turned=True)
    num_samples = 4000
    with torch.no_grad():
        trace, exact = model(x, num_samples=num_samples), exact_trace(model, x)
        error = trace.log_px.mean(1).std() / math.sqrt(num_samples)  # of the mean over the data
        assert error < 0.02
        assert (trace.elbo.mean() - exact.elbo.mean()).abs() < 5 * error
        errors = trace.log_px.std(0) / math.sqrt(num_samples)
        assert ((trace.elbo - exact.elbo).abs() < 5 * errors).all()
        assert ((trace.log_w.mean(0) - exact.elbo).abs() < 5 * trace.log_w.std(0) / math.sqrt(num_samples)).all()


def test_importance_weighted_bound_rises_to_the_evidence():
    """L_1 = ELBO < L_2 < ... < log p(x), and log p(x) - L_K -> Var(w / p(x)) / 2K (Burda et al. 2016; Nowozin 2018).

    With d = log p^(x) - log p(x), E exp(d) = 1, so that E[expm1(d) - d] is the gap, almost without
    noise. Both Gaussians have one mean: Var(w / p) + 1 = det M / (prod M_dd det(2 M - diag M))^1/2.
    """
    torch.manual_seed(2)
    ppca, model, x = fitted(turned=True)
    diagonal = torch.diag(ppca.m.diagonal())
    log_square = torch.logdet(ppca.m) - (torch.logdet(diagonal) + torch.logdet(2 * ppca.m - diagonal)) / 2
    variance = float(torch.expm1(log_square))
    evidence, repeats = ppca.evidence.log_prob(x.flatten(1)), 500  # the bound's expectation, by repetition
    root = math.sqrt(len(x) * repeats)
    last = math.inf
    for num_samples in (1, 2, 5, 20, 100):
        with torch.no_grad():
            log_w = torch.cat([model(x, num_samples=num_samples).log_w[None] for _ in range(repeats)])
        d = log_w.logsumexp(1) - math.log(num_samples) - evidence  # (repeats, B)
        ratio, gap = torch.expm1(d), torch.expm1(d) - d
        assert ratio.mean().abs() < 5 * ratio.std() / root  # E p^(x) = p(x)
        error = float(gap.std()) / root
        assert 0 < float(gap.mean()) < last - 5 * error
        last = float(gap.mean())
        if num_samples == 1:
            assert abs(last - log_det_gap(ppca)) < 5 * error
    assert last == pytest.approx(variance / (2 * num_samples), rel=0.05)


@pytest.mark.parametrize(("beta", "active"), [(1.0, 4), (3.0, 2), (0.5, 5)])
def test_posterior_collapse(beta, active):
    """With fixed sigma^2, a dimension is used iff lambda > beta sigma^2; its KL is 1/2 ln(lambda / (beta sigma^2)).

    Lucas et al. 2019, section 4; the loss over beta is that of noise beta sigma^2, hence the rate,
    and the distortion 1/2 [D ln(2 pi sigma^2) + sum_i min(lambda_i, beta sigma^2) / sigma^2].
    """
    torch.manual_seed(3)
    variance = 0.5
    x = data_with_spectrum(SPECTRUM, 32)[0].unflatten(1, DATA_SHAPE)
    likelihood = FixedScaleNormal(math.sqrt(variance))
    parts = {"encoder": linear, "decoder": linear, "likelihood": likelihood}
    model = BetaVAE(DATA_SHAPE, beta=beta, latent_dim=len(SPECTRUM), **parts).double()
    stop = {"max_iter": 1000, "tolerance_grad": 1e-8, "tolerance_change": 1e-13}
    optimizer = torch.optim.LBFGS(model.parameters(), history_size=30, line_search_fn="strong_wolfe", **stop)

    def closure():
        optimizer.zero_grad()
        loss = model.objective(exact_trace(model, x))["loss"]
        loss.backward()
        return loss

    optimizer.step(closure)
    trace = exact_trace(model, x)
    rates = trace.latent.kl_per_dim.mean(0).detach().sort(descending=True).values
    expected = (SPECTRUM / (beta * variance)).log().clamp(min=0) / 2
    assert int((expected > 0).sum()) == active
    torch.testing.assert_close(rates, expected, rtol=0, atol=1e-5)
    used = trace.latent.q.mean.detach().var(0, unbiased=False).sort(descending=True).values
    torch.testing.assert_close(used, (1 - beta * variance / SPECTRUM).clamp(min=0), rtol=0, atol=1e-5)
    distortion = (len(SPECTRUM) * math.log(2 * math.pi * variance)
                  + float(SPECTRUM.clamp(max=beta * variance).sum()) / variance) / 2  # fmt: skip
    assert float(trace.log_px.detach().mean()) == pytest.approx(-distortion, abs=1e-5)
    assert float(trace.elbo.detach().mean()) == pytest.approx(-distortion - float(expected.sum()), abs=1e-5)
