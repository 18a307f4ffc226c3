"""A model is a LightningModule like any other, and a data module one like any other."""

import copy
import csv
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from conftest import RandomImages
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader, TensorDataset

import vaezoo
from vaezoo.families import ContinuousBernoulli, FixedScaleNormal, Masked
from vaezoo.models import CVAE, VAE, BetaTCVAE
from vaezoo.nets import MLP
from vaezoo.objectives import Capacity
from vaezoo.priors import VampPrior
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
    speed = [{key for key in found if key[1] == "step/images_per_second"} for found in numbers]
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
