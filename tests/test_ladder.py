"""The ladder VAE: Sonderby et al. 2016."""

import math

import pytest
import torch
from torch.distributions import Normal

from vaezoo.models import VAE, LadderVAE
from vaezoo.models.ladder_vae import product_of_normals


def bits(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).round()


def test_product_of_two_normals():
    """log N(a) + log N(b) - log N(product) is the same number at each point."""
    a = Normal(torch.tensor([0.3, -2.0, 5.0]).double(), torch.tensor([0.5, 1e-3, 20.0]).double())
    b = Normal(torch.tensor([1.0, 2.0, 4.0]).double(), torch.tensor([2.0, 1.0, 0.1]).double())
    both = product_of_normals(a, b)
    points = both.loc + both.scale * torch.linspace(-3, 3, 7).double()[:, None]
    constant = a.log_prob(points) + b.log_prob(points) - both.log_prob(points)
    torch.testing.assert_close(constant, constant[:1].expand(7, 3), rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(both.variance, 1 / (1 / a.variance + 1 / b.variance), rtol=1e-12, atol=0)


def test_one_layer_is_the_vae():
    """With L = 1 the parameters, their order, the loss and the gradients are those of the VAE, bit for bit."""
    results = []
    for make in (VAE, lambda *a, **k: LadderVAE(*a, num_layers=1, hidden=128, **k)):
        torch.manual_seed(0)
        model = make((1, 5, 4), latent_dim=3, num_samples=2)
        torch.manual_seed(1)
        trace = model(bits(6, 1, 5, 4).float())
        loss = model.objective(trace)["loss"]
        loss.backward()
        results.append([trace.elbo, trace.log_w, loss, *(p.grad for p in model.parameters())])
    assert len(results[0]) == len(results[1])
    for vae, ladder in zip(*results, strict=True):
        assert torch.equal(vae, ladder)


def tiny(num_layers=2):
    torch.manual_seed(3)
    model = LadderVAE((1, 2, 3), latent_dim=2 ** (num_layers - 1) // 2 or 1, num_layers=num_layers, hidden=8).double()
    for p in model.parameters():  # far from the start, where every layer says the same of all x
        p.data.add_(0.1 * torch.randn_like(p))
    return model.eval()


def test_log_marginal_converges_to_the_evidence():
    """With two layers of one dimension each, log p(x) is known by quadrature over both."""
    model = tiny()
    assert model.dims == [1, 1]
    x = bits(4, 1, 2, 3)
    grid = torch.linspace(-9, 9, 721).double()
    z2 = grid[:, None]
    p1 = model.downwards[0](z2)  # p(z_1 | z_2), batch 721
    inside = p1.base_dist.log_prob(grid[:, None, None])[..., 0]  # (z_1, z_2)
    log_pz1 = (inside + Normal(0.0, 1.0).log_prob(grid)).logsumexp(1) + math.log(grid[1] - grid[0])
    log_px = model.decode(grid[:, None, None]).log_prob(x)  # (z_1, B)
    evidence = (log_px + log_pz1[:, None]).logsumexp(0) + math.log(grid[1] - grid[0])
    torch.manual_seed(0)
    estimate = model.log_marginal(x, num_samples=40_000, chunk_size=20_000)
    torch.testing.assert_close(estimate, evidence, rtol=0, atol=0.02)
    torch.manual_seed(0)
    assert (model(x, num_samples=5000).elbo < evidence).all()


def test_elbo_is_the_mean_log_weight():
    """The closed-form KL of each layer, averaged over samples of the layer above, is the mean of log q - log p."""
    model = tiny(3)
    torch.manual_seed(0)
    trace = model(bits(3, 1, 2, 3), num_samples=10000)
    error = trace.log_w.std(0) / math.sqrt(10000)
    assert ((trace.log_w.mean(0) - trace.elbo).abs() < 5 * error).all()
    assert trace.kl.shape == (3, 3)
    assert (trace.kl >= 0).all()


def test_layers():
    model = LadderVAE((1, 4, 4), hidden=128, latent_dim=5, num_layers=4)
    assert model.dims == [5, 3, 2, 1]
    trace = model(bits(2, 1, 4, 4).float())
    assert [latent.z.shape[-1] for latent in trace.latents] == [1, 2, 3, 5]  # top to bottom
    with pytest.raises(ValueError, match="needs a model with one stochastic layer, but this one has 4"):
        _ = trace.latent
    with pytest.raises(ValueError, match="num_layers must be >= 1, got 0"):
        LadderVAE((1, 4, 4), latent_dim=20, hidden=128, num_layers=0)


def test_free_bits_per_layer():
    """The KL term is sum_l max(free_bits, mean KL_l): below free_bits, a layer has no gradient."""
    model = LadderVAE((1, 4, 4), hidden=128, latent_dim=4, num_layers=2, free_bits=3.0, free_bits_per="layer").double()
    trace = model(bits(8, 1, 4, 4))
    kl = trace.kl.mean(0)
    expected = torch.clamp(kl, min=3.0).sum() - trace.log_px.mean()
    torch.testing.assert_close(model.objective(trace)["loss"], expected, rtol=1e-12, atol=0)
    assert (kl < 3.0).any()
    with pytest.raises(ValueError, match="free_bits_per=pixel is not one of dim, layer"):
        LadderVAE((1, 4, 4), latent_dim=20, num_layers=3, hidden=128, free_bits_per="pixel")


def test_active_units_of_every_layer():
    """If the bottom-up networks do not depend on x, no unit is active, however noisy the samples are."""
    model = LadderVAE((1, 4, 4), hidden=128, latent_dim=4, num_layers=3).double().eval()
    for net in model.upwards:
        net.net.layers[-1].weight.data.zero_()
    for flat in (True, False):
        if not flat:
            model.upwards[0].net.layers[-1].weight.data.normal_()
        with torch.no_grad():
            values = model.latent_statistics(model(bits(200, 1, 4, 4)))
        summary = model.reduce_latent_statistics({name: value.mean(0) for name, value in values.items()})
        assert summary["active_units"] == (0 if flat else 4)
        layers = {name.partition(".")[0] for name in summary if name.startswith("kl_dim/")}
        assert layers == {"kl_dim/0", "kl_dim/1", "kl_dim/2"}


def test_encode_follows_the_means():
    """The code is the precision-weighted mean of the lowest layer, given the mean of the layer above."""
    model = tiny()
    x = bits(4, 1, 2, 3)
    low, high = model.bottom_up(x)
    p = model.downwards[0](high.mean).base_dist
    expected = (low.loc / low.variance + p.loc / p.variance) / (1 / low.variance + 1 / p.variance)
    torch.testing.assert_close(model.encode(x), expected, rtol=1e-12, atol=1e-12)


def test_samples_are_drawn_down_the_ladder():
    """Var z_1 = E Var(z_1 | z_2) + Var E(z_1 | z_2), by quadrature, so each layer is sampled."""
    model = tiny()
    model.decode = lambda z, context: z
    torch.manual_seed(0)
    z1 = model.sample(40_000).flatten()
    nodes = torch.linspace(-8, 8, 2001).double()
    weights = torch.softmax(Normal(0.0, 1.0).log_prob(nodes), 0)
    p = model.downwards[0](nodes[:, None]).base_dist
    mean = (weights * p.loc[:, 0]).sum()
    variance = (weights * (p.variance[:, 0] + (p.loc[:, 0] - mean).square())).sum()
    assert float(z1.mean()) == pytest.approx(float(mean), abs=5 * float(variance.sqrt()) / 200)
    assert float(z1.var()) == pytest.approx(float(variance), rel=0.05)
