"""FactorVAE's critic: the gradients of model and critic are separate, and the logit is the log density ratio."""

import math

import lightning.pytorch as pl
import pytest
import torch
from conftest import RandomImages
from ppca import generator
from torch import nn
from torch.distributions import Independent, Normal

from vaezoo.models import VAE, FactorVAE
from vaezoo.objectives import AdversarialTotalCorrelation
from vaezoo.objectives.adversarial import permute_dims
from vaezoo.trace import Latent, Trace

FLOAT = torch.float64
RHO = 0.9
EXACT = -math.log(1 - RHO**2) / 2  # 0.83037 nats
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def bits(*shape):
    return torch.rand(*shape, dtype=FLOAT, generator=generator(0)).round()


def make_model(gamma=10.0):
    torch.manual_seed(0)
    return FactorVAE((1, 4, 4), critic_lr=1e-4, latent_dim=3, gamma=gamma, critic_hidden=[16, 16]).double()


def correlated(num, seed=0):
    """Return samples of N(0, [[1, r], [r, 1]])."""
    a, b = torch.randn(2, num, dtype=FLOAT, generator=generator(seed))
    return torch.stack([a, RHO * a + math.sqrt(1 - RHO**2) * b], dim=1)


def trace_at(z):
    """Return a trace with samples z (n, D) of a posterior that equals the prior."""
    p = Independent(Normal(torch.zeros_like(z[0]), torch.ones_like(z[0])), 1)
    x = torch.zeros(len(z), 1, dtype=FLOAT)
    px = Independent(Normal(x[None], torch.ones_like(x[None])), 1)
    return Trace(x, px, (Latent(p.expand((len(z),)), p, z[None]),))


class ExactLogit(nn.Module):
    """The critic log p(z_1, z_2) - log p(z_1) - log p(z_2), which is quadratic in z."""

    def forward(self, z):
        a, b = z.unbind(1)
        quadratic = (a**2 - 2 * RHO * a * b + b**2) / (1 - RHO**2) - a**2 - b**2
        return -(math.log(1 - RHO**2) + quadratic) / 2


def gradients(value, parameters):
    return torch.autograd.grad(value, list(parameters), retain_graph=True, allow_unused=True)


def test_each_parameter_has_its_own_gradient():
    """The critic's loss has no gradient in the model's parameters, nor the model's loss in those of the critic."""
    model = make_model()
    trace = model(bits(6, 1, 4, 4), num_samples=2)
    terms = model.objective(trace)
    critic = list(model.objective.parameters())
    ours = [*model.encoder.parameters(), *model.decoder.parameters()]
    assert all(gradient is None for gradient in gradients(terms["critic_loss"], ours))
    assert all(gradient is None for gradient in gradients(terms["tc"], critic))
    for together, alone in zip(gradients(terms["loss"], critic), gradients(terms["critic_loss"], critic), strict=True):
        assert torch.equal(together, alone)
    vae_loss = 10 * terms["tc"] - trace.elbo.mean()
    torch.testing.assert_close(terms["loss"], vae_loss, rtol=1e-14, atol=0)
    for together, alone in zip(gradients(terms["loss"], ours), gradients(vae_loss, ours), strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-14)
    assert any(gradient.abs().max() > 0 for gradient in gradients(terms["tc"], model.encoder.parameters()))


def test_without_its_term_the_model_is_a_vae():
    """With gamma = 0 the weights after two epochs are those of a VAE, bit for bit, while the critic learns."""
    factor = make_model(gamma=0.0).float()
    plain = VAE((1, 4, 4), latent_dim=3)
    plain.load_state_dict(factor.state_dict(), strict=False)
    critic = [p.detach().clone() for p in factor.objective.parameters()]
    for model in (factor, plain):
        pl.Trainer(max_epochs=2, **QUIET).fit(model, RandomImages((1, 4, 4), binarize="dynamic"))
    weights = factor.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in plain.state_dict().items())
    assert all(not torch.equal(p, before) for p, before in zip(factor.objective.parameters(), critic, strict=True))


def test_one_optimizer_with_the_critics_own_settings():
    model = make_model()
    ours, critic = model.configure_optimizers().param_groups
    assert (ours["lr"], ours["betas"]) == (1e-3, (0.9, 0.999))
    assert (critic["lr"], critic["betas"]) == (1e-4, (0.5, 0.9))
    assert {id(p) for p in critic["params"]} == {id(p) for p in model.objective.critic.parameters()}
    assert len(ours["params"]) + len(critic["params"]) == len(list(model.parameters()))


def test_permutation():
    """Each dimension keeps its values, in another order than the other dimensions."""
    torch.manual_seed(0)
    z = correlated(20_000)
    permuted = permute_dims(z)
    assert torch.equal(permuted.sort(0).values, z.sort(0).values)
    assert torch.corrcoef(permuted.T)[0, 1].abs() < 0.03
    assert (permuted == z).all(1).sum() < 10


def test_optimal_logit_has_the_total_correlation_for_its_mean():
    torch.manual_seed(0)
    objective = AdversarialTotalCorrelation((2,), 10.0, [1000] * 6, 1e-4).double()
    objective.critic = ExactLogit()
    terms = objective(trace_at(correlated(200_000)))
    assert abs(terms["tc"] - EXACT) < 0.01
    assert terms["critic_loss"] < math.log(2)


def test_ignorant_critic():
    """With a logit of 0 the total correlation is 0 and the critic's loss log 2 nats."""
    objective = AdversarialTotalCorrelation((2,), gamma=10.0, lr=1e-4, hidden=[4]).double()
    for parameter in objective.parameters():
        nn.init.zeros_(parameter)
    terms = objective(trace_at(correlated(50)))
    assert terms["tc"] == 0
    torch.testing.assert_close(terms["critic_loss"], torch.tensor(math.log(2), dtype=FLOAT), rtol=1e-14, atol=0)


@pytest.fixture(scope="module")
def trained():
    """Return a critic that was trained on a correlated Gaussian."""
    torch.manual_seed(0)
    objective = AdversarialTotalCorrelation((2,), gamma=10.0, lr=1e-4, hidden=[64, 64]).double()
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 600)
        optimizer.zero_grad()
        objective(trace_at(correlated(512, seed=step)))["loss"].backward()
        optimizer.step()
    return objective


def test_trained_critic_finds_the_total_correlation(trained):
    tc = trained(trace_at(correlated(50_000, seed=10_000)))["tc"]
    assert abs(tc - EXACT) < 0.1  # 512 draws a step know little of the tails


def test_codes_that_follow_the_model_fool_the_critic(trained):
    """Gradient descent on the term lowers the estimate and raises the critic's loss for the same permutation."""
    z = correlated(2000, seed=1).requires_grad_()

    def terms(z):
        torch.manual_seed(0)
        return trained(trace_at(z))

    before = terms(z)
    (gradient,) = torch.autograd.grad(before["tc"], z)
    after = terms(z - 20 * gradient)
    assert after["tc"] < before["tc"] - 0.01
    assert after["critic_loss"] > before["critic_loss"] + 0.001
