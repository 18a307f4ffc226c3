"""A training that is killed and resumed any number of times equals an uninterrupted one, in every step, to the bit."""

import random
import re
import signal
from functools import partial
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from conftest import RandomImages
from torch.optim.lr_scheduler import ExponentialLR, MultiStepLR, ReduceLROnPlateau

from vaezoo.callbacks.anneal import LinearWarmup
from vaezoo.callbacks.checkpoints import Best, Last
from vaezoo.callbacks.early_stopping import EarlyStopping
from vaezoo.callbacks.ema import EMA
from vaezoo.callbacks.progress import Progress
from vaezoo.models import VAE
from vaezoo.runs.signals import Stopped, stop_request
from vaezoo.training.schedulers import cosine, one_cycle


class Killed(BaseException):
    """Acts as a kill -9: nothing is saved that was not on the disk."""


class Recorder(pl.Callback):
    """Records each batch, and dies after one of them or before a validation batch."""

    def __init__(self, record, die_at=None, in_validation=False):
        self.record, self.die_at, self.in_validation = record, die_at, in_validation
        self.count = 0

    def on_microbatch_end(self, trainer, pl_module, part):
        key = (trainer.current_epoch, part.batch_idx)
        row = (float(pl_module.last_metrics["loss"]).hex(), part.example_ids.tolist(), float(part.batch.x.sum()))
        assert self.record.setdefault(key, row) == row
        self.count += 1
        if not self.in_validation and self.count == self.die_at:
            raise Killed

    def on_train_batch_start(self, trainer, *_):
        (last,) = (callback for callback in trainer.callbacks if isinstance(callback, Last))
        last.next_save_time = 0  # save wherever that can be done

    def on_validation_batch_start(self, *_):
        if self.in_validation and self.count >= self.die_at:
            raise Killed


class Recorded(VAE):
    """Records the means of each epoch."""

    def log_stage(self, stage):
        super().log_stage(stage)
        key = (stage, self.current_epoch, self.trainer.global_step)
        assert self.record.setdefault(key, self.results[stage]) == self.results[stage]


def train(
    folder, record, die_at=None, in_validation=False, batches_per_step=3, resume=False, scheduler=cosine, **settings
):
    """Train once. Return None if the training was killed, else weights, number of steps and best score."""
    pl.seed_everything(3, verbose=False)
    model = Recorded((1, 5, 4), latent_dim=2, scheduler=scheduler, seed=3)
    model.record = record
    data = RandomImages((1, 5, 4), num=120, val_size=20, batch_size=10, batches_per_step=batches_per_step, seed=3)
    data.eval_batch_size = 7
    callbacks = [Recorder(record, die_at, in_validation), Best(folder), Last(folder, every_seconds=0)]
    callbacks.append(LinearWarmup("beta", steps=25))
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False,
                         enable_model_summary=False, num_sanity_val_steps=0,
                         callbacks=callbacks, **settings)  # fmt: skip
    last = folder / "last.ckpt"
    try:
        trainer.fit(model, data, ckpt_path=last if resume and last.exists() else None)
    except Killed:
        return None
    return torch.cat([p.detach().flatten() for p in model.parameters()]), trainer.global_step, callbacks[1].score


# A validation never counts as better, so that the learning rate is reduced after each of them.
WORSE_EACH_TIME = partial(ReduceLROnPlateau, mode="max", factor=0.5, patience=0, threshold=1e9, threshold_mode="abs")


@pytest.mark.filterwarnings("ignore:.*exists and is not empty.*")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batches_per_step": 1},
        {"batches_per_step": 8, "accumulate_grad_batches": 4},
        {"batches_per_step": 3, "accumulate_grad_batches": 4},
        {"precision": "bf16-mixed"},
        {"limit_val_batches": 0},
        {"batches_per_step": 10},
        {"check_val_every_n_epoch": 2},
        {"val_check_interval": 4},
        {"val_check_interval": 3, "accumulate_grad_batches": 4},
        {"max_steps": 17},
        {"scheduler": partial(ExponentialLR, gamma=0.5)},
        {"scheduler": partial(MultiStepLR, milestones=[1, 2])},
        {"scheduler": WORSE_EACH_TIME},
        {"scheduler": WORSE_EACH_TIME, "val_check_interval": 4},
        {"scheduler": one_cycle},
    ],
    ids=lambda settings: re.sub(r" at 0x\w+", "", str(settings)),
)
def test_killed_anywhere(tmp_path, settings):
    record = {}
    whole = train(tmp_path / "whole", record, **settings)
    draw = random.Random(re.sub(r" at 0x\w+", "", str(settings)))
    for turn in range(2):
        folder, resumed = tmp_path / str(turn), {}
        result, kills = None, 0
        while result is None:
            die_at = draw.randint(1, 12) if kills < 12 else None
            result = train(folder, resumed, die_at, draw.random() < 0.3 and die_at, resume=True, **settings)
            kills += 1
        assert resumed == record
        assert torch.equal(result[0], whole[0])
        assert result[1:] == whole[1:]


class DiesAtTheEnd(pl.Callback):
    """Dies at the end of the last epoch, when its last step is saved."""

    def on_train_epoch_end(self, trainer, *_):
        if trainer.global_step == trainer.max_steps:
            raise Killed


def test_killed_after_the_last_step_within_an_epoch(tmp_path):
    """No step is left, but the end of the epoch: its means, the averaged weights, the number of epochs."""

    def attempt(folder, *callbacks, resume=False):
        pl.seed_everything(3, verbose=False)
        model = VAE((1, 5, 4), latent_dim=2, seed=3)
        data = RandomImages((1, 5, 4), num=120, val_size=20, batch_size=10, seed=3)
        callbacks = [*callbacks, EMA(decay=0.5), Last(folder, every_seconds=0), Progress()]
        trainer = pl.Trainer(max_epochs=3, max_steps=17, accelerator="cpu", logger=False, enable_model_summary=False,
                             num_sanity_val_steps=0, callbacks=callbacks)  # fmt: skip
        trainer.fit(model, data, ckpt_path=folder / "last.ckpt" if resume else None)
        return (
            torch.cat([p.detach().flatten() for p in model.parameters()]),
            (trainer.current_epoch, model.epochs),
            model.results,
        )

    whole = attempt(tmp_path / "whole")
    with pytest.raises(Killed):
        attempt(tmp_path / "killed", DiesAtTheEnd())
    for _ in range(2):  # and as often as it is said again
        weights, epochs, results = attempt(tmp_path / "killed", resume=True)
        assert torch.equal(weights, whole[0])
        assert (epochs, results) == whole[1:] == ((2, 1.7), whole[2])  # 17 steps of 10
    assert whole[2]["train"]["elbo"] < 0


def test_a_validation_during_accumulation_changes_nothing(tmp_path):
    """Lightning alone would clear the accumulated gradients."""
    records = {}, {}
    without = train(tmp_path / "without", records[0], accumulate_grad_batches=4)
    within = train(tmp_path / "within", records[1], accumulate_grad_batches=4, val_check_interval=3)
    assert torch.equal(without[0], within[0])


def test_a_resumed_training_may_begin_with_a_validation():
    """There is no last batch then, and a progress bar asks for its metrics."""
    first, later = VAE((1, 5, 4), latent_dim=20), VAE((1, 5, 4), latent_dim=20)
    first.train_means.update({"elbo": torch.tensor(1.0)}, 3)
    checkpoint = {}
    first.on_save_checkpoint(checkpoint)
    later.on_load_checkpoint(checkpoint)
    assert later.last_metrics == {}


def stopping(folder, resume=None, **settings):
    """Train until early stopping, which asks for an improvement of 1e9 nats."""
    model = VAE((1, 5, 4), latent_dim=2)
    data = RandomImages((1, 5, 4), num=120, val_size=20, batch_size=10)
    stop = EarlyStopping("val/elbo", mode="max", patience=2, min_delta=1e9)
    callbacks = [stop, Best(folder), Last(folder)]
    trainer = pl.Trainer(max_epochs=9, accelerator="cpu", logger=False, enable_progress_bar=False,
                         enable_model_summary=False, callbacks=callbacks, **settings)  # fmt: skip
    trainer.fit(model, data, ckpt_path=resume)
    return trainer, stop


@pytest.mark.filterwarnings("ignore:.*exists and is not empty.*")
def test_a_training_that_was_stopped_early_stays_stopped(tmp_path):
    """A run that is killed after the training, for example in the test, does not train longer."""
    trainer, _ = stopping(tmp_path)
    assert trainer.current_epoch == 3
    again, _ = stopping(tmp_path, tmp_path / "last.ckpt")
    assert (again.current_epoch, again.global_step) == (3, trainer.global_step)


@pytest.mark.filterwarnings("ignore:.*exists and is not empty.*")
def test_a_repeated_validation_counts_once(tmp_path):
    """best.ckpt is written during a validation, and a run that is resumed from it repeats this validation."""
    trainer, _ = stopping(tmp_path, check_val_every_n_epoch=2)
    assert trainer.current_epoch == 6
    states = [torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["callbacks"] for name in ("best", "last")]
    steps = [torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["global_step"] for name in ("best", "last")]
    key = next(key for key in states[0] if key.startswith("EarlyStopping"))
    validations = [step // 20 for step in steps]  # two epochs of ten steps each
    assert states[0][key]["wait_count"] == max(0, validations[0] - 2)
    assert states[1][key]["wait_count"] == 2


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_the_examples_of_a_loss_that_is_not_finite(tmp_path, what):
    """For a loss, the message names the examples of its batch; for a gradient, those of all batches of the step."""

    class Broken(VAE):
        def compute_loss(self, x, y):
            loss, metrics = super().compute_loss(x, y)
            if self.last_batch_index == 4:  # in the sixth batch
                return loss * torch.inf if what == "loss" else 0 * loss + (0 * loss).abs().sqrt(), metrics
            return loss, metrics

    model = Broken((1, 5, 4), latent_dim=2)
    data = RandomImages((1, 5, 4), num=120, val_size=20, batch_size=10, batches_per_step=8)
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
                         enable_checkpointing=False, enable_model_summary=False, accumulate_grad_batches=4)  # fmt: skip
    with pytest.raises(ValueError, match=f"the {what}.* is not finite in step 1 .* .*training examples") as error:
        trainer.fit(model, data)
    named = [int(i) for i in re.findall(r"examples ([0-9, ]*)", str(error.value))[0].split(",")]
    order = data.train_dataloader().batches.order(0).split(10)
    at_fault = order[5:6] if what == "loss" else order[4:8]
    assert named == torch.cat(at_fault).tolist()


@pytest.mark.parametrize("stage", ["validation", "test"])
def test_a_signal_stops_an_evaluation_after_its_batch(tmp_path, monkeypatch, stage):
    trainer = SimpleNamespace(strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision))
    end = getattr(Last(tmp_path), f"on_{stage}_batch_end")
    end(trainer)
    monkeypatch.setattr(stop_request, "signum", signal.SIGTERM)
    with pytest.raises(Stopped):
        end(trainer)


@pytest.mark.parametrize("rank", [0, 1])
def test_every_process_restores_the_names_of_the_means(rank, monkeypatch):
    """Otherwise the first process would wait forever for the others to join the sum."""
    first, later = VAE((1, 5, 4), latent_dim=20), VAE((1, 5, 4), latent_dim=20)
    first.train_means.update({"elbo": torch.tensor(1.0), "kl": torch.tensor(2.0)}, 3)
    checkpoint = {}
    first.on_save_checkpoint(checkpoint)
    monkeypatch.setattr(VAE, "global_rank", rank)
    later.on_load_checkpoint(checkpoint)
    assert list(later.train_means.shapes) == ["elbo", "kl"]
    assert later.train_means.sums.tolist() == ([0.0, 0.0] if rank else [3.0, 6.0])
    assert later.train_means.count == (0 if rank else 3)
