"""The missing-data IWAE: complete data, rows without any entry, what it wraps. test_missing.py has PPCA with holes."""

import math
from functools import partial

import pytest
import torch
from torch.distributions import Normal as TorchNormal

from vaezoo.families import DimensionScaleNormal, Joint, Masked, OptimalScaleNormal, Poisson, SharedScaleNormal
from vaezoo.models import IWAE, MissingIWAE
from vaezoo.nets import MLP, MaskedInput, TokenInput, accept_missing

FLOAT = torch.float64
SETTINGS = {"latent_dim": 2, "num_samples": 5, "decoder": partial(MLP, hidden=[4])}
small = partial(MLP, hidden=[6])


def loss_and_slopes(cls, encoder, x, likelihood):
    torch.manual_seed(0)
    model = cls((4,), encoder=encoder, likelihood=likelihood, **SETTINGS)
    torch.manual_seed(1)
    loss = model.objective(model(x))["loss"]
    return [loss, *torch.autograd.grad(loss, list(model.parameters()))]


def test_complete_data_are_those_of_the_iwae():
    """Loss and gradients are those of an IWAE with the same network, bit for bit; with a hole they are others."""
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    ours = loss_and_slopes(MissingIWAE, small, x, SharedScaleNormal())
    theirs = loss_and_slopes(IWAE, partial(MaskedInput, net=small), x, SharedScaleNormal())
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    x[0, 0] = math.nan
    holed = loss_and_slopes(MissingIWAE, small, x, SharedScaleNormal())
    assert holed[0].isfinite()
    assert not torch.equal(holed[0], theirs[0])


def test_rows_without_an_entry():
    """log p(x | z) is 0, so the ELBO is -KL, and the bound of K samples is at most log p = 0."""
    torch.manual_seed(0)
    model = MissingIWAE((4,), encoder=small, likelihood=DimensionScaleNormal([4]), **SETTINGS).double()
    for p in model.encoder.parameters():
        torch.nn.init.constant_(p, 0.1)  # with biases of 0, q would be the prior
    trace = model(torch.full((3, 4), math.nan, dtype=FLOAT), num_samples=200)
    assert torch.equal(trace.log_px, torch.zeros(200, 3, dtype=FLOAT))
    assert torch.equal(trace.elbo, -trace.kl.sum(1))
    assert trace.elbo[0] < -0.01
    assert abs(model.log_marginal(torch.full((1, 4), math.nan), num_samples=20_000)) < 0.05


def test_the_bound_counts_observed_entries_only():
    """If the decoder ignores z, the bound of many samples is the sum of log N(x_d; 0, scale) over observed entries."""
    torch.manual_seed(0)
    model = MissingIWAE((4,), encoder=small, likelihood=SharedScaleNormal(1.0), **SETTINGS).double()
    for p in (*model.decoder.parameters(), *model.encoder.parameters()):
        if p.dim():
            torch.nn.init.zeros_(p)
    with torch.no_grad():  # q = N(0, exp(soft floor of 0)^2) is nearly the prior
        scale = float(model.likelihood.family.scale)
    x = torch.tensor([[0.5, math.nan, -1.0, math.nan]], dtype=FLOAT)
    found = model.log_marginal(x, num_samples=20_000)
    expected = TorchNormal(0.0, scale).log_prob(torch.tensor([0.5, -1.0])).sum()
    assert float(found) == pytest.approx(float(expected), abs=1e-3)


def test_what_is_wrapped():
    """Parts that leave missing entries out themselves stay as they are."""
    masked, joint = Masked(SharedScaleNormal()), Joint({"a": [4]}, {"a": Poisson()})
    for family in (masked, joint):
        assert MissingIWAE((4,), likelihood=family, **SETTINGS).likelihood is family
    for net in (MaskedInput, partial(MaskedInput, net=MLP), partial(TokenInput, net=MLP, num_tokens=3)):
        assert accept_missing(net) is net
    assert isinstance(MissingIWAE((4,), **SETTINGS).encoder.net, MaskedInput)
    with pytest.raises(ValueError, match="Masked cannot leave missing entries out of OptimalScaleNormal"):
        MissingIWAE((4,), likelihood=OptimalScaleNormal(), **SETTINGS)
