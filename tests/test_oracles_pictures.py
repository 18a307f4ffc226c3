"""Tests of where pictures move in the latent space: by the center and scale of the axes, which N(0, I) would hide."""

import pytest
import torch
from scipy import stats
from test_contract import make

from vaezoo import pictures
from vaezoo.pictures import LatentAxes
from vaezoo.types import Batch

CENTRE, SPREAD = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.3])


@pytest.fixture
def model():
    return make("mog_vae", "model.num_components=3", "model.latent_dim=2", net="mlp", shape=(1, 3, 2)).eval()


@pytest.fixture
def batch():
    x = torch.rand(7, 1, 3, 2, generator=torch.Generator().manual_seed(0)).round()
    return Batch(x, torch.arange(7) % 3)


@pytest.fixture
def decoded(model, monkeypatch):
    """What is decoded for a picture: z and the context."""
    seen, decode = [], model.decode
    monkeypatch.setattr(model, "decode", lambda z, context=None: seen.append((z, context)) or decode(z, context))
    return seen


def test_axes_of_codes(model, batch):
    """Without a KL for each dimension: variance, mean and standard deviation of the codes."""
    with torch.no_grad():
        found, codes = pictures.measure_latent_axes(model, batch), model.encode(batch.x).numpy()
    assert (found.usage_name, found.source) == ("variance", "codes")
    for value, expected in (
        (found.usage, codes.var(0, ddof=1)), (found.center, codes.mean(0)), (found.scale, codes.std(0, ddof=1)),
    ):  # fmt: skip
        torch.testing.assert_close(value, torch.from_numpy(expected))


def test_axes_of_the_prior(batch):
    model = make("mlp_vae", net="mlp", shape=(1, 3, 2)).eval()
    model.prior.loc.copy_(torch.tensor([0.5, -1.0, 2.0]))
    model.prior.scale.copy_(torch.tensor([2.0, 0.3, 1.0]))
    with torch.no_grad():
        found, q = pictures.measure_latent_axes(model, batch), model.encoder(batch.x).base_dist
    m, s = model.prior.loc, model.prior.scale
    kl = (s / q.scale).log() + (q.scale**2 + (q.loc - m) ** 2) / (2 * s**2) - 0.5
    assert (found.usage_name, found.source) == ("KL (nats)", "prior")
    torch.testing.assert_close(found.usage, kl.mean(0))
    assert torch.equal(found.center, m)
    assert torch.equal(found.scale, s)


def test_traversals_move_by_the_scale(model, batch, decoded):
    """The most used dimension first, from 3 scales below its center to 3 above, the others at the code of the image."""
    axes = LatentAxes(torch.tensor([0.1, 0.9]), "variance", CENTRE, SPREAD, "codes")
    with torch.no_grad():
        pictures.traversals(model, batch, axes, "now")
        code = model.encode(batch.x[:1])[0]
    ((z, context),) = decoded
    z = z.reshape(2, 11, 2)
    steps = torch.linspace(-3, 3, 11)
    torch.testing.assert_close(z[0, :, 1], -1.0 + 0.3 * steps)
    torch.testing.assert_close(z[1, :, 0], 0.5 + 2.0 * steps)
    torch.testing.assert_close(z[0, :, 0], code[0].expand(11))
    torch.testing.assert_close(z[1, :, 1], code[1].expand(11))
    assert context.tolist() == [0] * 22


def test_manifold_is_at_quantiles(model, batch, decoded):
    """The first row is the largest z1; quantiles 1/8, 3/8, 5/8, 7/8 of each axis."""
    axes = LatentAxes(torch.ones(2), "variance", CENTRE, SPREAD, "codes")
    with torch.no_grad():
        pictures.manifold(model, batch, axes, "now", side=4)
    ((z, _),) = decoded
    steps = torch.from_numpy(stats.norm.ppf([0.125, 0.375, 0.625, 0.875])).float()
    z = z.reshape(4, 4, 2)
    for i in range(4):
        torch.testing.assert_close(z[i, :, 0], 0.5 + 2.0 * steps)
        torch.testing.assert_close(z[:, i, 1], -1.0 + 0.3 * steps.flip(0))
