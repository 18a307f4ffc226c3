"""A model is a LightningModule like any other, and a data module one like any other."""

import copy
import csv
import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from conftest import REPO, RandomImages, config
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, LambdaCallback, StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger
from lightning.pytorch.tuner import Tuner
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)
from torch.utils.data import DataLoader, TensorDataset

import vaezoo
from vaezoo.data import MNIST, ArrayData, Digits, Sprites
from vaezoo.families import ContinuousBernoulli, DiscretizedLogistic, FixedScaleNormal, Masked
from vaezoo.instantiate import build
from vaezoo.models import CVAE, VAE, BetaTCVAE, FactorVAE
from vaezoo.nets import MLP
from vaezoo.objectives import Capacity
from vaezoo.priors import VampPrior
from vaezoo.training.schedulers import one_cycle
from vaezoo.types import Batch

QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
         "enable_model_summary": False, "num_sanity_val_steps": 0}  # fmt: skip
X = torch.rand(24, 1, 4, 4, generator=torch.Generator().manual_seed(0)).round()
Y = torch.arange(24) % 3
PAIRS = TensorDataset(X, Y)


def make(kind=VAE, **settings):
    torch.manual_seed(0)
    return kind((1, 4, 4), latent_dim=2, **settings)


# Loaders of one's own.


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(PAIRS, batch_size=5),
        DataLoader(TensorDataset(X), batch_size=5),
        DataLoader(X, batch_size=5),
        DataLoader(TensorDataset(X.double(), Y), batch_size=5),
    ],
    ids=["pairs", "tuples of one", "x alone", "float64"],
)
@pytest.mark.filterwarnings("error:.*no logger configured.*")
def test_plain_loaders(loader):
    """Training, validation, test and prediction."""
    model, trainer = make(), Trainer(**QUIET, max_epochs=2)
    trainer.fit(model, loader, loader)
    assert trainer.global_step == 10
    (validated,) = trainer.validate(model, loader, verbose=False)
    (tested,) = trainer.test(model, loader, verbose=False)
    assert validated["val/elbo"] == model.results["val"]["elbo"]
    assert tested["test/elbo"] == model.results["test"]["elbo"]
    codes = torch.cat(trainer.predict(model, loader))
    with torch.no_grad():
        assert torch.equal(codes, torch.cat([model.encode(x) for x in X.split(5)]))


def test_pairs_equal_a_batch():
    """A loader of pairs and one of Batch train the same weights."""
    results = []
    batches = [Batch(x, y) for x, y in zip(X.split(8), Y.split(8), strict=True)]
    for loader in (DataLoader(PAIRS, batch_size=8), DataLoader(batches, batch_size=None, collate_fn=lambda b: b)):
        model = make()
        Trainer(**QUIET, max_epochs=2).fit(model, loader)
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*results)


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_other_batches_are_refused(stage):
    act = getattr(Trainer(**QUIET, max_epochs=1), stage)
    words = r"^the loader gives a {}, but a model takes a pair of tensors \(x, y\), or x alone: let its data set or"
    with pytest.raises(ValueError, match=words.format("dict")):
        act(make(), DataLoader([{"x": x} for x in X], batch_size=4))
    with pytest.raises(ValueError, match=words.format("list of 3")):
        act(make(), DataLoader(TensorDataset(X, Y, Y), batch_size=4))


def test_a_conditional_model_needs_labels():
    model = make(CVAE, num_classes=3)
    Trainer(**QUIET, max_epochs=1).fit(model, DataLoader(PAIRS, batch_size=4))
    with pytest.raises(ValueError, match="a cvae needs one class label for each example, but the data have no labels"):
        Trainer(**QUIET, max_epochs=1).fit(model, DataLoader(X, batch_size=4))


def test_the_size_of_the_training_set_is_that_of_the_loader():
    """An estimator of total correlation needs it; a data set of batches does not tell it."""
    model = make(BetaTCVAE, alpha=1.0, beta=6.0, gamma=1.0, estimator="mss")
    Trainer(**QUIET, max_epochs=1).fit(model, DataLoader(PAIRS, batch_size=5))
    assert model.objective.num_train == 24
    model = make()
    Trainer(**QUIET, max_epochs=1).fit(model, DataLoader(X.split(8), batch_size=None))
    assert model.objective.num_train is None


# What a trainer returns.


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_the_numbers_are_returned_printed_and_logged_once(stage, tmp_path, capsys):
    """In float64, and logged at the optimizer step, as at the end of each epoch of a training."""
    data, model = RandomImages((1, 4, 4), batches_per_step=3, batch_size=10), make()
    trainer = Trainer(**QUIET | {"logger": CSVLogger(tmp_path)}, max_epochs=1)
    trainer.fit(model, data)
    (numbers,) = getattr(trainer, stage)(model, data)
    name = {"validate": "val"}.get(stage, stage)
    assert numbers == {f"{name}/{key}": value for key, value in model.results[name].items()}
    assert f"{name}/elbo" in capsys.readouterr().out
    assert len(trainer.loggers) == 1
    trainer.logger.save()
    rows = list(csv.DictReader((tmp_path / "lightning_logs" / "version_0" / "metrics.csv").open()))
    logged = [(int(row["step"]), float(row[f"{name}/elbo"])) for row in rows if row[f"{name}/elbo"]]
    assert logged[-1] == ({"validate": 9, "test": 10}[stage], numbers[f"{name}/elbo"])
    assert len(logged) == {"validate": 2, "test": 1}[stage]


def test_prediction_with_a_data_module():
    """``Trainer.predict`` returns the codes of the test set."""
    data, model = RandomImages((1, 4, 4)), make()
    trainer = Trainer(**QUIET, max_epochs=1)
    trainer.fit(model, data)
    codes = torch.cat(trainer.predict(model, data))
    with torch.no_grad():
        assert torch.equal(codes, torch.cat([model.encode(x) for x, _ in data.test_dataloader()]))


# Checkpoints.


def trained(kind=VAE, **settings):
    """Return a trained model, and the checkpoint of a trainer of one's own."""
    model, trainer = make(kind, **settings), Trainer(**QUIET, max_epochs=1)
    trainer.fit(model, DataLoader(PAIRS, batch_size=8))
    return model, trainer


def assert_equal(model, other):
    assert type(other) is type(model)
    assert not other.training
    state = other.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (VAE, {}),
        (BetaTCVAE, {"alpha": np.float64(1), "beta": 6, "gamma": np.int64(1), "estimator": "mss", "seed": 7}),
        (VAE, {"encoder": partial(MLP, hidden=(8, 8)), "decoder": MLP, "prior": partial(VampPrior, num_components=3)}),
        (VAE, {"likelihood": ContinuousBernoulli(), "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1)}),
        (VAE, {"likelihood": Masked(FixedScaleNormal(scale=0.5)), "objective": Capacity(1.0, 2.0, steps=9)}),
        (CVAE, {"num_classes": 3}),
    ],
    ids=range(6),
)
def test_a_checkpoint_of_a_trainer_of_ones_own(kind, settings, tmp_path):
    """It tells how the model was built: no argument has to be repeated."""
    model, trainer = trained(kind, **settings)
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    assert_equal(model, kind.load_from_checkpoint(tmp_path / "own.ckpt"))
    assert_equal(model, vaezoo.load(tmp_path / "own.ckpt", map_location="cpu"))
    vaezoo.save(copy.deepcopy(model), tmp_path / "new" / "saved.ckpt")
    other = vaezoo.load(tmp_path / "new" / "saved.ckpt")
    assert_equal(model, other)
    assert other.seed == model.seed
    vaezoo.save(other, tmp_path / "again.ckpt")
    assert_equal(model, vaezoo.load(tmp_path / "again.ckpt"))


def test_load_on_another_device(tmp_path):
    vaezoo.save(make(), tmp_path / "a.ckpt")
    assert vaezoo.load(tmp_path / "a.ckpt", map_location="meta").device.type == "meta"
    assert VAE.load_from_checkpoint(tmp_path / "a.ckpt", map_location="meta").device.type == "meta"


def test_a_loaded_model_can_get_another_optimizer(tmp_path):
    _model, trainer = trained()
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    optimizer = partial(torch.optim.SGD, lr=1e-3)
    assert VAE.load_from_checkpoint(tmp_path / "own.ckpt", optimizer=optimizer, latent_dim=2).optimizer is optimizer
    with pytest.raises(ValueError, match=r"latent_dim=3 contradicts the config of .*, latent_dim=2: leave it out"):
        VAE.load_from_checkpoint(tmp_path / "own.ckpt", latent_dim=3)


class Mine(VAE):
    """A model of one's own."""


def test_what_cannot_be_saved_is_said(tmp_path):
    words = r"how this VAE was built cannot be saved, because encoder is a .*: build it from classes of the zoo with"
    model, trainer = trained(encoder=lambda inputs, outputs: MLP(inputs, outputs))
    with pytest.raises(ValueError, match=words.replace("encoder is a .*", r"\S*<lambda> is not .* imported")):
        vaezoo.save(model, tmp_path / "a.ckpt")
    pickle.dumps(make(likelihood=FixedScaleNormal()))  # nothing is kept that cannot be pickled
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    with pytest.raises(ValueError, match=r"own.ckpt is not .* model.load_state_dict\(.*, or give the model's argument"):
        VAE.load_from_checkpoint(tmp_path / "own.ckpt")
    with pytest.raises(ValueError, match=r"is a folder: give the name of a file, such as .*model.ckpt"):
        vaezoo.save(make(), tmp_path)
    vaezoo.save(make(Mine), tmp_path / "mine.ckpt")
    with pytest.raises(ValueError, match=r"test_lightning_habits.Mine is not in an allowed package .*allow_packages"):
        vaezoo.load(tmp_path / "mine.ckpt")
    assert_equal(make(Mine), vaezoo.load(tmp_path / "mine.ckpt", allow_packages="test_lightning_habits"))


# Callbacks, tuners and loggers of Lightning.


@pytest.mark.filterwarnings("ignore")
def test_tuners_and_weight_averaging_name_an_alternative():
    """The optimizer steps are made in our own loop, which these cannot follow."""
    loader = DataLoader(PAIRS, batch_size=8)
    with pytest.raises(ValueError, match=r"LearningRateFinder does not work .*: set optimizer.lr \(in Python, optimi"):
        Tuner(Trainer(**QUIET)).lr_find(make(), loader)
    with pytest.raises(ValueError, match=r"BatchSizeFinder does not work .*: set data.batch_size"):
        Tuner(Trainer(**QUIET)).scale_batch_size(make(), loader)
    with pytest.raises(ValueError, match=r"StochasticWeightAveraging does not work .*: use callbacks/ema=default \("):
        Trainer(**QUIET, callbacks=[StochasticWeightAveraging(1e-2)]).fit(make(), loader)


def test_lightnings_loggers_from_the_config(cli):
    """Beside our own, with the same numbers; the config is logged too."""
    code, _out, err, run = cli(
        "logger=csv", "+logger.own._target_=lightning.pytorch.loggers.CSVLogger", "+logger.own.save_dir=own",
        "trainer.max_epochs=2", "callbacks.images=null", "trainer.log_every_n_steps=4",
    )  # fmt: skip
    assert code == 0, err
    (own,) = run.parents[2].glob("own/lightning_logs/version_0/metrics.csv")
    tables = [list(csv.DictReader(path.open())) for path in (run / "metrics.csv", own)]
    numbers = [{(r["step"], name): r[name] for r in rows for name in r if r[name]} for rows in tables]
    speed = [{key for key in found if key[1] == "step/examples_per_second"} for found in numbers]
    assert [len(found) > 0 for found in speed] == [True, True]
    assert numbers[0] == numbers[1]
    assert "latent_dim" in own.with_name("hparams.yaml").read_text()


def test_mlflow(tmp_path, monkeypatch):
    """If it is installed: all metrics, at the optimizer steps."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger(tracking_uri=f"file:{tmp_path}")
    model, data = make(), RandomImages((1, 4, 4), batches_per_step=3, batch_size=10)
    trainer = Trainer(**QUIET | {"logger": logger}, max_epochs=2)
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    history = logger.experiment.get_metric_history(logger.run_id, "val/elbo")
    assert [point.step for point in history] == [9, 19]
    last = logger.experiment.get_run(logger.run_id).data.metrics["test/elbo"]
    assert last == model.results["test"]["elbo"]


# Learning-rate schedules.


class Rates(Callback):
    """Records the learning rates of each optimizer step."""

    def __init__(self):
        self.rates = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append([group["lr"] for group in optimizer.param_groups])


def rates_of(scheduler, kind=VAE, model=None, **settings):
    """Return the first group's learning rate in each of 3 epochs of 5 steps, trained in chunks of 2."""
    rates, data = Rates(), RandomImages((1, 4, 4), num=70, batch_size=10, batches_per_step=2)
    optimizer = partial(torch.optim.SGD, lr=1e-3)
    model = make(kind, scheduler=scheduler, optimizer=optimizer, **model or {})
    trainer = Trainer(**QUIET, max_epochs=3, callbacks=[rates], **settings)
    trainer.fit(model, data)
    return rates.rates


def by_hand(scheduler, after, lr=1e-3):
    """Return the learning rate of 15 steps of a schedule that is advanced after each of these steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedule, rates = scheduler(optimizer), []
    for step in range(15):
        rates.append([optimizer.param_groups[0]["lr"]])
        optimizer.step()
        if step in after:
            schedule.step()
    return rates


@pytest.mark.parametrize(
    "scheduler",
    [
        partial(StepLR, step_size=2, gamma=0.1), partial(ExponentialLR, gamma=0.9), partial(LinearLR, total_iters=2),
        partial(MultiStepLR, milestones=[1, 2]), partial(CosineAnnealingLR, T_max=3),
        partial(LambdaLR, lr_lambda=lambda n: 1 / (1 + n)), partial(CyclicLR, base_lr=1e-5, max_lr=1e-3),
    ],
    ids=lambda scheduler: scheduler.func.__name__,
)  # fmt: skip
def test_a_schedule_of_torch_counts_epochs_or_steps(scheduler):
    """It is made from its own arguments."""
    assert rates_of(scheduler) == by_hand(scheduler, after=(4, 9, 14))
    assert rates_of(scheduler, model={"scheduler_interval": "step"}) == by_hand(scheduler, after=range(15))


def test_one_cycle_equals_that_of_torch():
    """Each group of parameters has its own largest learning rate; torch's class gets the number of steps too."""
    ours = rates_of(one_cycle)
    torchs = partial(OneCycleLR, max_lr=1e-3, cycle_momentum=False)
    assert ours == pytest.approx(np.array(by_hand(partial(torchs, total_steps=15), after=range(15))), rel=1e-12)
    assert ours == pytest.approx(np.array(rates_of(torchs)), rel=1e-12)
    (rate, critic), *_ = rates_of(one_cycle, FactorVAE, {"gamma": 1.0, "critic_lr": 1e-4, "critic_hidden": [4]})
    assert rate == pytest.approx(1e-3 / 25)
    assert critic == pytest.approx(1e-4 / 25)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_reduce_on_plateau_follows_the_validation(mode, monkeypatch):
    """It gets the loss or the ELBO of each validation."""
    seen, step = [], ReduceLROnPlateau.step
    monkeypatch.setattr(ReduceLROnPlateau, "step", lambda self, value: seen.append(value) or step(self, value))
    plateau = partial(ReduceLROnPlateau, mode=mode, factor=0.5, patience=0, threshold=1e9, threshold_mode="abs")
    rates = rates_of(plateau)
    assert [rate for (rate,) in rates] == [1e-3] * 10 + [5e-4] * 5
    assert len(seen) == 3
    assert all(value > 0 if mode == "min" else value < 0 for value in seen)
    with pytest.raises(ValueError, match="ReduceLROnPlateau follows the validation, and there is none: give validat"):
        rates_of(plateau, limit_val_batches=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+scheduler._target_=torch.optim.lr_scheduler.ExponentialLR"], "scheduler.gamma is missing: ExponentialLR n"),
        (["scheduler=exponential", "scheduler.gama=2"], "scheduler.gama: there is no such key, did you mean sched"),
        (["scheduler=step", "scheduler.interval=day"], "scheduler.interval=day is not one of step, epoch"),
        (["scheduler=cosine", "+scheduler.interval=epoch"], "scheduler.interval=epoch: cosine counts optimizer st"),
        (["scheduler=reduce_on_plateau", "+scheduler.interval=step"], "ReduceLROnPlateau counts validations, leave t"),
        (["scheduler=step", "scheduler.step_size=x"], "scheduler.step_size='x' should be an integer"),
        (["+scheduler.gamma=0.9"], "scheduler._target_ is missing: choose a scheduler, scheduler=NAME, or name a cl"),
        (["scheduler=one_cycle", "scheduler.pct_start=2"], "scheduler.pct_start must be in [0, 1], got 2"),
        (["scheduler=reduce_on_plateau", "scheduler.factor=2"], "scheduler: Factor should be < 1.0."),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_schedules_are_refused_in_one_sentence(cli, words, message):
    code, _out, err, _run = cli("logger=none", "trainer.max_epochs=1", *words)
    assert code == 1
    assert message in err
    assert len(err.strip().splitlines()) <= 2


SCHEDULES = sorted(path.stem for path in (REPO / "conf" / "scheduler").glob("*.yaml"))


@pytest.mark.parametrize("words", [[f"scheduler={name}"] for name in SCHEDULES if name != "none"] + [
    ["+scheduler._target_=torch.optim.lr_scheduler.ExponentialLR", "+scheduler.gamma=0.9"],
    ["+scheduler._target_=torch.optim.lr_scheduler.CyclicLR", "+scheduler.base_lr=1e-5", "+scheduler.max_lr=1e-3",
     "+scheduler.interval=step", "+scheduler.cycle_momentum=false"],
], ids=str)  # fmt: skip
def test_schedules_on_the_command_line(cli, words):
    """Every choice, and schedules of torch by their own arguments; gamma is no number of steps."""
    short = ("logger=csv", "trainer.max_epochs=2", "callbacks.images=null", "trainer.log_every_n_steps=1")
    code, _out, err, run = cli(*short, *words)
    assert code == 0, err
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    rates = [float(row["step/learning_rate"]) for row in rows if row["step/learning_rate"]]
    if "ExponentialLR" in words[0]:
        assert rates == pytest.approx([1e-3] * 20 + [9e-4] * 20)


# Data modules with other models and loops.


class Autoencoder(LightningModule):
    """A model of somebody else, which takes pairs and uses automatic optimization."""

    def __init__(self, shape):
        super().__init__()
        size = math.prod(shape)
        self.net, self.seen = torch.nn.Linear(size, size), []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen.append((x, y))
        return (self.net(x.flatten(1)) - x.flatten(1)).square().mean()

    def validation_step(self, batch, batch_idx):
        x, _y = batch
        self.log("val_loss", (self.net(x.flatten(1)) - x.flatten(1)).square().mean())

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


@pytest.mark.parametrize("workers", [0, 2])
def test_our_data_with_a_model_of_somebody_else(workers):
    """It gets batches (x, y): the same ones, in the same order, as our own models."""
    data = Digits(val_size=180, batch_size=64, batches_per_step=8, num_workers=workers)
    model = Autoencoder(data.shape)
    trainer = Trainer(**QUIET, max_epochs=2)
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == 2 * 20
    assert trainer.test(model, data, verbose=False)[0]["val_loss"] > 0
    ours, seen = VAE(data.shape, latent_dim=2), []
    record = LambdaCallback()
    record.on_microbatch_end = lambda trainer, pl_module, item: seen.append(item.batch)
    Trainer(**QUIET, max_epochs=2, callbacks=[record]).fit(ours, data)
    assert len(seen) == len(model.seen)
    for ours, theirs in zip(seen, model.seen, strict=True):
        assert torch.equal(ours.x, theirs[0])
        assert torch.equal(ours.y, theirs[1])


def test_a_model_of_somebody_else_resumes_within_an_epoch(tmp_path):
    """The rest of the epoch has the batches that were left."""
    data, model = Digits(val_size=180, batch_size=64), Autoencoder((1, 8, 8))
    save = LambdaCallback(
        on_train_batch_end=lambda trainer, *_: trainer.global_step == 7 and trainer.save_checkpoint(tmp_path / "a.ckpt")
    )
    Trainer(**QUIET, max_epochs=1, callbacks=[save]).fit(model, data)
    other = Autoencoder((1, 8, 8))
    Trainer(**QUIET, max_epochs=1).fit(other, data, ckpt_path=tmp_path / "a.ckpt")
    assert len(other.seen) == 13
    assert torch.equal(torch.cat([x for x, _ in other.seen]), torch.cat([x for x, _ in model.seen[7:]]))


def test_a_loop_written_by_hand():
    """Loaders need no ``setup``, the shape is known, and each pass has a new order."""
    data = RandomImages((1, 4, 4), num=60, batch_size=16)
    loader, passes = data.train_dataloader(), []
    for _ in range(2):
        for x, y in loader:
            assert (x.shape, y.shape) == ((len(x), 1, 4, 4), (len(x),))
        passes.append(torch.cat([y for _, y in loader]))
    assert not torch.equal(*passes)
    assert torch.equal(*(labels.sort().values for labels in passes))
    trainer = Trainer(**QUIET, max_epochs=2)
    trainer.fit(make(), data.train_dataloader(), data.val_dataloader())
    assert trainer.global_step == 6
    for other in (RandomImages((1, 4, 4)), RandomImages((1, 4, 4))):
        assert len(other.val_dataloader()) + len(other.test_dataloader()) == 2


def test_the_shape_is_known_by_the_data(tmp_path):
    """It is that of a published data set, or the data are read."""
    assert Digits().shape == (1, 8, 8)
    assert Digits().train is None
    assert MNIST(root=tmp_path).shape == (1, 28, 28)
    assert Sprites(size=32, colors=3).shape == (3, 32, 32)
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(50, 7)))
    data = ArrayData(path=str(tmp_path / "a.npy"))
    assert data.known_shape is None
    assert data.shape == (7,)
    with pytest.raises(FileNotFoundError) as error:
        MNIST(root=tmp_path).train_dataloader()
    assert "call prepare_data() first" in error.value.__notes__[0]


# A trained model in the user's hands.


@pytest.mark.parametrize("name", ["mlp_vae", "cvae", "ladder_vae", "vq_vae", "vamp_vae", "planar_vae", "s_vae"])
def test_arrays_are_accepted_and_results_have_no_gradient(name):
    """float64 and uint8 too; the results can go to matplotlib."""
    model = build(config("model", f"model={name}", "model.data_shape=[1,4,4]"), "model").eval()
    array, classes = X.numpy(), Y.numpy()
    codes = model.encode(X, Y)
    for x in (array, array.astype(np.float64), array.astype(np.uint8), array.astype(bool), 255 * X.to(torch.uint8)):
        assert torch.equal(model.encode(x, classes), codes)
        assert torch.equal(model.log_marginal(x, classes, num_samples=2), model.log_marginal(X, Y, num_samples=2))
    assert torch.equal(model.decode(codes.numpy(), classes).mean, model.decode(z=codes, context=Y).mean)
    assert torch.equal(model.reconstruct(array, classes), model.decode(codes, Y).mean)
    assert model.sample(24, classes).mean.numpy().shape == (24, 1, 4, 4)
    assert model.sample(3, [0, 1, 2]).mean.shape == (3, 1, 4, 4)
    assert model.reconstruct(x=array, context=classes).numpy().shape == (24, 1, 4, 4)


def test_gradients_where_they_are_asked_for():
    """Of an argument that requires them, in a pass, in the parts, and while a Trainer trains."""
    model, z = make(), torch.zeros(2, 2)
    assert not model.decode(z).mean.requires_grad
    assert model.decode(z.clone().requires_grad_()).mean.requires_grad
    assert model.encode(X.clone().requires_grad_()).requires_grad
    assert model(X).elbo.requires_grad
    assert model.decoder(z).mean.requires_grad

    class Own(VAE):
        """A model whose pass uses ``encode`` and ``decode``."""

        def forward(self, x, context=None, num_samples=None):
            trace = super().forward(x, context, num_samples)
            trace.px = self.decode(self.encode(x).unsqueeze(0))
            return trace

    own = make(Own)
    own(X)  # outside of a training
    before = [p.detach().clone() for p in own.parameters()]
    Trainer(**QUIET, max_epochs=1).fit(own, DataLoader(PAIRS, batch_size=8))
    assert all(not torch.equal(p, q) for p, q in zip(own.parameters(), before, strict=True))


def test_bytes_are_scaled_as_in_the_training(tmp_path):
    """If the model was trained on images of bytes, in the layout of the training; else they are refused."""
    images = np.random.default_rng(0).integers(0, 256, (60, 6, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    data = ArrayData(path=str(tmp_path / "a.npy"), batch_size=16)
    model = VAE(data.shape, latent_dim=2, likelihood=DiscretizedLogistic())
    Trainer(**QUIET, max_epochs=1).fit(model, data)
    expected = model.encode(torch.from_numpy(images).movedim(-1, 1) / 255)
    assert torch.equal(model.encode(images), expected)
    assert torch.equal(model.encode(images.transpose(0, 3, 1, 2)), expected)
    vaezoo.save(model, tmp_path / "a.ckpt")
    assert torch.equal(vaezoo.load(tmp_path / "a.ckpt").encode(images), expected)
    for wrong in (images.astype(np.float32), images.astype(np.int64), images / 255 - 1):
        with pytest.raises(ValueError, match=r"takes values in \[0, 1\], but x holds values from"):
            model.encode(wrong)
    gray = images[:, None, :4, :4, 0]
    bits, real = make(), make(likelihood=FixedScaleNormal())
    with pytest.raises(ValueError, match=r"x holds bytes from 0 to 255, but the model was trained on bits: binarize x"):
        bits.encode(gray)
    assert torch.equal(bits.encode(gray > 127), bits.encode(torch.from_numpy(gray > 127).float()))
    with pytest.raises(ValueError, match=r"bytes from 0 to 255, but the model takes .* data: convert x to floats"):
        real.encode(gray)
    with pytest.raises(ValueError, match="expected an array of numbers, got one of type <U1"):
        real.encode(np.array(["a"]))


def test_a_loop_of_ones_own_after_a_training():
    """The data module of a training that has ended gives pairs of x and y again."""
    data = Digits(val_size=180, batch_size=400)
    Trainer(**QUIET, max_epochs=1).fit(VAE((1, 8, 8), latent_dim=2), data)
    shapes = [(tuple(x.shape[1:]), y.shape[1:]) for x, y in data.train_dataloader()]
    assert set(shapes) == {((1, 8, 8), ())}
