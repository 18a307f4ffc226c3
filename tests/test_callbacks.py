"""Schedules, weight averaging, early stopping and the metrics of steps."""

import math
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from conftest import RandomImages
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger

from vaezoo.callbacks.anneal import Cyclical, LinearWarmup
from vaezoo.callbacks.monitor import Monitor
from vaezoo.callbacks.progress import describe_plan, describe_training
from vaezoo.models import VAE, BetaVAE
from vaezoo.training.schedulers import cosine

QUIET = {
    "accelerator": "cpu",
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def fit(model, callbacks=(), logger=False, data=None, **settings):
    trainer = pl.Trainer(**QUIET, **{"max_epochs": 2, **settings}, callbacks=list(callbacks), logger=logger)
    trainer.fit(model, data or RandomImages((1, 5, 4)))
    return trainer


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Seen(pl.Callback):
    """Records beta at each optimizer step."""

    def __init__(self):
        self.beta = {}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.beta[trainer.global_step] = float(pl_module.objective.beta)


def test_linear_warmup_counts_optimizer_steps():
    """beta(t) = 4 (s + (1 - s) min(1, t / T)), where t counts optimizer steps, not batches."""
    for accumulate in (1, 2):
        seen = Seen()
        callbacks = [LinearWarmup(steps=5, start=0.2), seen]
        fit(BetaVAE((1, 5, 4), latent_dim=20, beta=4.0), callbacks, accumulate_grad_batches=accumulate, max_epochs=4)
        assert len(seen.beta) == 16 // accumulate
        for step, beta in seen.beta.items():
            assert beta == pytest.approx(4 * (0.2 + 0.8 * min(1, step / 5)), rel=1e-6)


def test_cyclical_annealing():
    """Fu et al. 2019: the weight rises in the first half of a period and then stays until the next one."""
    schedule = Cyclical(period=10, ratio=0.5)
    assert [round(schedule.factor(t), 3) for t in range(12)] == [0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 0, 0.2]


def test_any_weight_can_be_scheduled():
    model = VAE((1, 5, 4), latent_dim=20, free_bits=0.5)
    fit(model, [LinearWarmup("free_bits", steps=100)])
    assert float(model.objective.free_bits) == pytest.approx(0.5 * 7 / 100)
    with pytest.raises(ValueError, match=r"anneal\.weight=gamma: ELBO has no such weight, choose from beta, free_bits"):
        fit(model, [LinearWarmup("gamma")])


def test_cosine():
    """Rises during the warm-up and falls to the final fraction at the last step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = cosine(optimizer, 20, warmup_steps=4, final=0.1)
    rates = []
    for _ in range(21):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates[12] == pytest.approx(2 * (0.1 + 0.9 * 0.5))
    assert rates[20] == pytest.approx(0.2)


def test_cosine_reaches_zero_in_training():
    model = VAE((1, 5, 4), latent_dim=20, scheduler=cosine)
    trainer = fit(model)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="needs an end"):
        fit(VAE((1, 5, 4), latent_dim=20, scheduler=cosine), max_epochs=-1, max_time={"seconds": 1})


def test_averaged_weights_are_validated():
    """With Lightning's callback, the weights after the training are the average over the steps."""
    path, decay = [], 0.5

    class Path(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            path.append(weights(pl_module).clone())

    model = VAE((1, 5, 4), latent_dim=20)
    fit(model, [Path(), EMAWeightAveraging(decay=decay)])
    average = path[0]
    for step in path[1:]:
        average = decay * average + (1 - decay) * step
    assert torch.allclose(weights(model), average, atol=1e-6)


def test_early_stopping_on_val_elbo():
    model = VAE((1, 5, 4), latent_dim=20, optimizer=lambda p: torch.optim.SGD(p, 0.0))
    trainer = fit(model, [EarlyStopping("val/elbo", mode="max", patience=2)], max_epochs=50)
    assert trainer.current_epoch == 3


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_precision_and_clipping(precision):
    """A model trains in bf16 with clipping, and sums are in float32."""
    model = VAE((1, 5, 4), latent_dim=20)
    trainer = fit(model, precision=precision, gradient_clip_val=0.1, max_epochs=3)
    assert math.isfinite(float(trainer.callback_metrics["val/elbo"]))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision != "32-true"):
        trace = model(torch.ones(3, 1, 5, 4))
    assert trace.log_px.dtype == trace.kl.dtype == torch.float32


def test_monitor_rows(tmp_path):
    """Every n steps, a row with the metrics of the batch and the norm of its gradient before clipping."""
    norms = []

    class Norm(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            norms.append(torch.cat([p.grad.flatten() for p in pl_module.parameters()]).norm())

    monitor = Monitor()
    logger = CSVLogger(tmp_path, name="", version="")
    fit(
        BetaVAE((1, 5, 4), latent_dim=20, beta=3.0),
        [Norm(), monitor],
        logger,
        log_every_n_steps=2,
        gradient_clip_val=1e-3,
    )
    logger.save()
    import csv

    rows = [row for row in csv.DictReader((tmp_path / "metrics.csv").open()) if row["step/elbo"]]
    assert [int(row["step"]) for row in rows] == [1, 3, 5, 7]
    for row, norm in zip(rows, norms[1::2], strict=True):
        assert float(row["step/gradient_norm"]) == pytest.approx(float(norm), rel=1e-5)
        assert float(row["step/beta"]) == 3
        assert float(row["step/learning_rate"]) == 1e-3
        loss = 3 * float(row["step/kl"]) - float(row["step/log_px"])
        assert float(row["step/loss"]) == pytest.approx(loss, rel=1e-5)
        assert float(row["step/examples_per_second"]) > 0
    assert monitor.examples == 200


def test_epoch_means_are_exact():
    """val/elbo is the mean over examples for any batch size: a smaller last batch counts less."""
    model = VAE((1, 5, 4), latent_dim=20, optimizer=lambda p: torch.optim.SGD(p, 0.0))
    model.seed_noise = lambda *_: torch.manual_seed(0)
    data = RandomImages((1, 5, 4))
    data.eval_batch_size = 7  # 20 = 7 + 7 + 6
    fit(model, data=data, max_epochs=1)
    total = 0.0
    for batch in data.val_dataloader():
        torch.manual_seed(0)
        total += float(model(batch.x).elbo.detach().double().sum())
    assert model.results["val"]["elbo"] == pytest.approx(total / 20, rel=1e-6)


def test_same_seed_same_weights():
    """The seed determines the weights to the bit; the state of torch's generator does not matter."""

    def run(seed, noise=0):
        pl.seed_everything(seed, verbose=False)
        model = VAE((1, 5, 4), latent_dim=20, seed=seed)
        torch.rand(noise)  # draws before training do not move it
        fit(model, data=RandomImages((1, 5, 4), seed=seed))
        return weights(model)

    assert torch.equal(run(1), run(1, noise=17))
    assert not torch.equal(run(1), run(2))


def test_the_length_of_a_training_as_text():
    assert describe_training(200, 0.0348) == "200 steps (0.035 epochs)"
    assert describe_training(1, 1) == "1 step (1 epoch)"
    assert describe_training(2750, 12.5) == "2,750 steps (12.50 epochs)"
    limits = {(50, -1): "50 epochs", (1, 200): "1 epoch or 200 steps", (-1, 200): "200 steps", (None, -1): "no end"}
    for (epochs, steps), text in limits.items():
        assert describe_plan(SimpleNamespace(max_epochs=epochs, max_steps=steps)) == text
