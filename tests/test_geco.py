"""GECO: Rezende & Viola 2018."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import RandomImages, config
from lightning.pytorch import Callback, Trainer

from vaezoo.callbacks.geco import GECO
from vaezoo.errors import ConfigError
from vaezoo.instantiate import build
from vaezoo.models import VAE


def fit(model, *callbacks, epochs=1, **settings):
    trainer = Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                      enable_model_summary=False, accelerator="cpu", callbacks=list(callbacks), **settings)  # fmt: skip
    trainer.fit(model, RandomImages((1, 5, 5), num=340, batch_size=16))
    return trainer


def steps(callback, model, distortions):
    """Return beta after each step with these distortions."""
    trainer = SimpleNamespace(strategy=SimpleNamespace(reduce=lambda value: value))  # one process
    callback.on_fit_start(trainer, model)
    betas = []
    for distortion in distortions:
        model.last_metrics = {"log_px": torch.tensor(-distortion)}
        callback.on_microbatch_end(trainer, model, None)
        betas.append(float(model.objective.beta))
    return betas


def test_geco_equals_its_formula():
    """log beta falls by speed * running mean of (distortion - target)."""
    betas = steps(GECO(target=10.0, speed=0.1, momentum=0.5), VAE((1, 5, 5), latent_dim=20), [12.0, 16.0, 4.0])
    means = [2.0, 4.0, -1.0]  # 2; (2 + 6) / 2; (4 - 6) / 2
    expected = [math.exp(-0.1 * sum(means[: i + 1])) for i in range(3)]
    assert betas == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_skipped_batch_does_not_change_the_running_mean(bad):
    """With on_nan=skip, the running mean stays the same, and log beta falls by it once more."""
    betas = steps(GECO(target=10.0, speed=0.1, momentum=0.5), VAE((1, 5, 5), latent_dim=20), [bad, 12.0, bad, 16.0])
    means = [0.0, 1.0, 1.0, 3.5]  # nothing; (0 + 2) / 2; as before; (1 + 6) / 2
    expected = [math.exp(-0.1 * sum(means[: i + 1])) for i in range(4)]
    assert betas == pytest.approx(expected, rel=1e-5)


def test_beta_is_bounded():
    assert steps(GECO(target=0.5, speed=1e9), VAE((1, 5, 5), latent_dim=20), [1.0])[0] == pytest.approx(1e-4)
    assert steps(GECO(target=2.0, speed=1e9), VAE((1, 5, 5), latent_dim=20), [1.0])[0] == pytest.approx(1e4)


def test_the_distortion_reaches_the_target():
    """The target is well above the distortion with beta = 1; the last steps reach it."""
    distortions = {}
    for target in (None, 13.0):
        torch.manual_seed(0)
        model = VAE((1, 5, 5), latent_dim=4, optimizer=partial(torch.optim.Adam, lr=3e-3))
        seen = []

        class Record(Callback):
            def on_train_batch_end(self, trainer, pl_module, *rest, seen=seen):
                seen.append(-float(pl_module.last_metrics["log_px"]))

        geco = [GECO(target=target, speed=1e-2, momentum=0.9)] if target else []
        fit(model, Record(), *geco, epochs=40, limit_val_batches=0)
        distortions[target] = sum(seen[-100:]) / 100
    assert distortions[13.0] == pytest.approx(13.0, abs=0.4)
    assert distortions[None] < 12.0


def test_a_restored_state_continues():
    """A callback that is restored from its state gives the same values."""
    whole = steps(GECO(target=10.0, speed=0.1), VAE((1, 5, 5), latent_dim=20), [12.0, 16.0, 4.0, 7.0])
    first, second = GECO(target=10.0, speed=0.1), GECO(target=10.0, speed=0.1)
    start = steps(first, VAE((1, 5, 5), latent_dim=20), [12.0, 16.0])
    second.load_state_dict(first.state_dict())
    assert start + steps(second, VAE((1, 5, 5), latent_dim=20), [4.0, 7.0]) == whole


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="speed > 0 and momentum in"):
        GECO(target=1.0, speed=0.0)
    with pytest.raises(ValueError, match="target must be finite"):
        GECO(target=math.nan)
    for name in ("vq_vae", "ciwae", "beta_tc_vae"):  # beta has another meaning in the last two
        model = build(config("model", f"model={name}", "data.shape=[1,5,5]"), "model")
        with pytest.raises(ValueError, match="has no weight on the KL term to set"):
            fit(model, GECO(target=1.0))
    with pytest.raises(ConfigError, match=r"^callbacks\.anneal\.target is missing: GECO needs it$"):
        build(config("callbacks.anneal", "callbacks/anneal=geco"), "callbacks.anneal")
    with pytest.raises(ValueError, match="distortion of bits and levels is above 0"):
        fit(VAE((1, 5, 5), latent_dim=20), GECO(target=-5.0))
