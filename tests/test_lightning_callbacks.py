"""Every callback of Lightning works with this training loop, or is refused with an alternative before the training."""

import logging
from datetime import timedelta

import pytest
import torch
from conftest import RandomImages, Rows
from lightning.pytorch import Trainer, callbacks

from vaezoo.models import VAE
from vaezoo.training.callback_checks import NEED_EVERY_BATCH, REFUSED


class Unfreeze(callbacks.BaseFinetuning):
    """Trains the encoder from the second epoch on."""

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.encoder)
        self.before, self.after_one = copied(pl_module.encoder), None

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.after_one = copied(pl_module.encoder)
            self.unfreeze_and_add_param_group(pl_module.encoder, optimizer)


class Predictions(callbacks.BasePredictionWriter):
    """Writes nothing."""


class Average(callbacks.WeightAveraging):
    """Averages after every step."""

    def should_update(self, step_idx=None, epoch_idx=None):
        return step_idx is not None


def copied(module):
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def fitted(callback, batches_per_step=1, max_epochs=2):
    """Train with one callback, 10 steps in an epoch. Return trainer, model and the logged rows."""
    torch.manual_seed(0)
    model, rows = VAE((1, 4, 4), latent_dim=2), Rows()
    bar, saves = (isinstance(callback, kind) for kind in (callbacks.ProgressBar, callbacks.Checkpoint))
    trainer = Trainer(accelerator="cpu", logger=rows, max_epochs=max_epochs, enable_progress_bar=bar,
                      enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1, callbacks=[callback],
                      enable_checkpointing=saves)  # fmt: skip
    trainer.fit(model, RandomImages((1, 4, 4), batch_size=10, batches_per_step=batches_per_step))
    return trainer, model, rows.rows


def made(kind, folder):
    """Return a callback of a class, with the arguments that its constructor needs."""
    arguments = {
        callbacks.BaseFinetuning: lambda: Unfreeze(),
        callbacks.BasePredictionWriter: lambda: Predictions("batch"),
        callbacks.DeviceStatsMonitor: lambda: callbacks.DeviceStatsMonitor(cpu_stats=False),
        callbacks.EarlyStopping: lambda: callbacks.EarlyStopping("val/elbo", min_delta=1e9, patience=1, mode="max"),
        callbacks.GradientAccumulationScheduler: lambda: callbacks.GradientAccumulationScheduler({0: 2}),
        callbacks.LambdaCallback: lambda: callbacks.LambdaCallback(on_train_epoch_end=lambda *_: None),
        callbacks.ModelCheckpoint: lambda: callbacks.ModelCheckpoint(folder, every_n_train_steps=5, save_top_k=-1),
        callbacks.ModelPruning: lambda: callbacks.ModelPruning("l1_unstructured", amount=0.5),
        callbacks.OnExceptionCheckpoint: lambda: callbacks.OnExceptionCheckpoint(folder),
        callbacks.StochasticWeightAveraging: lambda: callbacks.StochasticWeightAveraging(1e-2),
        callbacks.ThroughputMonitor: lambda: callbacks.ThroughputMonitor(len),
        callbacks.Timer: lambda: callbacks.Timer(timedelta(microseconds=1)),
        callbacks.WeightAveraging: lambda: Average(),
    }
    return arguments.get(kind, kind)()


KINDS = [getattr(callbacks, name) for name in callbacks.__all__]


INSTEAD = r"data\.|trainer\.|callbacks|optimizer\.|BaseFinetuning|torch\.nn"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.filterwarnings("ignore")
def test_each_callback_works_or_is_refused(kind, tmp_path):
    """For all callbacks that Lightning exports, so new ones of a newer version are tried too."""
    needs_every_batch = any(issubclass(kind, one) for one in NEED_EVERY_BATCH)
    if kind in REFUSED or needs_every_batch:
        with pytest.raises(ValueError, match=rf"^the callback \w+ .*: .*({INSTEAD})"):
            fitted(made(kind, tmp_path), batches_per_step=5)
    if kind not in REFUSED:
        steps = fitted(made(kind, tmp_path), batches_per_step=1 if needs_every_batch else 5)[0].global_step
        assert steps == (5 if kind is callbacks.Timer else 20)


def test_the_message_names_an_alternative():
    with pytest.raises(ValueError, match=r"StochasticWeightAveraging does not work .*: use callbacks/ema=default"):
        fitted(callbacks.StochasticWeightAveraging(1e-2))
    words = r"EMAWeightAveraging .* every 4 batches .* data.batches_per_step=1 or callbacks/ema="
    with pytest.raises(ValueError, match=words):
        fitted(callbacks.EMAWeightAveraging(), batches_per_step=4)
    with pytest.raises(ValueError, match=r"LearningRateMonitor .* data.batches_per_step=1 or callbacks.monitor"):
        fitted(callbacks.LearningRateMonitor(), batches_per_step=4)


def test_on_the_command_line(cli):
    words = ("logger=csv", "trainer.max_epochs=1", "callbacks.images=null", "model.encoder.hidden=[8]")
    swa = "+callbacks.swa._target_=lightning.pytorch.callbacks.StochasticWeightAveraging"
    code, _out, err, _run = cli(*words, swa, "+callbacks.swa.swa_lrs=0.01")
    assert code == 1
    assert "error: the callback StochasticWeightAveraging does not work with vaezoo's training loop: use callb" in err
    code, _out, err, _run = cli(*words, "+callbacks.table._target_=lightning.pytorch.callbacks.ModelSummary")
    assert code == 0
    assert "Total params" in err


@pytest.mark.filterwarnings("ignore")
def test_the_other_callbacks_do_their_work(tmp_path, caplog):
    """Each callback that is not refused has its effect."""
    unfreeze = Unfreeze()
    model = fitted(unfreeze)[1]
    assert torch.equal(unfreeze.before, unfreeze.after_one)
    assert not torch.equal(unfreeze.after_one, copied(model.encoder))
    assert fitted(made(callbacks.EarlyStopping, None), max_epochs=9)[0].current_epoch == 2
    ends = []
    fitted(callbacks.LambdaCallback(on_train_epoch_end=lambda *_: ends.append(1)))
    assert len(ends) == 2
    rows = fitted(callbacks.LearningRateMonitor("step"))[2]
    rates = [(step, row["lr-Adam"]) for step, row in rows if "lr-Adam" in row]
    assert rates == [(step, 1e-3) for step in range(20)]
    fitted(made(callbacks.ModelCheckpoint, tmp_path))
    assert len(list(tmp_path.glob("*.ckpt"))) == 4
    fitted(callbacks.ModelCheckpoint(tmp_path / "best", monitor="val/elbo", mode="max"), batches_per_step=4)
    assert len(list((tmp_path / "best").glob("*.ckpt"))) == 1
    with caplog.at_level(logging.INFO):
        fitted(callbacks.ModelSummary())
    assert "Total params" in caplog.text
    assert fitted(made(callbacks.Timer, None))[0].global_step < 20
    plain, averaged = (copied(fitted(callback)[1]) for callback in (callbacks.Callback(), Average()))
    assert not torch.equal(plain, averaged)
