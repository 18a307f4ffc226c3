"""Each behaviour of plain Lightning that ``vaezoo.training.lightning_workarounds`` works around, and the work-around.

No model of this package is involved. If the first half of a test fails with a newer Lightning, the behaviour has
changed: then the work-around may be removed.
"""

import signal

import lightning.pytorch as pl
import pytest
import torch
from conftest import Rows
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from vaezoo.training import lightning_workarounds

pytestmark = pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable.*")


class Model(pl.LightningModule):
    """A linear layer that counts its validations and the ends of its training epochs."""

    def __init__(self, manual=False):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.automatic_optimization = not manual
        self.epoch_ends, self.validations, self.steps = 0, 0, []

    def training_step(self, batch, batch_idx):
        self.steps.append(batch_idx)
        loss = self.layer(batch).sum()
        if self.automatic_optimization:
            return loss
        self.manual_backward(loss)
        return None

    def validation_step(self, batch, batch_idx):
        self.gradient = self.layer.weight.grad

    def on_train_epoch_end(self):
        self.epoch_ends += 1

    def on_validation_end(self):
        self.validations += 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3, fused=True)


class Save(pl.Callback):
    """Saves a checkpoint in a hook after two optimizer steps, and lets ``change`` change it."""

    def __init__(self, path, hook, change=lambda checkpoint: None):
        self.path, self.change = path, change
        setattr(self, hook, self.save)

    def save(self, trainer, *_):
        if trainer.global_step == 2 and not self.path.exists():
            trainer.save_checkpoint(self.path)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        self.change(checkpoint)


class Complete(pl.Callback):
    """Applies the work-around for interrupted epochs, as ``Last`` does."""

    def on_fit_start(self, trainer, pl_module):
        lightning_workarounds.complete_interrupted_epochs(trainer)


class Record(pl.Callback):
    """Records the value of a function of the trainer after each training step."""

    def __init__(self, function):
        self.function, self.values = function, []

    def on_train_batch_end(self, trainer, *_):
        self.values.append(self.function(trainer))


def fit(model, *callbacks, resume=None, **settings):
    """Train for one epoch of four batches."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
             "enable_checkpointing": False}  # fmt: skip
    trainer = pl.Trainer(accelerator="cpu", callbacks=list(callbacks), max_epochs=1, **quiet, **settings)
    batches = DataLoader(torch.ones(8, 2), batch_size=2)
    trainer.fit(model, batches, batches, ckpt_path=resume)
    return trainer


@pytest.mark.parametrize("options", [{"accumulate_grad_batches": 2}, {"gradient_clip_val": 1.0}], ids=str)
def test_accumulation_and_clipping_are_refused_with_manual_optimization(options):
    with pytest.raises(MisconfigurationException, match="not supported for manual optimization"):
        fit(Model(manual=True), **options)

    class Hiding(Model):
        def configure_callbacks(self):
            self.saved = lightning_workarounds.unset_accumulation_and_clipping(self.trainer)
            return []

        def setup(self, stage):
            lightning_workarounds.restore_options(self.trainer, self.saved)

    trainer = fit(Hiding(manual=True), **options)
    assert {name: getattr(trainer, name) for name in options} == options


def test_an_epoch_that_is_interrupted_after_its_last_step_is_not_completed(tmp_path):
    settings = {"max_steps": 2, "limit_val_batches": 0}
    fit(Model(), Save(tmp_path / "last.ckpt", "on_train_batch_end"), **settings)
    for callbacks, epoch_ends in [((), 0), ((Complete(),), 1)]:
        model = Model()
        fit(model, *callbacks, resume=tmp_path / "last.ckpt", **settings)
        assert model.epoch_ends == epoch_ends


def test_a_validation_that_follows_a_saved_step_is_left_out(tmp_path):
    """A checkpoint of that moment must not be written: ``is_validation_next`` tells it."""
    record, whole, resumed = Record(lightning_workarounds.is_validation_next), Model(), Model()
    fit(whole, Save(tmp_path / "x.ckpt", "on_train_batch_end"), record, val_check_interval=2)
    fit(resumed, resume=tmp_path / "x.ckpt", val_check_interval=2)
    assert resumed.steps == [2, 3]
    assert (whole.validations, resumed.validations) == (2, 1)
    assert record.values == [False, True, False, True]


@pytest.mark.parametrize("hook", ["on_validation_start", "on_validation_batch_end", "on_validation_end"])
def test_a_validation_during_which_a_checkpoint_is_saved_is_left_out(tmp_path, hook):
    for name, change, validations in [
        ("plain", lambda checkpoint: None, 1),
        ("changed", lightning_workarounds.repeat_validation, 2),
    ]:
        fit(Model(), Save(tmp_path / name, hook, change), val_check_interval=2)
        model = Model()
        fit(model, resume=tmp_path / name, val_check_interval=2)
        assert model.steps == [2, 3]
        assert model.validations == validations


def test_the_last_step_of_an_epoch_has_no_public_attribute():
    """It counts from 0 in each epoch."""
    record = Record(lightning_workarounds.last_training_step)
    trainer = fit(Model(), record)
    assert record.values == [0, 1, 2, 3]
    assert not hasattr(trainer, "batch_idx")


def test_the_purge_step_of_tensorboard_is_fixed_when_the_logger_is_made(tmp_path):
    """There is no public attribute for it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first, second = (TensorBoardLogger(tmp_path, name="", version="") for _ in range(2))
    assert not any("purge" in name for name in dir(first))
    lightning_workarounds.hide_events_from(second, 1)
    for logger, rows in [(first, {0: 0.0, 1: 1.0, 2: 2.0}), (second, {1: 10.0})]:
        for step, value in rows.items():
            logger.log_metrics({"a": value}, step)
        logger.finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("a")
    assert [(event.step, event.value) for event in events] == [(0, 0.0), (1, 10.0)]


def test_signal_handlers_are_replaced():
    """``Last`` installs ours again."""
    handlers, before = [], signal.getsignal(signal.SIGTERM)

    def ours(*_):
        pass

    class Look(pl.Callback):
        def on_train_start(self, *_):
            handlers.append(signal.getsignal(signal.SIGTERM))

    signal.signal(signal.SIGTERM, ours)
    try:
        fit(Model(), Look())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert handlers[0] is not ours


def test_gradients_are_cleared_before_a_validation():
    """``TrainingLoop`` keeps those that are being accumulated."""
    model = Model(manual=True)
    fit(model)
    assert model.gradient is None


def test_gradients_of_a_fused_optimizer_are_not_clipped():
    """Not even in bf16, which has no gradient scaler: ``TrainingLoop`` clips them."""
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
        fit(Model(), gradient_clip_val=1.0, precision="bf16-mixed")


class TwoSteps(Model):
    """Makes two optimizer steps in each of Lightning's steps, and logs a number at the end of a test."""

    hides = False

    def training_step(self, batch, batch_idx):
        for _ in range(2):
            self.manual_backward(self.layer(batch).sum())
            self.optimizers().step()

    def test_step(self, batch, batch_idx):
        pass

    def on_test_epoch_end(self):
        self.log("test/a", torch.tensor(1.0))
        if self.hides:
            self.loggers_before = lightning_workarounds.hide_loggers(self.trainer)

    def on_test_end(self):
        if self.hides:
            self.trainer.loggers = self.loggers_before


@pytest.mark.filterwarnings("ignore")
def test_lightning_logs_a_test_at_its_own_steps():
    """It returns a number only if it logs it, at a step that counts its own steps; without loggers it only returns."""
    for hides, rows in ((False, [(3, {"test/a": 1.0, "epoch": 1})]), (True, [])):
        model, logger = TwoSteps(manual=True), Rows()
        model.hides = hides
        settings = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
        trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=logger, **settings)
        trainer.fit(model, DataLoader(torch.ones(3, 2)))
        assert trainer.global_step == 6
        assert trainer.test(model, DataLoader(torch.ones(3, 2)), verbose=False) == [{"test/a": 1.0}]
        assert logger.rows == rows
        assert trainer.loggers == [logger]
