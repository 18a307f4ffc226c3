"""A training that is killed and resumed, any number of times, is the one that was not: every step, to the bit."""

import random

import lightning.pytorch as pl
import pytest
import torch
from conftest import RandomImages

from vaezoo.callbacks.checkpoints import Best, Last
from vaezoo.models import VAE
from vaezoo.schedulers import cosine


class Killed(BaseException):
    """In place of a kill -9: nothing is saved that was not on the disk."""


class Recorder(pl.Callback):
    """Writes down each batch, and dies at one of them, or before a validation batch."""

    def __init__(self, record, die_at=None, in_validation=False):
        self.record, self.die_at, self.in_validation = record, die_at, in_validation
        self.count = 0

    def on_train_start(self, trainer, pl_module):
        def note(number, index, batch):
            key = (trainer.current_epoch, number)
            row = (float(pl_module.latest["loss"]).hex(), index.tolist(), float(batch.x.sum()))
            assert self.record.setdefault(key, row) == row
            self.count += 1
            if not self.in_validation and self.count == self.die_at:
                raise Killed

        pl_module.batch_hooks.append(note)

    def on_validation_batch_start(self, *_):
        if self.in_validation and self.count >= self.die_at:
            raise Killed


class Recorded(VAE):
    """Writes down the means of each epoch, too."""

    def log_stage(self, stage):
        super().log_stage(stage)
        key = (stage, self.current_epoch, self.trainer.global_step)
        assert self.record.setdefault(key, self.results[stage]) == self.results[stage]


def train(folder, record, die_at=None, in_validation=False, chunk=3, resume=False, **settings):
    """One attempt; whether it came to its end."""
    pl.seed_everything(3, verbose=False)
    model = Recorded((1, 5, 4), latent_dim=2, scheduler=cosine, seed=3)
    model.record = record
    data = RandomImages((1, 5, 4), num=120, val_size=20, batch_size=10, eval_batch_size=7, chunk=chunk, seed=3)
    callbacks = [Recorder(record, die_at, in_validation), Best(folder), Last(folder, every_seconds=0)]
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False,
                         enable_model_summary=False, num_sanity_val_steps=0,
                         callbacks=callbacks, **settings)  # fmt: skip
    last = folder / "last.ckpt"
    try:
        trainer.fit(model, data, ckpt_path=last if resume and last.exists() else None)
    except Killed:
        return None
    return torch.cat([p.detach().flatten() for p in model.parameters()]), trainer.global_step, callbacks[1].score


@pytest.mark.filterwarnings("ignore:.*exists and is not empty.*")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"chunk": 1},
        {"chunk": 8, "accumulate_grad_batches": 4},
        {"chunk": 3, "accumulate_grad_batches": 4},
        {"precision": "bf16-mixed"},
        {"limit_val_batches": 0},
        {"chunk": 10},
        {"check_val_every_n_epoch": 2},
        {"val_check_interval": 4},
        {"max_steps": 17},
    ],
    ids=str,
)
def test_killed_anywhere(tmp_path, settings):
    record = {}
    whole = train(tmp_path / "whole", record, **settings)
    draw = random.Random(str(settings))
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
