"""The prior that depends on the label: closed forms, identities, samples and messages."""

from functools import partial

import pytest
import torch
from ppca import generator, linear
from torch.distributions import MultivariateNormal, kl_divergence

from vaezoo.families import FixedScaleNormal
from vaezoo.models import CVAE, VAE
from vaezoo.priors import LabelNormal, StandardNormal

FLOAT = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=generator(seed))


def made(shape=(2,), num_classes=3):
    prior = LabelNormal(shape, num_classes=num_classes).double()
    with torch.no_grad():
        prior.loc.copy_(randn(*prior.loc.shape, seed=1))
        prior.log_scale.copy_(0.3 * randn(*prior.loc.shape, seed=2))
    return prior


def model_with(prior, cls=VAE, **options):
    torch.manual_seed(0)
    parts = {"encoder": linear, "decoder": linear, "likelihood": FixedScaleNormal(0.5), "prior": lambda *_: prior}
    return cls((4,), latent_dim=2, **parts, **options).double()


def test_density_and_kl():
    """log N(z; mu_y, diag sigma_y^2) and its KL to the posterior, for each example's own class."""
    prior, y = made(), torch.tensor([2, 0, 2, 1, 1])
    model, x = model_with(prior), randn(5, 4)
    trace = model(x, y, num_samples=6)
    classes = [
        MultivariateNormal(m, torch.diag((2 * s).exp())) for m, s in zip(prior.loc, prior.log_scale, strict=True)
    ]
    for i, c in enumerate(y):
        torch.testing.assert_close(trace.latent.log_p[:, i], classes[c].log_prob(trace.latent.z[:, i]))
        q = MultivariateNormal(trace.latent.q.mean[i], torch.diag(trace.latent.q.variance[i]))
        torch.testing.assert_close(trace.latent.kl[i], kl_divergence(q, classes[c]))


def test_exact_bound_of_a_linear_model():
    """With x = W z + mu + noise and p(z | y), log p(x | y) is normal; the bound of many samples reaches it."""
    prior, y = made(), torch.tensor([2, 0, 1])
    model, x = model_with(prior), randn(3, 4)
    (decoder,) = model.decoder.net.layers
    with torch.no_grad():
        decoder.weight.mul_(0.5)
    bound = model.log_marginal(x, y, num_samples=200_000)
    for i, c in enumerate(y):
        covariance = decoder.weight @ torch.diag((2 * prior.log_scale[c]).exp()) @ decoder.weight.T
        mean = decoder.weight @ prior.loc[c] + decoder.bias
        exact = MultivariateNormal(mean, covariance + 0.25 * torch.eye(4, dtype=FLOAT)).log_prob(x[i])
        assert bound[i].item() == pytest.approx(exact.item(), abs=0.02)


def test_starts_at_the_standard_normal():
    """Before training, every class has p(z) = N(0, I): the same bits as the standard normal prior."""
    x, y = randn(5, 4), torch.arange(5) % 3
    traces = []
    for prior in (LabelNormal((2,), num_classes=3).double(), StandardNormal((2,)).double()):
        model = model_with(prior)
        torch.manual_seed(0)
        traces.append(model(x, y))
    assert torch.equal(traces[0].elbo, traces[1].elbo)


@pytest.mark.parametrize("shape", [(2,), (2, 3, 2)], ids=str)
def test_samples_are_of_their_classes(shape):
    """One sample for each label; the moments are those of its class."""
    prior = made(shape)
    y = torch.arange(3).repeat_interleave(20_000)
    torch.manual_seed(0)
    z = prior.sample(len(y), y)
    assert z.shape == (60_000, *shape)
    for c in range(3):
        drawn = z[y == c].flatten(1)
        scale = prior.log_scale[c].exp()
        assert ((drawn.mean(0) - prior.loc[c]).abs() < 5 * scale / 20_000**0.5).all()
        torch.testing.assert_close(drawn.std(0), scale, rtol=0.03, atol=0)
    with pytest.raises(ValueError, match="4 samples need as many labels, got 3"):
        prior.sample(4, torch.arange(3))
    torch.manual_seed(0)
    drawn = StandardNormal((2,)).sample(7)
    torch.manual_seed(0)
    assert torch.equal(drawn, StandardNormal((2,))().sample(torch.Size([7])))


def test_models_are_conditional():
    """A model with this prior asks for labels, also a cvae, and refuses those that are no class."""
    for cls, options in ((VAE, {}), (CVAE, {"num_classes": 5})):
        model = model_with(LabelNormal((2,), num_classes=3), cls, **options)
        assert model.conditional
        assert model.sample(4, torch.tensor([0, 1, 2, 0])).mean.shape == (4, 4)
        model.check_labels(torch.tensor([0, 2]))
        with pytest.raises(ValueError, match=r"num_classes=3, but .* 0 to 3: use model.prior.num_classes=4"):
            model.check_labels(torch.tensor([0, 3]))
        with pytest.raises(ValueError, match="the labels run from -1 to 2: number the classes from 0"):
            model.check_labels(torch.tensor([-1, 2]))
    assert not model_with(StandardNormal((2,))).conditional
    with pytest.raises(ValueError, match="the prior LabelNormal needs class labels: pass context=labels"):
        model_with(LabelNormal((2,), num_classes=3))(randn(5, 4))
    with pytest.raises(ValueError, match="num_classes must be >= 1, got 0"):
        LabelNormal((2,), num_classes=0)


def test_compiled_pass_is_one_graph():
    x, y = randn(5, 4), torch.arange(5) % 3
    results = []
    for compiler in (lambda f: f, partial(torch.compile, backend="aot_eager", fullgraph=True)):
        model = model_with(made())
        torch.manual_seed(0)
        loss = compiler(lambda x, y, model=model: model.objective(model(x, y))["loss"])(x, y)
        results.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled, rtol=1e-9, atol=1e-9)
