"""What the base class does for every model: initialization, parameter groups, schedules, checks."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import RandomImages, config
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from vaezoo.callbacks.anneal import LinearWarmup
from vaezoo.callbacks.checkpoints import Best
from vaezoo.errors import ConfigError
from vaezoo.families import (
    ContinuousBernoulli,
    DiscretizedLogistic,
    FixedScaleNormal,
    OptimalScaleNormal,
    PlanarPosterior,
)
from vaezoo.instantiate import build
from vaezoo.models import CVAE, IWAE, PIWAE, VAE, VQVAE, AnnealedVAE, BetaTCVAE, BetaVAE, FactorVAE, SigmaVAE, VampVAE
from vaezoo.objectives import ImportanceWeighted, TotalCorrelation
from vaezoo.priors import HypersphericalUniform, VampPrior
from vaezoo.types import Batch

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
         "num_sanity_val_steps": 0}  # fmt: skip


def fit(model, **settings):
    trainer = Trainer(accelerator="cpu", **QUIET, **settings)
    binarize = "dynamic" if "binary" in model.likelihood.supported_data else "none"
    trainer.fit(model, RandomImages((1, 5, 5), binarize=binarize))
    return trainer


def test_coupled_losses_refuse_several_processes():
    model = BetaTCVAE((1, 5, 5), latent_dim=20, alpha=1.0, beta=6.0, gamma=1.0, estimator="mss")
    model._trainer = SimpleNamespace(world_size=2)
    with pytest.raises(ValueError, match="BetaTCVAE's loss couples the examples of a batch, and each of 2 processes"):
        model.on_fit_start()
    model._trainer = SimpleNamespace(world_size=1)
    model.on_fit_start()
    model = SigmaVAE((1, 5, 5), latent_dim=20, momentum=0.1, min_scale=1e-3)
    model._trainer = SimpleNamespace(world_size=2)
    with pytest.raises(ValueError, match="SigmaVAE's loss couples the examples"):
        model.on_fit_start()


@pytest.mark.parametrize("estimator", ["mss", "mws"])
def test_a_training_set_that_is_smaller_than_a_batch(estimator):
    """The total correlation of one batch of all examples is that of ``batch_size`` = N, to the bit."""
    weights = []
    for batch_size in (100, 500):
        torch.manual_seed(0)
        model = BetaTCVAE((1, 5, 5), latent_dim=2, alpha=1.0, beta=6.0, gamma=1.0, estimator=estimator, seed=0)
        data = RandomImages((1, 5, 5), binarize="dynamic", batch_size=batch_size)
        trainer = Trainer(accelerator="cpu", **QUIET, max_epochs=2)
        trainer.fit(model, data)
        assert (model.objective.num_train, trainer.num_training_batches) == (100, 1)
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert weights[0].isfinite().all()
    assert torch.equal(*weights)


def test_parts_that_do_not_fit_are_refused_before_the_first_step():
    """The message says what to do, and no step is made."""

    class Planar(VAE):
        def __init__(self, objective=None, **kwargs):
            super().__init__((1, 5, 5), latent_dim=20, posterior=PlanarPosterior, objective=objective, **kwargs)

        def on_train_batch_start(self, *_):
            raise AssertionError("a step was begun")

    for model, words in [
        (Planar(TotalCorrelation(1.0, 6.0, 1.0, "mss")), "needs a posterior that factorizes"),
        (Planar(ImportanceWeighted("dreg"), num_samples=2), "gradient=reparam"),
        (Planar(free_bits=0.1), "use model.free_bits_per=layer"),
        (
            IWAE((1, 5, 5), latent_dim=20, num_samples=5, gradient="dreg", likelihood=OptimalScaleNormal()),
            "OptimalScaleNormal couples them",
        ),
        (
            PIWAE((1, 5, 5), latent_dim=20, num_samples=4, num_groups=4, likelihood=OptimalScaleNormal()),
            "OptimalScaleNormal couples them",
        ),
    ]:
        with pytest.raises(ValueError, match=words):
            fit(model, max_steps=1)
    fit(
        IWAE((1, 5, 5), latent_dim=20, num_samples=5, likelihood=OptimalScaleNormal()), max_steps=1
    )  # autograd's own gradient is right
    with pytest.raises(ValueError, match="HypersphericalUniform is in sphere space, but the posterior Normal in real"):
        VAE((1, 5, 5), latent_dim=20, prior=HypersphericalUniform)
    with pytest.raises(ValueError, match="pseudo-inputs of a VampPrior have no label"):
        CVAE((1, 5, 5), latent_dim=20, num_classes=10, prior=VampPrior)


def test_a_second_fit_continues_the_first():
    """Data-dependent initialization happens once: a further fit of no steps changes nothing."""
    vq = partial(VQVAE, num_latents=16, num_codes=8, commitment=0.25, decay=0.99, restart_below=0.01)
    for make in (partial(VampVAE, num_components=5), vq):
        model = make((1, 5, 5), latent_dim=16)
        fit(model, max_steps=3)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        fit(model, max_steps=0)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_log_marginal_changes_nothing():
    """It equals that in evaluation mode, and does not change mode or buffers."""
    model = SigmaVAE((1, 5, 5), latent_dim=20, momentum=0.1, min_scale=1e-3)
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


def test_weight_averaging_leaves_scheduled_weights_alone():
    """With weight averaging, validation uses a warm-up's present weight, and the test uses the full weight."""
    seen = []

    class Record(Callback):
        def on_validation_batch_start(self, trainer, pl_module, *_):
            seen.append(float(pl_module.objective.beta))

    node = config("callbacks.ema", "callbacks/ema=default")
    model = BetaVAE((1, 5, 5), latent_dim=20, beta=2.0)
    fit(model, max_epochs=3, callbacks=[build(node, "callbacks.ema"), LinearWarmup(steps=8), Record()])
    assert seen == [2.0 * 3 / 8, 2.0 * 7 / 8, 2.0]  # 4 steps an epoch


def test_a_schedule_of_a_weight_that_is_zero_is_refused():
    with pytest.raises(ValueError, match="free_bits is configured as 0"):
        fit(VAE((1, 5, 5), latent_dim=20), max_steps=1, callbacks=[LinearWarmup("free_bits")])
    with pytest.raises(ValueError, match=r"start in \[0, 1\], got 10 and 5"):
        LinearWarmup(steps=10, start=5)


def test_the_objective_gets_the_size_of_the_training_set():
    model = BetaTCVAE((1, 5, 5), latent_dim=20, alpha=1.0, beta=6.0, gamma=1.0, estimator="mss")
    assert model.objective.num_train is None
    fit(model, max_steps=1)
    assert model.objective.num_train == 100


def test_the_critic_is_clipped_by_itself():
    """A critic with a very large gradient does not shrink the model's gradient, nor the other way round."""
    model = FactorVAE((1, 5, 5), latent_dim=20, gamma=10.0, critic_lr=1e-4, critic_hidden=[8])
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
        fit(Stop((1, 5, 5), latent_dim=20, num_components=7), max_steps=1)
    assert torch.equal(*starts)
    data = RandomImages((1, 5, 5))
    data.setup()
    assert torch.equal(starts[0].round(), data.examples(1000).x[:7])
    assert starts[0].unique().numel() > 100  # not the bits themselves: within (0, 1), where there is a gradient


def test_the_capacity_schedule():
    """The capacity follows the optimizer step and is full in the test; a callback's schedule replaces it."""
    model = AnnealedVAE((1, 5, 5), latent_dim=20, gamma=100.0, capacity=8.0, capacity_steps=16)
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
def test_a_part_that_the_model_sets_itself_is_refused(overrides):
    part = overrides[1].partition("/")[2].partition("=")[0]
    said = rf"^model.{part}: (VampVAE|PlanarVAE) sets this argument itself, remove it from the config$"
    with pytest.raises(ConfigError, match=said):
        build(config("model", *overrides), "model")


def test_data_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"data_shape is \(1, 6, 6\), but RandomImages's images are \(1, 5, 5\)"):
        fit(VAE((1, 6, 6), latent_dim=20), max_steps=1)


BITS = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)).round()
CLASSES = torch.arange(8)


def loader(x, y=CLASSES):
    """A loader of the user's own, with batches of four."""
    starts = range(0, len(x), 4)
    batches = [Batch(x[i : i + 4], y[i : i + 4] if isinstance(y, torch.Tensor) else y) for i in starts]
    return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)


@pytest.mark.parametrize("stage", ["train", "val", "validate", "test"])
@pytest.mark.parametrize(
    ("model", "x", "y", "words"),
    [
        (VAE, 255 * BITS, CLASSES, r"Bernoulli takes only the values 0 and 1, got values in \[0.0, 255.0\]: binarize"),
        (VAE, 2 * BITS - 1, CLASSES, r"Bernoulli takes only the values 0 and 1, got values in \[-1.0, 1.0\]"),
        (VAE, BITS / 2, CLASSES, r"Bernoulli takes only the values 0 and 1, got values in \[0.0, 0.5\]"),
        (partial(VAE, likelihood=ContinuousBernoulli()), 255 * BITS, CLASSES, r"in \[0, 1\], .*: divide bytes by 255"),
        (partial(VAE, likelihood=DiscretizedLogistic()), BITS / 2, CLASSES, r"takes the 256 levels k / 255"),
        (VAE, BITS[..., 1:], CLASSES, r"\(4, 1, 8, 7\) and \(4,\): data_shape=\(1, 8, 8\) takes x of shape \(B, 1, "),
        (VAE, BITS.flatten(1), CLASSES, r"has the shapes \(4, 64\) and \(4,\)"),
        (VAE, BITS, CLASSES[:1], r"has the shapes \(4, 1, 8, 8\) and \(1,\)"),
        (VAE, BITS, None, r"y of Batch\(x, y\) is a NoneType: give a tensor, torch.zeros\(len\(x\)\) if there"),
        (VAE, BITS.numpy(), CLASSES, r"x of Batch\(x, y\) is a ndarray: give a tensor$"),
        (CVAE, BITS, CLASSES / 10, "class labels must be integers, got torch.float32: convert them"),
        (CVAE, BITS, -CLASSES, "labels run from -3 to 0: number the classes from 0"),
        (CVAE, BITS, 0 * CLASSES - 1, "the data have no labels: they come from the sub-folders of"),
        (CVAE, BITS, CLASSES + 7, "num_classes=10, but the labels run from 7 to 10: use model.num_classes=11"),
    ],
)
def test_the_first_batch_is_checked(stage, model, x, y, words):
    """In training, validation and test, for any loader, before anything is logged."""
    bad = loader(x, y)
    trainer = Trainer(accelerator="cpu", **QUIET, max_epochs=1)
    settings = {"num_classes": 10} if model is CVAE else {}
    model, good = model((1, 8, 8), latent_dim=20, **settings), loader(BITS)
    loaders = {"train": (bad, None), "val": (good, bad)}.get(stage, (bad,))
    with pytest.raises(ValueError, match=words):
        getattr(trainer, "fit" if len(loaders) == 2 else stage)(model, *loaders)
    assert trainer.global_step == (2 if stage == "val" else 0)


def test_only_the_first_batch_of_a_stage_is_checked(monkeypatch):
    """To check each would slow down the training. A further fit checks again."""
    seen = []
    check = VAE.check_batch
    monkeypatch.setattr(VAE, "check_batch", lambda self, batch: seen.append(len(batch.x)) or check(self, batch))
    model = VAE((1, 8, 8), latent_dim=20)
    for _ in range(2):
        Trainer(accelerator="cpu", **QUIET, max_epochs=3).fit(model, loader(BITS), loader(BITS[:7], CLASSES[:7]))
    assert seen == [4, 4] * 2


def test_on_nan_decides_about_data_that_are_not_finite():
    """NaN in data has the same effect in the first batch as in any other."""
    x = BITS.clone()
    x[1, 0, 2, 3] = torch.nan
    model = VAE((1, 8, 8), latent_dim=20, on_nan="skip")
    Trainer(accelerator="cpu", **QUIET, max_epochs=1).fit(model, loader(x))
    assert model.skipped_steps == 1
    with pytest.raises(ValueError, match="training diverged: the loss is not finite in step 0"):
        Trainer(accelerator="cpu", **QUIET, max_epochs=1).fit(VAE((1, 8, 8), latent_dim=20), loader(x))


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_data_and_likelihood_are_compared_in_every_stage(stage):
    """As on the command line."""
    act = getattr(Trainer(accelerator="cpu", **QUIET, max_steps=1), stage)
    with pytest.raises(ValueError, match=r"Bernoulli scores binary data, but data.binarize=none makes byte data: use"):
        act(VAE((1, 5, 5), latent_dim=20), RandomImages((1, 5, 5), binarize="none"))
    with pytest.raises(ValueError, match=r"data_shape is \(1, 6, 6\), but RandomImages's images are \(1, 5, 5\)"):
        act(VAE((1, 6, 6), latent_dim=20), RandomImages((1, 5, 5)))


def test_levels_are_accepted_in_every_dtype():
    """All 256 levels k / 255 are accepted as the dtype rounds them, and no values in between."""
    levels = torch.arange(256) / 255
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        DiscretizedLogistic().check(levels.to(dtype))
    for shift in (1e-5, 0.5 / 255):
        with pytest.raises(ValueError, match=r"\(255 \* x\).round\(\) / 255"):
            DiscretizedLogistic().check(levels[:-1] + shift)


@pytest.mark.parametrize("name", ["mlp_vae", "cvae", "ladder_vae", "vq_vae", "vamp_vae", "planar_vae", "s_vae"])
def test_a_pass_needs_tensors(name):
    """``forward`` is for training: the message says how to convert an array."""
    model = build(config("model", f"model={name}", "model.data_shape=[1,8,8]"), "model").eval()
    with pytest.raises(ValueError, match=r"expected a torch.Tensor, got ndarray: convert it with torch.from_numpy"):
        model(BITS.numpy(), CLASSES)
    with pytest.raises(ValueError, match=r"expected an array or a tensor, got list: convert it with numpy.asarray"):
        model.encode(BITS.tolist(), CLASSES)
    with pytest.raises(ValueError, match="x holds NaN, but the model was trained without missing entries"):
        model.encode(torch.full_like(BITS, math.nan), CLASSES)
    if name == "cvae":
        with pytest.raises(ValueError, match=r"class labels must be integers, got torch\.float32"):
            model.encode(BITS, CLASSES / 10)


@pytest.mark.parametrize(("num", "known"), [(1, False), (2, True)])
def test_one_example_has_no_standard_error(num, known):
    model = VAE((1, 8, 8), latent_dim=20)
    Trainer(accelerator="cpu", **QUIET).test(model, loader(BITS[:num], CLASSES[:num]), verbose=False)
    assert ("elbo_error" in model.results["test"]) == known


SAVING = QUIET | {"enable_checkpointing": True}


def grey(x):
    """Return a model of real numbers, which NaN passes."""
    return VAE((1, 8, 8), latent_dim=20, likelihood=FixedScaleNormal(), on_nan=x)


def test_nan_in_validation_stops_the_training(tmp_path):
    broken = BITS.clone()
    broken[3, 0, 0, 0] = torch.nan
    trainer = Trainer(accelerator="cpu", **SAVING, max_epochs=3, callbacks=[Best(tmp_path)])
    with pytest.raises(ValueError, match=r"^training diverged: val/elbo is nan in the validation after step 2: try "):
        trainer.fit(grey("stop"), loader(BITS), loader(broken))
    assert trainer.global_step == 2
    assert not list(tmp_path.iterdir())


def test_nan_in_validation_may_be_skipped(tmp_path, capsys):
    """Each one prints a message and is no improvement for early stopping; no checkpoint is written."""
    broken = BITS.clone()
    broken[3, 0, 0, 0] = torch.nan
    words = ("callbacks/early_stopping=default", "callbacks.early_stopping.patience=2")
    callbacks = [Best(tmp_path), build(config("callbacks.early_stopping", *words), "callbacks.early_stopping")]
    trainer = Trainer(accelerator="cpu", **SAVING, max_epochs=9, callbacks=callbacks)
    trainer.fit(grey("skip"), loader(BITS), loader(broken))
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("val/elbo is nan")]
    first = "val/elbo is nan in the validation after step 2: these weights cannot become the best checkpoint, the "
    assert told[0].startswith(first)
    assert len(told) == trainer.current_epoch == 2
    assert not list(tmp_path.iterdir())
    assert callbacks[0].score is None
