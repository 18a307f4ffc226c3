"""Mixture priors: densities by hand, limits with a closed form, samples, and the encoder that the VampPrior shares."""

import copy
import math
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from conftest import RandomImages
from ppca import generator, inverse_soft_floor
from torch.distributions import Independent, Normal, kl_divergence

from vaezoo.families import FixedScaleNormal
from vaezoo.models import VAE, MoGVAE, VampVAE
from vaezoo.nets import MLP
from vaezoo.priors import MixtureOfNormals, StandardNormal, VampPrior

FLOAT = torch.float64
DATA_SHAPE = (1, 2, 3)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=generator(seed))


def rand(*shape, seed=0):
    return torch.rand(*shape, dtype=FLOAT, generator=generator(seed))


def vamp(latent_dim=2, num_components=4, spread=2.0, cls=VampVAE, **kwargs):
    """A model in float64 whose posteriors differ from example to example."""
    torch.manual_seed(0)
    parts = {"encoder": partial(MLP, hidden=[8]), "decoder": partial(MLP, hidden=[8])}
    model = cls(
        DATA_SHAPE, latent_dim=latent_dim, num_components=num_components, likelihood=FixedScaleNormal(0.5), **parts,
        **kwargs,
    ).double()  # fmt: skip
    with torch.no_grad():
        model.encoder.net.layers[-1].weight.mul_(spread)
        if cls is MoGVAE:
            for i, values in enumerate(model.prior.parameters()):
                values.copy_(0.5 * randn(*values.shape, seed=20 + i))
    return model


def normal_log_prob(z, loc, scale):
    """log N(z; loc, diag scale^2), term by term."""
    return sum(
        -((z[..., d] - loc[d]) ** 2) / (2 * scale[d] ** 2) - scale[d].log() - math.log(2 * math.pi) / 2
        for d in range(z.shape[-1])
    )


def mixture_by_hand(z, weights, locs, scales):
    """log sum_c pi_c N(z; mu_c, diag sigma_c^2), term by term."""
    parts = zip(weights, locs, scales, strict=True)
    return torch.stack([weight * normal_log_prob(z, loc, scale).exp() for weight, loc, scale in parts]).sum(0).log()


# Densities.


def test_mixture_of_normals_by_hand():
    """log p(z) = log sum_c softmax(logits)_c N(z; mu_c, diag exp(log_scale_c)^2), for z (K, B, D)."""
    prior = vamp(cls=MoGVAE).prior
    z = 2 * randn(3, 5, 2)
    weights = prior.logits.exp() / prior.logits.exp().sum()
    expected = mixture_by_hand(z, weights, prior.loc, prior.log_scale.exp())
    torch.testing.assert_close(prior().log_prob(z), expected, rtol=1e-12, atol=1e-12)
    assert expected.shape == (3, 5)


def test_one_standard_component_is_the_standard_normal():
    """C = 1, mean 0, scale 1: N(0, I) to the last digit."""
    z = 3 * randn(3, 5, 2, 4)  # any latent shape
    prior = MixtureOfNormals((2, 4), num_components=1, spread=0.0).double()
    assert torch.equal(prior().log_prob(z), StandardNormal((2, 4)).double()().log_prob(z))


def test_components_start_apart():
    """Equal weights, unit scales, means drawn from N(0, spread^2 I)."""
    torch.manual_seed(0)
    prior = MixtureOfNormals((50,), num_components=40, spread=3.0)
    assert torch.equal(prior().mixture_distribution.probs, torch.full((40,), 1 / 40))
    assert torch.equal(prior().component_distribution.stddev, torch.ones(40, 50))
    loc = prior.loc.detach()
    assert abs(float(loc.mean())) < 5 * 3 / math.sqrt(2000)
    assert abs(float(loc.std()) / 3 - 1) < 5 / math.sqrt(2 * 2000)


def test_vamp_prior_of_the_data_is_the_aggregate_posterior():
    """If the pseudo-inputs are the data, p(z) = 1/N sum_n q(z | x_n) (Tomczak & Welling 2018, eq. 6)."""
    x, z = 0.01 + 0.98 * rand(7, *DATA_SHAPE), 2 * randn(3, 5, 2)
    model = vamp(num_components=7)
    with torch.no_grad():
        model.prior.pixels.copy_(torch.logit(x))
    torch.testing.assert_close(model.prior.pseudo_inputs, x, rtol=1e-12, atol=0)
    posteriors = [model.encoder(x[n : n + 1]) for n in range(7)]
    locs, scales = [q.mean[0] for q in posteriors], [q.stddev[0] for q in posteriors]
    expected = mixture_by_hand(z, torch.full((7,), 1 / 7, dtype=FLOAT), locs, scales)
    torch.testing.assert_close(model.prior().log_prob(z), expected, rtol=1e-12, atol=1e-12)
    assert torch.stack(locs).std(0).min() > 0.2


@pytest.mark.parametrize("cls", [MoGVAE, VampVAE])
@pytest.mark.parametrize("latent_dim", [1, 2])
def test_densities_integrate_to_1(cls, latent_dim):
    """By the trapezoid rule, which is exact for a smooth density that is 0 at both ends."""
    prior = vamp(latent_dim, cls=cls, spread=1.0).prior
    line = torch.linspace(-14, 14, 1401, dtype=FLOAT)
    z = torch.cartesian_prod(*[line] * latent_dim).reshape(-1, latent_dim)
    with torch.no_grad():
        total = prior().log_prob(z).exp().sum() * 0.02**latent_dim
    assert float(total) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("cls", [MoGVAE, VampVAE])
def test_one_component_can_be_the_standard_normal(cls):
    """One component that is N(0, I): log p(z) is StandardNormal's, and the estimated KL has the closed form for
    its mean.
    """
    model = vamp(num_components=1, cls=cls)
    with torch.no_grad():
        if cls is MoGVAE:
            for values in model.prior.parameters():
                values.zero_()
        else:  # centre the encoder so that q(z | u) = N(0, I)
            raw = model.encoder.net(model.prior.pseudo_inputs)[0]
            unit = inverse_soft_floor(torch.zeros(2, dtype=FLOAT), model.encoder.family.min_log_scale)
            model.encoder.offset.copy_(torch.cat([torch.zeros(2, dtype=FLOAT), unit]) - raw)
        x, num_samples = rand(6, *DATA_SHAPE, seed=1), 20_000
        torch.manual_seed(1)
        latent = model(x, num_samples=num_samples).latent
        standard = StandardNormal((2,)).double()()
        torch.testing.assert_close(latent.log_p, standard.log_prob(latent.z), rtol=1e-12, atol=1e-12)
        assert latent.kl_per_dim is None
        exact = kl_divergence(latent.q, standard)
        error = (latent.log_q - latent.log_p).std(0) / math.sqrt(num_samples)
        assert ((latent.kl - exact).abs() < 5 * error).all()
        assert (error < 0.05 * exact.max()).all()


# Samples.


@pytest.mark.parametrize("cls", [MoGVAE, VampVAE])
def test_samples_follow_the_weights_and_the_components(cls):
    """Frequencies of components that are far apart, by chi-square, and the moments of each component."""
    num_components, num = 10, 20_000
    model = vamp(num_components=num_components, cls=cls, spread=6.0)
    with torch.no_grad():
        if cls is MoGVAE:
            prior, weights = model.prior, torch.arange(1, num_components + 1, dtype=FLOAT)
            prior.logits.copy_(weights.log())
            prior.loc.copy_(40 * torch.arange(num_components)[:, None] * torch.tensor([1.0, -1.0]))
        else:
            weights = torch.ones(num_components, dtype=FLOAT)
            model.prior.init_from_data(rand(num_components, *DATA_SHAPE))
            model.encoder.net.layers[-1].weight[2:] = 0
            model.encoder.offset[2:] = -5  # narrow, all alike
        p = model.prior()
        torch.manual_seed(2)
        z = p.sample(torch.Size([num]))
    parts = p.component_distribution
    gaps = torch.pdist(parts.mean) / parts.stddev.max()
    assert gaps.min() > 12
    component = ((z[:, None] - parts.mean) / parts.stddev).norm(dim=2).argmin(1)
    expected = num * weights / weights.sum()
    counts = component.bincount(minlength=num_components)
    assert float(((counts - expected) ** 2 / expected).sum()) < 27.9  # 9 degrees of freedom: 0.1 %
    scaled = (z - parts.mean[component]) / parts.stddev[component]
    assert scaled.mean().abs() < 5 / math.sqrt(2 * num)
    assert (scaled.square().mean() - 1).abs() < 5 * math.sqrt(2 / (2 * num))
    assert model.sample(7).mean.shape == (7, *DATA_SHAPE)


def test_mean_log_density_of_samples_is_the_negative_entropy():
    """The mean of log p(z) over samples of the prior, against quadrature."""
    prior = vamp(1, spread=1.0).prior
    torch.manual_seed(3)
    with torch.no_grad():
        own = prior().log_prob(prior().sample(torch.Size([50_000])))
        line = torch.linspace(-14, 14, 2801, dtype=FLOAT)[:, None]
        log_p = prior().log_prob(line)
        exact = (log_p.exp() * log_p).sum() * 0.01
    assert (own.mean() - exact).abs() < 5 * own.std() / math.sqrt(len(own))


# The encoder within the prior.


def test_the_encoder_is_registered_once():
    """No parameter or state appears twice, and the prior moves with the encoder to another dtype."""
    model = vamp()
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert [name for name in names if name.startswith("prior")] == ["prior.pixels"]
    assert [name for name in model.state_dict() if name.startswith("prior")] == ["prior.pixels"]
    assert len(names) == len(set(names))
    assert not list(model.prior.children())
    assert model.prior().log_prob(torch.zeros(2, dtype=FLOAT)).dtype == FLOAT  # .double() reached it


def test_a_copy_has_its_own_encoder():
    """The prior of a deep copy, as for averaged weights, uses the encoder of the copy."""
    model = vamp()
    twin = copy.deepcopy(model)
    assert twin.prior.posterior[0] is twin.encoder
    assert twin.encoder is not model.encoder
    z = randn(5, 2)
    before = model.prior().log_prob(z)
    with torch.no_grad():
        twin.encoder.net.layers[-1].bias.add_(1)
    assert torch.equal(model.prior().log_prob(z), before)
    assert not torch.allclose(twin.prior().log_prob(z), before)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    assert averaged.module.prior.posterior[0] is averaged.module.encoder


def test_pseudo_inputs_and_encoder_learn_from_the_prior():
    """log p(z) at fixed z has a gradient in u and in the encoder, here by central differences."""
    model, z = vamp(), randn(5, 2)

    def value():
        return model.prior().log_prob(z).sum()

    for parameter in (model.prior.pixels, model.encoder.net.layers[0].weight):
        (grad,) = torch.autograd.grad(value(), parameter)
        step = 1e-6 * randn(*parameter.shape, seed=9)
        with torch.no_grad():
            parameter.add_(step)
            above = value()
            parameter.sub_(2 * step)
            slope = (above - value()) / 2
            parameter.add_(step)
        assert float(slope) == pytest.approx(float((grad * step).sum()), rel=1e-5)


# Initialization.


def test_init_from_data():
    """u starts in [0, 1] near training examples, which are repeated with other noise if there are too few."""
    x = rand(5, *DATA_SHAPE, seed=4).round()
    model = vamp(num_components=12)
    torch.manual_seed(5)
    model.init_from_data(x)
    u = model.prior.pseudo_inputs.detach()
    assert ((u > 0) & (u < 1)).all()
    index = torch.arange(12) % 5
    assert ((u - x[index]).abs() < 0.1).all()
    assert torch.pdist(u.flatten(1)).min() > 0.002
    assert model.prior.pixels.requires_grad
    model.init_from_data(rand(30, *DATA_SHAPE))  # more examples than components


def test_pseudo_inputs_of_data_outside_of_the_unit_interval():
    """They start near the examples, wherever these are, and stay in [0, 1] only if they are bounded."""
    x = 100 * torch.randn(5, 3, generator=generator(4))
    x[:2, 0] = torch.nan
    x[:, 2] = torch.nan
    prior = VampVAE((3,), latent_dim=2, num_components=10, bounded=False).prior
    prior.init_from_data(x)
    x[:2, 0], x[:, 2] = x[2:, 0].mean(), 0
    torch.testing.assert_close(prior.pseudo_inputs.detach(), x.repeat(2, 1), rtol=0, atol=0.5)
    assert torch.pdist(prior.pseudo_inputs.detach()).min() > 1e-3  # repeated with other noise
    counts = torch.tensor([[0, 7, 300], [2, -1, 40]])
    prior.init_from_data(counts)
    expected = torch.tensor([[0.0, 7, 300], [2, 7, 40]]).repeat(5, 1)
    torch.testing.assert_close(prior.pseudo_inputs.detach(), expected, rtol=0, atol=0.5)


def test_training_initializes_the_prior_from_data():
    """Each fit initializes the prior from the same training examples."""
    starts = []
    for _ in range(2):
        torch.manual_seed(len(starts))
        model = VampVAE(DATA_SHAPE, latent_dim=2, num_components=8, optimizer=partial(torch.optim.SGD, lr=0.0))
        before = model.prior.pixels.detach().clone()
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = pl.Trainer(max_steps=1, accelerator="cpu", enable_model_summary=False, **quiet)
        trainer.fit(model, RandomImages(DATA_SHAPE))
        starts.append(model.prior.pixels.detach())
        assert not torch.equal(starts[-1], before)
    assert torch.equal(*starts)
    data = RandomImages(DATA_SHAPE)
    data.setup()
    assert ((starts[0].sigmoid() - data.examples(1000).x[:8]).abs() < 0.1).all()


def test_any_model_takes_a_mixture():
    """A VAE with a mixture prior is the same model as the class of the paper."""
    kwargs = {"latent_dim": 2, "likelihood": FixedScaleNormal(0.5)}
    x = rand(4, *DATA_SHAPE)
    for cls, part in ((VampVAE, VampPrior), (MoGVAE, MixtureOfNormals)):
        losses = []
        for make in (
            partial(cls, num_components=3),
            partial(VAE, prior=partial(part, num_components=3)),
        ):
            torch.manual_seed(0)
            model = make(DATA_SHAPE, **kwargs).double()
            trace = model(x)
            assert isinstance(trace.latent.q, Independent)
            assert isinstance(trace.latent.q.base_dist, Normal)
            losses.append(model.objective(trace)["loss"])
            torch.testing.assert_close(losses[-1], -trace.log_w.mean(), rtol=1e-12, atol=0)  # the KL is estimated
        assert torch.equal(*losses)


def test_mistakes():
    """No components, an invalid spread or noise, and free bits per dimension raise."""
    for cls in (VampVAE, MoGVAE):
        with pytest.raises(ValueError, match="num_components must be >= 1, got 0"):
            cls(DATA_SHAPE, latent_dim=2, num_components=0)
    with pytest.raises(ValueError, match="spread must be a finite number >= 0, got -1"):
        MixtureOfNormals((2,), spread=-1)
    with pytest.raises(ValueError, match="noise must be a finite number > 0, got 0"):
        VampPrior((2,), vamp().encoder, noise=0)
    model = MoGVAE(DATA_SHAPE, latent_dim=20, num_components=50, free_bits=0.1)
    with pytest.raises(ValueError, match=r"use model\.free_bits_per=layer"):
        model.objective(model(torch.zeros(4, *DATA_SHAPE)))
