"""Weights, momenta, schedules and constants, by hand, at values other than 0.5 and 1, which would hide an exchange."""

import itertools
import math

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from conftest import RandomImages
from ppca import PPCA, data_with_spectrum, rotation
from scipy.special import expit
from test_geco import steps as geco_steps
from torch.distributions import Independent, Normal, kl_divergence

from vaezoo.callbacks.anneal import Cyclical, LinearWarmup
from vaezoo.callbacks.ema import EMA
from vaezoo.callbacks.geco import GECO
from vaezoo.callbacks.monitor import Monitor
from vaezoo.distributions import NearestCode, UniformCodes
from vaezoo.inference import ais as annealed
from vaezoo.models import VAE, AnnealedVAE, FactorVAE
from vaezoo.models.ladder_vae import product_of_normals
from vaezoo.nets import Quantizer
from vaezoo.objectives import (
    ELBO,
    MMD,
    AdversarialTotalCorrelation,
    Capacity,
    CombinedImportanceWeighted,
    Commitment,
    CovariancePenalty,
    ImportanceWeighted,
    InfoMMD,
    PartiallyImportanceWeighted,
    SlicedWasserstein,
    TotalCorrelation,
)
from vaezoo.trace import Latent, Trace
from vaezoo.training.schedulers import cosine

FLOAT = torch.float64
QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
         "enable_model_summary": False}  # fmt: skip


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=torch.Generator().manual_seed(seed))


def normal(loc, scale):
    return Independent(Normal(loc, scale), 1)


@pytest.fixture
def trace():
    """Return a trace with 3 samples, 5 examples and 4 dimensions, so that all sizes and values differ."""
    loc, scale = randn(5, 4, seed=1), (0.3 * randn(5, 4, seed=2)).exp()
    z = loc + scale * randn(3, 5, 4, seed=3)
    p = normal(0.3 * randn(4, seed=4), (0.2 * randn(4, seed=5)).exp())
    x = randn(5, 2, seed=6)
    px = normal(z[..., :2] * 0.7, torch.full((3, 5, 2), 1.3, dtype=FLOAT))
    return Trace(x, px, (Latent(normal(loc, scale), p, z),))


def parts(trace):
    """Return the distortion, and the KL in closed form."""
    latent = trace.latent
    loc, scale = latent.q.base_dist.loc, latent.q.base_dist.scale
    m, s = latent.p.base_dist.loc, latent.p.base_dist.scale
    kl = ((s / scale).log() + (scale**2 + (loc - m) ** 2) / (2 * s**2) - 0.5).sum(1)
    log_px = Normal(0.7 * latent.z[..., :2], 1.3).log_prob(trace.x).sum(-1)
    return -log_px.mean(), kl.mean(), log_px


def value(objective, trace, seed=0):
    torch.manual_seed(seed)
    return {name: float(term) for name, term in objective.double()(trace).items()}


def test_every_objective_weighs_its_terms(trace):
    """The loss follows from the logged terms and closed forms; all weights differ, and each changes the loss."""
    distortion, rate, log_px = parts(trace)
    latent = trace.latent
    log_w = log_px + latent.p.log_prob(latent.z) - latent.q.log_prob(latent.z)  # (3, 5)
    w = log_w.exp()
    iwae = w.mean(0).log()
    q = latent.q.base_dist
    free = 0.4
    floored = kl_divergence(q, latent.p.base_dist).mean(0).clamp(min=free).sum()
    tc = value(TotalCorrelation(1.0, 6.0, 1.0, "mss"), trace)
    cov = torch.cov(q.loc.T, correction=0) + torch.diag(q.scale.square().mean(0))
    off = cov.square().sum() - cov.diagonal().square().sum()
    on = (cov.diagonal() - 1).square().sum()
    mmd = {kernel: value(InfoMMD(0.3, 5.0, kernel), trace)["mmd"] for kernel in ("rbf", "imq")}
    sw = value(SlicedWasserstein(3.0, 7), trace)["sw"]

    def charged(objective, nats, per="dim"):
        objective.set_free_bits(nats, per)
        return objective

    expected = [
        (ELBO(3.0), distortion + 3 * rate),
        (charged(ELBO(3.0), free), distortion + 3 * floored),
        (charged(ELBO(3.0), 50.0, "layer"), distortion + 150),
        (charged(ELBO(3.0), 0.98 * float(rate), "layer"), distortion + 3 * rate),  # the batch's mean, not each example
        (Capacity(25.0, 3.0, 10), distortion + 3 * (25 - rate)),
        (ImportanceWeighted(), -iwae.mean()),
        (ImportanceWeighted(num_groups=3), -log_w.mean()),
        (CombinedImportanceWeighted(0.3), -(0.3 * log_w.mean(0) + 0.7 * iwae).mean()),
        (PartiallyImportanceWeighted(num_groups=3), -iwae.mean()),
        (InfoMMD(0.3, 5.0, "rbf"), distortion + 0.7 * rate + 4.3 * mmd["rbf"]),
        (InfoMMD(0.3, 5.0, "imq"), distortion + 0.7 * rate + 4.3 * mmd["imq"]),
        (MMD(5.0, "imq"), distortion + 5 * mmd["imq"]),
        (SlicedWasserstein(3.0, 7), distortion + 3 * sw),
        (TotalCorrelation(0.2, 3.0, 0.7, "mss"), distortion + rate - 0.8 * tc["mi"] + 2 * tc["tc"] - 0.3 * tc["dwkl"]),
        (CovariancePenalty("II", 3.0, 0.2), distortion + rate + 3 * off + 0.2 * on),
    ]
    for objective, loss in expected:
        told = type(objective).__name__, objective.configured_weights
        assert value(objective, trace)["loss"] == pytest.approx(float(loss), rel=1e-6), told
    assert mmd["rbf"] != mmd["imq"]


def test_the_critics_term_has_its_weight(trace):
    """loss = distortion + KL + 3 tc, without the critic's loss, which is ln 2 if its logit is 0."""
    distortion, rate, _ = parts(trace)
    torch.manual_seed(0)
    objective = AdversarialTotalCorrelation((4,), lr=1e-4, gamma=3.0, hidden=(5,))
    found = value(objective, trace)
    with torch.no_grad():
        logits = objective.critic(trace.latent.z.reshape(15, 4))
        tc = logits.mean()
    assert logits.shape == (15, 1)
    assert found["tc"] == pytest.approx(float(tc))
    assert found["loss"] == pytest.approx(float(distortion + rate + 3 * tc))
    with torch.no_grad():
        objective.critic.layers[-1].weight.zero_()
        objective.critic.layers[-1].bias.fill_(0.5)  # D = 0.622
    found = value(objective, trace)
    assert found["critic_loss"] == pytest.approx(-0.5 * math.log(expit(0.5)) - 0.5 * math.log(1 - expit(0.5)))
    model = FactorVAE((1, 3, 2), gamma=10.0, latent_dim=2, critic_hidden=[4], critic_lr=3e-4)
    ours, theirs = model.parameter_groups()
    assert (theirs["lr"], theirs["betas"]) == (3e-4, (0.5, 0.9))
    assert "lr" not in ours


def test_commitment_sums_over_positions_and_dimensions():
    inputs, codebook = randn(3, 2, 4), randn(5, 4, seed=1)
    codes = torch.tensor([[0, 1], [4, 2], [3, 3]])
    q = NearestCode(inputs, codes, codebook[codes])
    z = codebook[codes][None]
    x = randn(3, 2, seed=2)
    px = normal(z.mean((2, 3))[..., None].expand(1, 3, 2), torch.ones(1, 3, 2, dtype=FLOAT))
    trace = Trace(x, px, (Latent(q, UniformCodes(codebook, 2), z),))
    distance = sum(float((inputs[i, j] - codebook[codes[i, j]]).square().sum()) for i in range(3) for j in range(2)) / 3
    found = value(Commitment(0.7), trace)
    assert found["code_distance"] == pytest.approx(distance)
    elbo = float(px.log_prob(x).mean()) - 2 * math.log(5)
    assert found["loss"] == pytest.approx(0.7 * distance - elbo, rel=1e-6)


def test_precisions_weigh_the_means():
    a, b = (
        Normal(torch.tensor(1.0, dtype=FLOAT), torch.tensor(0.5, dtype=FLOAT)),
        Normal(4.0, torch.tensor(2.0).double()),
    )
    found = product_of_normals(a, b)
    assert float(found.loc) == pytest.approx((4 * 1 + 0.25 * 4) / 4.25)  # precisions 4 and 1/4
    assert float(found.scale) == pytest.approx(1 / math.sqrt(4.25))


def test_geco_remembers_most():
    """momentum = 0.9 keeps nine tenths of the running mean and adds one tenth of the new excess."""
    betas = geco_steps(GECO(target=10.0, speed=0.1, momentum=0.9), VAE((1, 5, 5), latent_dim=20), [12.0, 16.0, 4.0])
    means = [2.0, 0.9 * 2 + 0.1 * 6]
    means.append(0.9 * means[1] - 0.1 * 6)
    assert betas == pytest.approx([math.exp(-0.1 * sum(means[: i + 1])) for i in range(3)], rel=1e-5)


def test_codes_keep_most_of_what_they_were():
    """decay = 0.8 applies to counts and sums; a code that is used too little is replaced by one of the vectors."""
    q = Quantizer(3, 2, decay=0.8, restart_below=0.5).double()
    q.codebook.copy_(torch.tensor([[0.0, 0.0], [10.0, 10.0], [50.0, 50.0]]))
    q.counts.copy_(torch.tensor([0.4, 0.4, 0.2]))
    q.sums.copy_(q.codebook * q.counts[:, None])
    v = torch.tensor([[1.0, 0.0], [3.0, 1.0], [2.0, -1.0], [9.0, 12.0], [1.0, 1.0]], dtype=FLOAT)
    q.update(v, q.nearest(v), decay=q.decay)
    counts = [0.8 * 0.4 + 0.2 * 4 / 5, 0.8 * 0.4 + 0.2 * 1 / 5, 0.8 * 0.2]  # the third is below 0.5 / 3
    sums = [0.2 * torch.tensor([7.0, 1.0]) / 5, 0.8 * 0.4 * 10 + 0.2 * torch.tensor([9.0, 12.0]) / 5]
    for c in (0, 1):
        torch.testing.assert_close(q.codebook[c], (sums[c] / counts[c]).double(), rtol=1e-6, atol=0)
        assert float(q.counts[c]) == pytest.approx(counts[c])
    assert counts[2] < 0.5 / 3
    assert float(q.counts[2]) == pytest.approx(1 / 3)
    assert any(torch.allclose(q.codebook[2], one) for one in v)
    fresh = Quantizer(3, 2, decay=0.8, restart_below=0.47).double()
    fresh.load_state_dict({"codebook": q.codebook, "counts": torch.tensor([0.4, 0.4, 0.2]).double(), "sums": q.sums})
    before = fresh.sums[2] / 0.2
    fresh.update(v, torch.tensor([0, 0, 0, 1, 0]), decay=0.8)
    torch.testing.assert_close(fresh.codebook[2], before)  # 0.16 is above 0.47 / 3: it stays where it was


class Path(pl.Callback):
    """Return the weights after each optimizer step."""

    def __init__(self):
        self.weights = []

    def on_microbatch_end(self, trainer, pl_module, part):
        self.weights.append(torch.cat([p.detach().flatten() for p in pl_module.parameters()]).clone())


def test_averaged_weights_keep_nine_tenths():
    model, path = VAE((1, 3, 2), latent_dim=2, encoder=None), Path()
    trainer = pl.Trainer(max_epochs=1, callbacks=[path, EMA(decay=0.9)], **QUIET)
    trainer.fit(model, RandomImages((1, 3, 2), batch_size=20))
    assert len(path.weights) == 5
    average = path.weights[0]
    for step in path.weights[1:]:
        average = 0.9 * average + 0.1 * step
    found = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(found, average, rtol=1e-5, atol=1e-7)
    assert (found - path.weights[-1]).abs().max() > 1e-4


def test_schedules_of_the_weights():
    """Cyclical annealing, warm-up and capacity have their exact values at each step."""
    cycle = Cyclical(period=10, ratio=0.2)
    assert [cycle.factor(t) for t in range(13)] == pytest.approx([0, 0.5, *[1.0] * 8, 0, 0.5, 1])
    rise = Cyclical(period=5, ratio=0.8)
    assert [rise.factor(t) for t in range(6)] == pytest.approx([0, 0.25, 0.5, 0.75, 1, 0])
    warm = LinearWarmup(steps=4, start=0.2)
    assert [warm.factor(t) for t in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    objective = AnnealedVAE((1, 3, 2), latent_dim=20, gamma=100.0, capacity=25.0, capacity_steps=8).objective
    for step, capacity in ((0, 0), (2, 6.25), (7, 21.875), (8, 25), (90, 25)):
        objective.apply_schedules(step)
        assert float(objective.capacity) == pytest.approx(capacity)
        assert float(objective.gamma) == objective.configured_weights["gamma"]  # no schedule


@pytest.mark.parametrize(("warmup", "final"), [(0, 0.0), (3, 0.2), (5, 0.3)])
def test_the_cosine_at_every_step(warmup, final):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = cosine(optimizer, 17, warmup_steps=warmup, final=final)
    for step in range(20):
        if step < warmup:
            expected = (step + 1) / warmup
        else:
            half = math.pi / 2 * min(step - warmup, 17 - warmup) / (17 - warmup)
            expected = final + (1 - final) * math.cos(half) ** 2
        assert optimizer.param_groups[0]["lr"] == pytest.approx(2 * expected, abs=1e-12), step
        optimizer.step()
        schedule.step()


def test_the_annealing_path_and_its_steps(monkeypatch):
    """beta_t = [s(4 (2t/T - 1)) - s(-4)] / [s(4) - s(-4)]; log step moves by 0.1 (acceptance of the pilots - 0.65)."""
    t = np.arange(8)
    expected = (expit(4 * (2 * t / 7 - 1)) - expit(-4)) / (expit(4) - expit(-4))
    torch.testing.assert_close(annealed.schedule(7), torch.from_numpy(expected), rtol=1e-12, atol=1e-15)
    spectrum = torch.tensor([2.0, 1.2, 0.9, 0.4], dtype=FLOAT)
    x, mean, axes = data_with_spectrum(spectrum, 12)
    model = PPCA.fit(spectrum, mean, axes, 2, rotation(2, 11)).vae((1, 2, 2))
    moves, move = [], annealed.hmc_transition

    def record(at, z, noise, step, num_leapfrog):
        result = move(at, z, noise, step, num_leapfrog)
        moves.append((step.clone(), result[2]))
        return result

    monkeypatch.setattr(annealed, "hmc_transition", record)
    found = annealed.annealed_importance_sampling(
        model, x[:3].reshape(3, 1, 2, 2), num_chains=6, num_steps=9, num_leapfrog=2
    )
    assert len(moves) == 8
    torch.testing.assert_close(moves[0][0], torch.full((3,), 0.1, dtype=FLOAT))
    for (step, accepted), (after, _) in itertools.pairwise(moves):
        assert accepted.shape == (6 + 4, 3)
        torch.testing.assert_close(after, step * (0.1 * (accepted[6:].mean(0) - 0.65)).exp())
    assert found.log_p.shape == (3,)


def test_rows_while_training_are_the_batchs_own():
    """The learning rate and weights of the step, the norm before clipping, images over the time between two rows."""
    rows = []

    class Logger(pl.loggers.logger.DummyLogger):
        def log_metrics(self, metrics, step=None):
            if "step/elbo" in metrics:
                rows.append((step, metrics))

    norms = []

    class Norm(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))

    model = VAE((1, 3, 2), latent_dim=2, objective=ELBO(3.0))
    monitor = Monitor()
    settings = QUIET | {"logger": Logger(), "log_every_n_steps": 2, "gradient_clip_val": 1e-3, "max_epochs": 1}
    pl.Trainer(callbacks=[monitor, Norm()], **settings).fit(model, RandomImages((1, 3, 2), batch_size=24))
    assert [step for step, _ in rows] == [1, 3]  # of 5 steps, counted from 0
    for step, row in rows:
        assert row["step/loss"] == pytest.approx(-row["step/log_px"] + 3 * row["step/kl"], rel=1e-5)
        assert row["step/elbo"] == pytest.approx(row["step/log_px"] - row["step/kl"], rel=1e-5)
        assert row["step/beta"] == 3
        assert row["step/learning_rate"] == 1e-3
        assert row["step/gradient_norm"] == pytest.approx(norms[step], rel=1e-5)
    assert monitor.examples == 100
    assert monitor.last_row[0] == 96
