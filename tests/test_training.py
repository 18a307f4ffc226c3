"""What the base class does for every model: data to start from, two groups of parameters, schedules, refusals."""

from types import SimpleNamespace

import pytest
import torch
from conftest import RandomImages, config
from lightning.pytorch import Trainer

from vaezoo.build import ConfigError, build
from vaezoo.models import AnnealedVAE, BetaTCVAE, FactorVAE, VampVAE

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def fit(model, **settings):
    trainer = Trainer(accelerator="cpu", **QUIET, **settings)
    trainer.fit(model, RandomImages((1, 5, 5)))
    return trainer


def test_coupled_losses_refuse_several_processes():
    model = BetaTCVAE((1, 5, 5))
    model._trainer = SimpleNamespace(world_size=2)
    with pytest.raises(ValueError, match="BetaTCVAE's loss couples the examples of a batch, and each of 2 processes"):
        model.on_fit_start()
    model._trainer = SimpleNamespace(world_size=1)
    model.on_fit_start()


def test_the_objective_knows_the_training_sets_size():
    model = BetaTCVAE((1, 5, 5))
    assert model.objective.num_data is None
    fit(model, max_steps=1)
    assert model.objective.num_data == 100


def test_clipping_keeps_the_critic_apart():
    """A critic with an enormous gradient does not take from the model's share, nor the other way round."""
    model = FactorVAE((1, 5, 5), critic_hidden=[8])
    optimizer = model.configure_optimizers()
    model._trainer = SimpleNamespace(precision_plugin=None)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for p in model.objective.parameters():
        p.grad = torch.full_like(p, 1e6)
    model.configure_gradient_clipping(optimizer, 1.0)
    for group in optimizer.param_groups:
        assert torch.nn.utils.get_total_norm([p.grad for p in group["params"]]) == pytest.approx(1.0, rel=1e-4)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_pseudo_inputs_start_at_training_images():
    """Before the first step each pseudo-input rounds to a training example; the same ones for the same seed."""
    starts = []

    class Stop(VampVAE):
        def on_train_start(self):
            starts.append(self.prior.pseudo_inputs.detach().clone())

    for _ in range(2):
        torch.manual_seed(0)
        fit(Stop((1, 5, 5), num_components=7), max_steps=1)
    assert torch.equal(*starts)
    data = RandomImages((1, 5, 5))
    data.setup()
    assert torch.equal(starts[0].round(), data.examples(1000).x[:7])
    assert starts[0].unique().numel() > 100  # not the bits themselves: within (0, 1), where there is a gradient


def test_a_papers_own_schedule():
    """Capacity follows the optimizer step, whole at test; a callback's schedule replaces it."""
    model = AnnealedVAE((1, 5, 5), capacity=8.0, capacity_steps=16)
    trainer = fit(model, max_epochs=1)
    assert trainer.global_step == 4
    assert float(model.objective.capacity) == 8.0 * 3 / 16
    trainer.test(model, RandomImages((1, 5, 5)), verbose=False)
    assert float(model.objective.capacity) == 8.0


@pytest.mark.parametrize(
    "overrides", [["model=vamp_vae", "model/prior=flow"], ["model=planar_vae", "model/posterior=iaf"]]
)
def test_a_part_that_the_paper_brings_itself(overrides):
    part = overrides[1].partition("/")[2].partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^model.{part}: (VampVAE|PlanarVAE) brings its own, leave it out$"):
        build(config("model", *overrides), "model")
