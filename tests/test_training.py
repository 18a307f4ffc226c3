"""What the base class does for every model: data to start from, two groups of parameters, schedules, refusals."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import RandomImages, config
from lightning.pytorch import Callback, Trainer

from vaezoo.build import ConfigError, build
from vaezoo.callbacks.anneal import LinearWarmup
from vaezoo.families import OptimalScaleNormal
from vaezoo.flows import PlanarPosterior
from vaezoo.models import (
    CVAE,
    IWAE,
    PIWAE,
    VAE,
    VQVAE,
    AnnealedVAE,
    BetaTCVAE,
    BetaVAE,
    FactorVAE,
    SigmaVAE,
    VampVAE,
)
from vaezoo.objectives import ImportanceWeighted, TotalCorrelation
from vaezoo.priors import VampPrior
from vaezoo.spherical import HypersphericalUniform

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
         "num_sanity_val_steps": 0}  # fmt: skip


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
    model = SigmaVAE((1, 5, 5))
    model._trainer = SimpleNamespace(world_size=2)
    with pytest.raises(ValueError, match="SigmaVAE's loss couples the examples"):
        model.on_fit_start()


def test_what_does_not_go_together_is_refused_before_the_first_step():
    """By the base class, with what it is and what to do; no step is taken."""

    class Planar(VAE):
        def __init__(self, objective=None, **kwargs):
            super().__init__((1, 5, 5), posterior=PlanarPosterior, objective=objective, **kwargs)

        def on_train_batch_start(self, *_):
            raise AssertionError("a step was begun")

    for model, words in [
        (Planar(TotalCorrelation()), "needs a posterior that factorises"),
        (Planar(ImportanceWeighted("dreg"), num_samples=2), "gradient=reparam"),
        (Planar(free_bits=0.1), "use model.free_bits_per=layer"),
        (IWAE((1, 5, 5), gradient="dreg", likelihood=OptimalScaleNormal()), "OptimalScaleNormal couples them"),
        (PIWAE((1, 5, 5), likelihood=OptimalScaleNormal()), "OptimalScaleNormal couples them"),
    ]:
        with pytest.raises(ValueError, match=words):
            fit(model, max_steps=1)
    fit(IWAE((1, 5, 5), likelihood=OptimalScaleNormal()), max_steps=1)  # autograd's own gradient is right
    with pytest.raises(ValueError, match="HypersphericalUniform lies in sphere space and the posterior Normal in real"):
        VAE((1, 5, 5), prior=HypersphericalUniform)
    with pytest.raises(ValueError, match="pseudo-inputs of a VampPrior have no label"):
        CVAE((1, 5, 5), prior=VampPrior)


def test_a_second_fit_goes_on_from_the_first():
    """What starts from data starts once: a further fit of no steps changes nothing."""
    for make in (partial(VampVAE, num_components=5), partial(VQVAE, num_codes=8)):
        model = make((1, 5, 5))
        fit(model, max_steps=3)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        fit(model, max_steps=0)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_log_marginal_does_not_train():
    """It is that of evaluation whatever mode the model is in, and leaves mode and buffers."""
    model = SigmaVAE((1, 5, 5))
    x = torch.rand(8, 1, 5, 5)
    model.objective(model(x))["loss"].backward()  # a step's running average
    before = {name: value.clone() for name, value in model.state_dict().items()}
    results = []
    for training in (True, False):
        torch.manual_seed(0)
        results.append(model.train(training).log_marginal(x, num_samples=20))
        assert model.training == training
    assert torch.equal(*results)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_averaged_weights_keep_the_schedules():
    """With weight averaging, a warm-up's weight is validated at its own value and whole at the end."""
    seen = []

    class Record(Callback):
        def on_validation_batch_start(self, trainer, pl_module, *_):
            seen.append(float(pl_module.objective.beta))

    node = config("callbacks.ema", "callbacks/ema=default")
    model = BetaVAE((1, 5, 5), beta=2.0)
    fit(model, max_epochs=3, callbacks=[build(node, "callbacks.ema"), LinearWarmup(steps=8), Record()])
    assert seen == [2.0 * 3 / 8, 2.0 * 7 / 8, 2.0]  # 4 steps an epoch


def test_schedules_of_nothing_are_refused():
    with pytest.raises(ValueError, match="free_bits is configured as 0"):
        fit(VAE((1, 5, 5)), max_steps=1, callbacks=[LinearWarmup("free_bits")])
    with pytest.raises(ValueError, match=r"start in \[0, 1\], got 10 and 5"):
        LinearWarmup(steps=10, start=5)


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
    fit(model, max_epochs=1, callbacks=[LinearWarmup("capacity", steps=32)])
    assert float(model.objective.capacity) == 8.0 * 3 / 32


@pytest.mark.parametrize(
    "overrides", [["model=vamp_vae", "model/prior=flow"], ["model=planar_vae", "model/posterior=iaf"]]
)
def test_a_part_that_the_paper_brings_itself(overrides):
    part = overrides[1].partition("/")[2].partition("=")[0]
    said = rf"^model.{part}: (VampVAE|PlanarVAE) sets this argument itself, remove it from the config$"
    with pytest.raises(ConfigError, match=said):
        build(config("model", *overrides), "model")


def test_data_of_another_shape():
    with pytest.raises(ValueError, match=r"data_shape is \(1, 6, 6\), but RandomImages's images are \(1, 5, 5\)"):
        fit(VAE((1, 6, 6)), max_steps=1)
