"""The training loop: several optimizer steps for each turn of Lightning's."""

import math
import sys
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vaezoo.training.callback_checks import check_callbacks
from vaezoo.training.means import ExampleMean
from vaezoo.types import Batch, BatchChunk, IndexedBatch

ON_NAN = ("stop", "skip")
ADVICE = "try a smaller optimizer.lr, trainer.gradient_clip_val=1 or on_nan=skip"
OptimizerFactory = Callable[[Any], Optimizer]  # from parameters or groups of them
SchedulerFactory = Callable[[Optimizer, int], LRScheduler]


class TrainingLoop(pl.LightningModule):
    """Trains on one ``Batch``, or on a ``BatchChunk`` of them, at each of Lightning's turns.

    What Lightning does around a turn costs as much as a small model's step, so a loader hands over
    several: ``IndexedBatch`` batches, each with its forward and backward pass and its own place in accumulation,
    clipping and schedules. Optimisation is manual in Lightning's sense; ``trainer.accumulate_grad_batches`` and
    ``trainer.gradient_clip_val`` mean what they always do. A callback with a method
    ``on_microbatch_end(trainer, pl_module, part: IndexedBatch)`` has its turn after each batch.

    Args:
        optimizer: makes the optimizer from the parameters; Adam at 1e-3 where none is given.
        scheduler: makes the learning-rate schedule from the optimizer and the number of steps.
        on_nan: where a loss or gradient is not finite, "stop" the training or "skip" the optimizer step.
        compiled: train through ``torch.compile``: some seconds at the start, less in each step.

    Attributes:
        batches_per_epoch: inf where the loader does not say.
        pending: batches whose gradients wait for the optimizer step.
        names: of the last training batch's means, and
        row: these means, (names,).
        last: the last training batch's number in its epoch; -1 before the first.
        epochs: epochs trained, with the fraction of one that was cut short; an int if there is none. An epoch is the
            trainer's, of which ``trainer.limit_train_batches`` may take a part.
        gradient_norm: the last step's, before clipping, 0-dim.
        skipped: steps without an update, for on_nan=skip.
        train_means: over the epoch so far.
    """

    def __init__(
        self,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        on_nan: str = "stop",
        compiled: bool = False,
    ):
        super().__init__()
        if on_nan not in ON_NAN:
            raise ValueError(f"on_nan={on_nan} is not one of {', '.join(ON_NAN)}")
        if not isinstance(compiled, bool):
            raise ValueError(f"compile={compiled} is not true or false")
        self.optimizer = optimizer or partial(Adam, lr=1e-3)
        self.scheduler = scheduler
        self.on_nan, self.compiled = on_nan, compiled
        self.automatic_optimization = False
        # the trainer's accumulation and clipping, while it is checked
        self.saved_trainer_options: tuple[Any, Any] | None = None
        self.loss_function = self.compute_loss
        self.batches_per_epoch: int | float = math.inf
        self.num_accumulated = 0
        self.saved_gradients: list[Tensor | None] = []  # those that wait, in a run that is about to go on
        # loss and examples of each batch of the optimizer step
        self.accumulated_losses: list[tuple[Tensor, Tensor | None]] = []
        self.metric_names: tuple[str, ...] = ()
        self.metric_row = torch.zeros(0)
        self.last_batch_index = -1
        self.epochs: int | float = 0
        self.gradient_norm = torch.zeros(())
        self.skipped_steps = 0
        self.train_means = ExampleMean()
        self.checked_stages: set[str] = set()  # stages whose first batch has been checked

    # What a model defines.

    @abstractmethod
    def on_microbatch_start(self, index: int) -> None:
        """What comes before batch ``number`` of the epoch: its noise, its weights."""

    @abstractmethod
    def compute_loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, tuple[str, ...], Tensor]:
        """The loss of a training batch; names, and the batch's means of them, (names,), without gradient."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimizer is made from."""

    @abstractmethod
    def check_batch(self, batch: Batch) -> None:
        """Raise a ValueError for data that the model cannot take."""

    # From Lightning's turns to batches.

    def configure_callbacks(self) -> list:
        """Refuse callbacks that do not work with this loop, before they do anything. Hide from Lightning's check what
        it refuses in manual optimisation, and we do; ``setup`` gives it back.
        """
        trainer = self.trainer
        if trainer.state.fn == TrainerFn.FITTING:
            check_callbacks(trainer)
            self.saved_trainer_options = trainer.accumulate_grad_batches, trainer.gradient_clip_val
            trainer.accumulate_grad_batches, trainer.gradient_clip_val = 1, None
        return []

    def setup(self, stage: str) -> None:
        self.checked_stages.clear()
        if stage == "fit":
            self.epochs = 0
            # of a training that broke off, or of a checkpoint that was tested
            self.num_accumulated, self.saved_gradients = 0, []
            if self.saved_trainer_options:
                self.trainer.accumulate_grad_batches, self.trainer.gradient_clip_val = self.saved_trainer_options
                self.saved_trainer_options = None

    def on_train_start(self) -> None:
        if self.saved_gradients:  # of a resumed run
            for parameter, gradient in zip(self.parameters(), self.saved_gradients, strict=True):
                parameter.grad = None if gradient is None else gradient.to(parameter.device)
        self.saved_gradients = []
        self.batches_per_epoch = self.count_batches()
        # A graph for each size of batch: one that fits several would round otherwise, and when torch makes it
        # depends on the batches that came before, which a resumed run has not seen.
        self.loss_function = torch.compile(self.compute_loss, dynamic=False) if self.compiled else self.compute_loss

    def count_batches(self) -> int | float:
        """Batches in an epoch; inf where the loader does not say."""
        turns = self.trainer.num_training_batches
        count = getattr(self.trainer.train_dataloader, "num_batches", None)  # of a loader of chunks
        return count(turns) if count else turns

    def teardown(self, stage: str) -> None:
        if stage == "fit":
            self.loss_function = self.compute_loss  # a compiled one could not be pickled

    def check_batch_type(self, batch: Any) -> None:
        """Refuse what is no batch of ours: (x, y) of a plain loader, say."""
        if not isinstance(batch, Batch | BatchChunk):
            raise ValueError(
                f"the loader gives a {type(batch).__name__}, where {type(self).__name__} takes a "
                f"vaezoo.types.Batch: let its data set or its collate_fn return Batch(x, y)"
            )

    def check_first_batch(self, stage: str, batch: Batch) -> None:
        """Check the data of a stage's first batch: to check every batch would slow the training down."""
        if stage not in self.checked_stages:
            self.check_batch(batch)
            self.checked_stages.add(stage)

    def training_step(self, batch: Batch | BatchChunk, batch_idx: int) -> None:
        """Train on one ``Batch``, or on the parts of a ``BatchChunk`` one after another."""
        self.check_batch_type(batch)
        if isinstance(batch, Batch):
            if self.trainer.is_last_batch:
                self.batches_per_epoch = batch_idx + 1  # which a loader of no length has not said
            batch = BatchChunk(iter([IndexedBatch(batch_idx, None, batch)]))
        for part in batch:
            if 0 <= self.trainer.max_steps <= self.trainer.global_step:
                break
            self.train_batch(part)
        if self.device.type != "cpu" and self.on_nan == "stop":
            self.check_finite()  # once a chunk: NaN stays

    def train_batch(self, part: IndexedBatch) -> None:
        """Forward, backward and, where the gradients of enough batches are together, an optimizer step."""
        number, examples, batch = part
        self.check_first_batch("train", batch)
        self.on_microbatch_start(number)
        batch = self.trainer.precision_plugin.convert_input(Batch(*(value.to(self.device) for value in batch)))
        before = [buffer.clone() for buffer in self.buffers()] if self.on_nan == "skip" else []
        loss, self.metric_names, self.metric_row = self.loss_function(batch.x, batch.y)
        is_finite = self.on_nan == "stop" or bool(loss.isfinite() & self.metric_row.isfinite().all())
        if is_finite:
            self.train_means.update({"row": self.metric_row}, len(batch.x))
        self.last_batch_index = number
        done = (number + 1) / self.batches_per_epoch
        self.epochs = self.current_epoch + (1 if done == 1 else done)
        if self.num_accumulated == 0:
            self.accumulated_losses.clear()
        self.accumulated_losses.append((loss.detach(), examples))
        self.num_accumulated += 1
        with torch.autocast(self.device.type, enabled=False):  # it is for the forward pass alone
            accumulate = self.trainer.accumulate_grad_batches
            self.manual_backward(loss / accumulate if accumulate > 1 else loss)
            if self.num_accumulated >= accumulate or number + 1 == self.batches_per_epoch:
                self.step_optimizer()
            elif self.on_nan == "stop" and self.device.type == "cpu":
                self.check_finite()  # now: a codebook would hand it on to the next batch, and to a checkpoint
        if not is_finite:  # codebooks and running means, which the forward pass moves
            for buffer, value in zip(self.buffers(), before, strict=True):
                buffer.copy_(value)
        callbacks: list = self.trainer.callbacks  # type: ignore[attr-defined]  # set by its connector
        for callback in callbacks:
            if on_microbatch_end := getattr(callback, "on_microbatch_end", None):
                on_microbatch_end(self.trainer, self, part)

    def step_optimizer(self) -> None:
        """One optimizer step with the gradients that are there."""
        optimizer: Any = self.optimizers()
        optimizer.step()
        optimizer.zero_grad()
        schedule: Any = self.lr_schedulers()
        if schedule is not None:
            schedule.step()
        self.num_accumulated = 0

    def on_validation_model_zero_grad(self) -> None:
        """Lightning's, which knows of no gradients that wait for their optimizer step."""
        if not self.num_accumulated:
            super().on_validation_model_zero_grad()

    @property
    def last_metrics(self) -> dict[str, Tensor]:
        """The last training batch's means, 0-dim; none before the first, though a resumed run knows the names."""
        return dict(zip(self.metric_names, self.metric_row, strict=False))

    # What is not finite, and what is too large.

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Look at the gradients, all of them together and unscaled, and clip them."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self.gradient_norm = torch.nn.utils.get_total_norm(gradients)
        if self.on_nan == "stop":
            if self.device.type == "cpu":
                self.check_finite()
        elif not self.is_finite():
            self.skipped_steps += 1
            print(self.describe_divergence("skipped"), file=sys.stderr, flush=True)
            optimizer.zero_grad()  # the optimizer leaves alone what has no gradient
        self.configure_gradient_clipping(
            optimizer, self.trainer.gradient_clip_val, self.trainer.gradient_clip_algorithm
        )

    def check_finite(self) -> None:
        """Stop the training where a loss or gradient of the last optimizer step is not finite."""
        if not self.is_finite():
            raise ValueError(f"training diverged: {self.describe_divergence(ADVICE)}")

    @property
    def uses_grad_scaler(self) -> bool:
        """Whether a gradient scaler is at work (fp16): it leaves out the steps that overflow, by itself."""
        return getattr(self.trainer.precision_plugin, "scaler", None) is not None

    def is_finite(self) -> bool:
        """Whether the last optimizer step's losses and gradients are numbers: on a GPU, this waits for it."""
        total = sum((loss for loss, _ in self.accumulated_losses), self.gradient_norm)
        return self.uses_grad_scaler or bool(torch.isfinite(total))

    def describe_divergence(self, then: str) -> str:
        """What was not finite, in which step, on which examples: those of the batches at fault, if the loss tells."""
        broken = [name for name, p in self.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        # the first one may have broken those after it
        batches = [batch for batch in self.accumulated_losses if not batch[0].isfinite()][:1]
        what = "the loss" if batches or not broken else f"the gradient of {broken[0]}"
        batches = batches or self.accumulated_losses
        seen = [i for _, examples in batches if examples is not None for i in examples.tolist()]
        where = f" (training examples {', '.join(map(str, seen))})" if seen else ""
        step, loss = self.trainer.global_step, float(batches[0][0])
        return f"{what} is not finite in step {step} (loss {loss:.6g}): {then}{where}"

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each group of parameters by itself, the model's and the objective's own, and with a fused
        optimizer in bf16 too: Lightning refuses that for the sake of a gradient scaler, which bf16 has not.
        (With a scaler, in fp16, Lightning clips them all together.)
        """
        if gradient_clip_val and not self.uses_grad_scaler:
            by_value = gradient_clip_algorithm == "value"
            clip = torch.nn.utils.clip_grad_value_ if by_value else torch.nn.utils.clip_grad_norm_
            for group in optimizer.param_groups:
                clip(group["params"], gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> Any:
        try:
            optimizer = self.optimizer(self.parameter_groups())
        except ValueError as error:
            raise ValueError(f"optimizer: {error}") from error
        if self.scheduler is None:
            return optimizer
        trainer = self.trainer
        trainer.fit_loop.setup_data()
        whole = -(-self.count_batches() // trainer.accumulate_grad_batches) * (trainer.max_epochs or 0)
        steps = min((limit for limit in (trainer.max_steps, whole) if limit > 0), default=math.inf)
        if steps == math.inf:
            raise ValueError("a learning-rate schedule needs an end: set trainer.max_epochs or trainer.max_steps")
        schedule = {"scheduler": self.scheduler(optimizer, int(steps)), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    # What a run needs to go on amid an epoch, beside what Lightning keeps.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vaezoo_state"] = {
            "skipped": self.skipped_steps,
            "epochs": self.epochs,
            "names": list(self.metric_names),
            "train_means": self.train_means.snapshot(),
            "pending": self.num_accumulated,
            "gradients": [p.grad for p in self.parameters()] if self.num_accumulated else [],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["vaezoo_state"]
        self.skipped_steps, self.metric_names = state["skipped"], tuple(state["names"])
        self.epochs = state.get("epochs", checkpoint.get("epoch", 0))  # older checkpoints count whole ones
        # The sums are over all processes: the first one has them, the others know of them, for all will add them up.
        sums = state["train_means"]
        self.train_means.restore(sums if self.global_rank == 0 else {name: 0 * value for name, value in sums.items()})
        self.num_accumulated, self.saved_gradients = state["pending"], state["gradients"]
