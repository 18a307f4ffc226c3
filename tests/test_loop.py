"""The training loop equals one written by hand: the same weights to the bit, for any size of chunk."""

import copy
import pickle
from contextlib import contextmanager, suppress
from functools import partial
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from conftest import RandomImages
from lightning.pytorch.plugins import MixedPrecision
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from vaezoo import seeding
from vaezoo.callbacks.checkpoints import Best, Last
from vaezoo.callbacks.ema import EMA
from vaezoo.callbacks.monitor import Monitor
from vaezoo.models import VAE, FactorVAE
from vaezoo.training.schedulers import cosine

FACTOR_VAE = partial(FactorVAE, gamma=10.0, critic_lr=1e-4, critic_hidden=[8])
SGD = partial(torch.optim.SGD, lr=1e-3)  # Adam forgives a gradient that is wrong by a factor


def make(model=VAE, **kwargs):
    torch.manual_seed(3)
    return model((1, 5, 4), latent_dim=2, seed=3, **{"optimizer": SGD, **kwargs})


def data(batches_per_step=1, num=127, **kwargs):
    """11 training batches in an epoch, the last one of 7 examples."""
    return RandomImages((1, 5, 4), num=num, batch_size=10, seed=3, batches_per_step=batches_per_step, **kwargs)


def trainer(*callbacks, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
             "enable_checkpointing": any(isinstance(c, Best | Last) for c in callbacks)}  # fmt: skip
    return pl.Trainer(accelerator="cpu", callbacks=list(callbacks), **{"max_epochs": 2, **quiet, **settings})


def weights(model):
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


@contextmanager
def torch_default(dtype):
    """Set torch's default dtype: with precision=64-true, Lightning draws the noise in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def by_hand(model, accumulate=1, clip=None, by_value=False, precision=None, batches=11, epochs=2, steps=10**9):
    """Train by hand: the weights, the learning rate of each step and each epoch's mean ELBO over its examples."""
    source = data()
    source.setup()
    model.objective.set_num_train(source.num_train)
    model.decoder.init_mean(source.mean)
    model.started.fill_(1)
    if precision == "double":
        model.double()
    groups = [{"params": [p for p in model.parameters() if all(p is not q for q in model.objective.parameters())]}]
    if own := list(model.objective.parameters()):
        groups.append({"params": own, **model.objective.optimizer_settings})
    optimizer = model.optimizer(groups)
    total = min(steps, epochs * -(-batches // accumulate))
    schedule = model.scheduler(optimizer, total) if model.scheduler else None
    rates, elbos, waiting = [], [], 0
    model.train()
    for epoch in range(epochs):
        pass_ = source.train_dataloader().batches
        pass_.epoch = lambda epoch=epoch: epoch
        seen = []
        for number, (x, y) in zip(range(batches), pass_, strict=False):
            x = x.to(next(model.parameters()).dtype)
            if len(rates) == steps:
                break
            seeding.reseed(torch.device("cpu"), 3, "train", epoch, number, 0)
            default = torch_default(next(model.parameters()).dtype)
            with default, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                trace = model(x, y)
                loss = model.objective(trace)["loss"]
            seen.append(trace.elbo.detach().double())
            (loss / accumulate).backward()
            waiting += 1
            if waiting == accumulate or number + 1 == batches:
                for group in optimizer.param_groups if clip else ():
                    (clip_grad_value_ if by_value else clip_grad_norm_)(group["params"], clip)
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                optimizer.zero_grad()
                if schedule:
                    schedule.step()
                waiting = 0
        elbos.append(float(torch.cat(seen).mean()))
    return weights(model), rates, elbos


class Steps(pl.Callback):
    """Records the learning rate of each optimizer step, and the index of the batch before it."""

    def __init__(self):
        self.rates, self.numbers = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.numbers.append(pl_module.last_batch_index)


class Save(pl.Callback):
    """Saves a checkpoint after a batch."""

    def __init__(self, path, number):
        self.path, self.number = path, number

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == self.number:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("chunk", [1, 4, 8, 11])
@pytest.mark.parametrize(
    ("hand", "settings", "model"),
    [
        ({}, {}, {}),
        ({"accumulate": 4}, {"accumulate_grad_batches": 4}, {}),
        ({"clip": 0.5}, {"gradient_clip_val": 0.5}, {}),
        ({"clip": 1e-2, "by_value": True}, {"gradient_clip_val": 1e-2, "gradient_clip_algorithm": "value"}, {}),
        ({"accumulate": 3, "clip": 9.0}, {"accumulate_grad_batches": 3, "gradient_clip_val": 9.0}, {}),
        ({"precision": "bf16"}, {"precision": "bf16-mixed"}, {}),
        ({"precision": "double"}, {"precision": "64-true"}, {}),
        ({"accumulate": 4}, {"accumulate_grad_batches": 4}, {"scheduler": cosine}),
        ({"steps": 17}, {"max_steps": 17}, {"scheduler": cosine}),
        ({"batches": 7, "accumulate": 2}, {"limit_train_batches": 7, "accumulate_grad_batches": 2},
         {"scheduler": cosine}),
        ({"clip": 0.5}, {"gradient_clip_val": 0.5}, {"model": FACTOR_VAE}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else str(value),
)  # fmt: skip
def test_the_loop_equals_one_written_by_hand(hand, settings, model, chunk):
    expected, rates, elbos = by_hand(make(**model), **hand)
    fitted, seen = make(**model), Steps()
    fit = trainer(seen, **settings)
    fit.fit(fitted, data(chunk))
    assert torch.equal(weights(fitted), expected)
    assert seen.rates == rates
    assert fit.global_step == len(rates)
    assert fitted.results["train"]["elbo"] == pytest.approx(elbos[-1], rel=1e-7)  # float64 sums, ragged batch and all


def test_averaging_counts_optimizer_steps():
    """The average equals that of Lightning's callback, for chunks of any size."""
    results = []
    for chunk in (1, 4):
        model = make()
        trainer(EMA(decay=0.5), accumulate_grad_batches=3).fit(model, data(chunk))
        results.append(weights(model))
    model = make()
    trainer(pl.callbacks.EMAWeightAveraging(decay=0.5, use_buffers=False), accumulate_grad_batches=3).fit(model, data())
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], weights(model))


class Breaks(pl.Callback):
    """Ends the first training after its second step, while gradients are being accumulated."""

    done = False

    def __init__(self, error):
        self.error = error

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 1 and not self.done:
            self.done = True
            if self.error:
                raise self.error
            trainer.should_stop = True


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), None], ids=repr)
def test_a_fit_after_an_interrupted_one(error):
    """The trainer still accumulates and clips, and no gradients of the first fit are left."""
    model = make()
    fit = trainer(Breaks(error), accumulate_grad_batches=4, gradient_clip_val=0.5, max_epochs=1)
    with suppress(RuntimeError, SystemExit):  # the latter is Lightning's for Ctrl-C
        fit.fit(model, data())
    assert (fit.accumulate_grad_batches, fit.gradient_clip_val) == (4, 0.5)
    steps = Steps()
    trainer(steps, accumulate_grad_batches=4, max_epochs=1).fit(model, data())
    assert steps.numbers == [3, 7, 10]


def test_a_test_of_a_checkpoint_leaves_no_gradients(tmp_path):
    """It was saved while gradients were being accumulated; then the model is trained from the start."""
    steps = Steps()
    trainer(Save(tmp_path / "amid.ckpt", 5), accumulate_grad_batches=4, max_epochs=1).fit(make(), data())
    model = make()
    trainer().test(model, data(), ckpt_path=tmp_path / "amid.ckpt", verbose=False)
    trainer(steps, accumulate_grad_batches=4, max_epochs=1).fit(model, data())
    assert steps.numbers == [3, 7, 10]


def test_a_trained_model_can_be_copied_and_pickled():
    model = make()
    trainer(Monitor(), EMA()).fit(model, data())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(weights(other), weights(model))


def test_the_training_data_can_be_read_after_the_training():
    source = data(4)
    trainer(max_epochs=1).fit(make(), source)
    assert sum(len(batch.x) for batch in source.train_dataloader()) == source.num_train


class Iterable(torch.utils.data.IterableDataset):
    """A data set of batches that does not know its length."""

    def __iter__(self):
        source = data()
        source.setup()
        return iter(source.train_dataloader().batches)


def test_a_loader_without_a_length():
    model = make()
    fit = trainer(accumulate_grad_batches=4, max_epochs=1)
    fit.fit(model, torch.utils.data.DataLoader(Iterable(), batch_size=None))
    assert fit.global_step == 3  # 4 + 4 + 3


@pytest.mark.filterwarnings("ignore:.*exists and is not empty.*")
@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize(
    ("epochs", "interrupting", "averaging"),
    [(2, (), ()), (2, (), (EMA,)), (3, (Breaks,), ()), (3, (Breaks,), (EMA,))],
    ids=str,
)
def test_a_run_that_is_resumed_for_longer_equals_a_long_run(tmp_path, epochs, interrupting, averaging, chunk):
    """The first run may end after an epoch or within one (for example by max_time)."""

    def fit(folder, epochs, *callbacks, resume=None):
        model = make()
        callbacks = [*callbacks, *(make_one(decay=0.5) for make_one in averaging), Last(tmp_path / folder)]
        trainer(*callbacks, max_epochs=epochs).fit(model, data(chunk), ckpt_path=resume)
        return weights(model)

    whole = fit("whole", 3)
    fit("short", epochs, *(make_one(None) for make_one in interrupting))
    assert torch.equal(fit("short", 3, resume=tmp_path / "short" / "last.ckpt"), whole)


def test_a_resumed_run_may_accumulate_less(tmp_path):
    """If more batches are accumulated than a step now needs, the step is made at once."""
    trainer(Save(tmp_path / "amid.ckpt", 2), accumulate_grad_batches=4, max_epochs=1).fit(make(), data())
    steps = Steps()
    fit = trainer(steps, accumulate_grad_batches=2, max_epochs=1)
    fit.fit(make(), data(), ckpt_path=tmp_path / "amid.ckpt")
    assert steps.numbers == [3, 5, 7, 9, 10]


def test_a_row_of_a_step_is_logged_once(tmp_path):
    """A run that is resumed during accumulation does not log the last step again with another batch."""
    rows = []

    class Rows(pl.loggers.logger.DummyLogger):
        def log_metrics(self, metrics, step=None):
            rows.extend([step] if "step/elbo" in metrics else [])

    trainer(Save(tmp_path / "amid.ckpt", 4), accumulate_grad_batches=4, max_epochs=1).fit(make(), data())
    fit = trainer(Monitor(), accumulate_grad_batches=4, max_epochs=1, log_every_n_steps=1, logger=Rows())
    fit.fit(make(), data(), ckpt_path=tmp_path / "amid.ckpt")
    assert rows == [1, 2]


def test_an_overflow_in_fp16_does_not_stop_the_training(monkeypatch):
    """The gradient scaler skips the step and lowers its scale, also if the check comes after a chunk."""

    class Elsewhere(VAE):
        """Checks once per chunk, as on a GPU."""

        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            self.check_finite()

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    fit = trainer(plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)], max_epochs=1)
    fit.fit(make(Elsewhere), data())
    assert fit.global_step == 11
    assert scaler.get_scale() < 2.0**40


def test_the_compiled_loss_is_trained(monkeypatch):
    calls = []

    def compile(losses, dynamic):
        assert not dynamic  # a resumed run has not seen the sizes before it
        return lambda x, y: calls.append(len(x)) or losses(x, y)

    monkeypatch.setattr(torch, "compile", compile)
    trainer(max_epochs=1).fit(make(compiled=True), data(4))
    assert calls == [10] * 10 + [7]


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_skipped_step_changes_nothing(tmp_path, accumulate):
    """Neither weights nor the optimizer's state. The number of skipped steps is in the checkpoint."""

    class Broken(VAE):
        def compute_loss(self, x, y):
            loss, metrics = super().compute_loss(x, y)
            return (loss * torch.nan if self.last_batch_index == 4 else loss), metrics  # in the sixth batch

    states = []

    class Before(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            state = optimizer.state[next(iter(optimizer.state))] if optimizer.state else {"step": torch.zeros(())}
            states.append((weights(pl_module), float(state["step"])))

    model = make(Broken, on_nan="skip", optimizer=partial(torch.optim.Adam, lr=1e-3))
    fit = trainer(Before(), Last(tmp_path), accumulate_grad_batches=accumulate, max_epochs=1)
    fit.fit(model, data())
    step = 5 // accumulate
    (before, count), (after, same) = states[step : step + 2]
    assert torch.equal(before, after)
    assert count == same
    assert weights(model).isfinite().all()
    assert model.skipped_steps == 1
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["vaezoo_state"]["skipped"] == 1


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_skipped_batch_changes_no_buffer(accumulate):
    """Changes by the forward pass of a broken batch, such as a codebook's moving average, are undone."""

    class Counting(VAE):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.register_buffer("moving", torch.zeros(()))

        def compute_loss(self, x, y):
            loss, metrics = super().compute_loss(x, y)
            factor = torch.nan if self.last_batch_index == 4 else 1.0  # in the sixth batch
            self.moving += factor
            return loss * factor, metrics

    model = make(Counting, on_nan="skip")
    trainer(accumulate_grad_batches=accumulate, max_epochs=1).fit(model, data())
    assert model.moving == 10  # of 11 batches


def test_a_broken_batch_stops_the_training_at_once():
    """During accumulation too: no other batch and no checkpoint comes in between."""
    seen = []

    class Broken(VAE):
        def compute_loss(self, x, y):
            seen.append(self.last_batch_index + 1)
            loss, metrics = super().compute_loss(x, y)
            return loss * (torch.nan if seen[-1] == 5 else 1.0), metrics  # the second one of the window

    with pytest.raises(ValueError, match="the loss is not finite in step 1 "):
        trainer(accumulate_grad_batches=4, max_epochs=1).fit(make(Broken), data())
    assert seen == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("mode", "kept"), [("max", [1.0, 3.0]), ("min", [1.0, 0.0])])
def test_the_best_checkpoint_is_kept(tmp_path, mode, kept):
    """Of equal ones the first; never one that is not finite."""
    saved = []
    best = Best(tmp_path, "metric", mode)
    for score in [float("nan"), 1.0, float("inf"), float("-inf"), 1.0, 3.0, 0.0]:
        trainer = SimpleNamespace(sanity_checking=False, state=SimpleNamespace(fn="fit"),
                                  callback_metrics={"metric": torch.tensor(score)},
                                  save_checkpoint=lambda path, score=score: saved.append(score))  # fmt: skip
        best.on_validation_end(trainer, None)
    assert saved == kept
    assert best.score == kept[-1]


@pytest.mark.parametrize(
    ("settings", "callbacks", "expected"),
    [
        ({"max_epochs": 2}, [], 2),
        ({"max_steps": 5}, [], 5 / 11),
        ({"max_steps": 22}, [], 2),
        ({"max_steps": 2, "accumulate_grad_batches": 4}, [], 8 / 11),
        ({"limit_train_batches": 4, "max_epochs": 3}, [], 3),
        ({"limit_train_batches": 4, "max_steps": 6}, [], 1.5),
        ({"val_check_interval": 3, "max_epochs": 1}, [], 1),
        ({"max_epochs": 1}, [Breaks(None)], 8 / 11),  # two turns of four batches each
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_epochs_are_counted_with_their_fraction(tmp_path, settings, callbacks, expected):
    """A whole number is an int. A checkpoint holds the number, and a further fit starts at 0."""
    model = make()
    for _ in range(1 if callbacks else 2):
        fit = trainer(Last(tmp_path), *callbacks, **{"max_epochs": -1, **settings})
        fit.fit(model, data(4))
        assert model.epochs == expected
        assert type(model.epochs) is type(expected)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["vaezoo_state"]["epochs"] == expected
