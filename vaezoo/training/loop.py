"""The training loop: from a batch to an optimizer step, and how a training is resumed. Its methods stand
in the order in which they run; validation and test are in ``evaluation_loop.py``.

Lightning does much work around each ``training_step``. For a small model this takes as long as the step itself. So a
data module may pass several batches at once (a ``BatchChunk``), and this loop makes the optimizer steps of all of them
in one ``training_step``. In Lightning's terms this is manual optimization, which leaves more to the model:

==================================  =========  =========================================================================
what                                done by    reason
==================================  =========  =========================================================================
epochs, order of the hooks          Lightning
when to validate, when to stop      Lightning
devices, processes (DDP)            Lightning
autocast, gradient scaler           Lightning
format of checkpoints               Lightning
several batches per training step   this loop  Lightning's work around a step is done once for all of them
device and dtype of a batch         this loop  Lightning converts the argument of ``training_step``, but not the batches
                                               in a ``BatchChunk``
gradient accumulation               this loop  Lightning has none for manual optimization
gradient clipping                   this loop  as above; and each group of parameters by itself, since a critic's
                                               gradient has another scale than the model's
learning-rate schedule              this loop  Lightning does not step it in manual optimization
NaN in losses and gradients         this loop  the message names the examples, and the step can be skipped
seeds of the noise                  this loop  noise is a function of (seed, epoch, batch, process), so that a resumed
                                               training draws the same
means over an epoch                 this loop  sums in float64 that a checkpoint holds (``evaluation_loop``)
resume within an epoch              this loop  Lightning saves the position, but neither the sums of the means nor the
                                               gradients that are being accumulated
==================================  =========  =========================================================================
"""

import math
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, IterableDataset

from vaezoo.objectives import Objective
from vaezoo.training.callback_checks import check_callbacks
from vaezoo.training.evaluation_loop import EvaluationLoop, batch_values
from vaezoo.training.lightning_workarounds import restore_options, unset_accumulation_and_clipping
from vaezoo.training.means import accumulation_dtype
from vaezoo.training.schedulers import SchedulerFactory, check_schedule, make_schedule, takes_total_steps
from vaezoo.types import Batch, BatchChunk, IndexedBatch, to_batch

ON_NAN = ("stop", "skip")
ADVICE = "try a smaller optimizer.lr, trainer.gradient_clip_val=1 or on_nan=skip"
OptimizerFactory = Callable[[Any], Optimizer]  # takes parameters or groups of them


class TrainingLoop(EvaluationLoop):
    """Adds to ``EvaluationLoop``: training on a batch, or on a ``BatchChunk``, in each of Lightning's steps.

    ``trainer.accumulate_grad_batches`` and ``trainer.gradient_clip_val`` have their usual meaning; batches are counted,
    not chunks. After each batch, the loop calls ``on_microbatch_end(trainer, pl_module, item: IndexedBatch)`` of every
    callback that has this method.

    Args:
        objective: computes the loss from a pass.
        seed: seed of all noise in training and evaluation.
        optimizer: makes the optimizer from the parameters; Adam with learning rate 1e-3 if None.
        scheduler: makes the learning-rate schedule from the optimizer and, if it has an argument ``total_steps``, the
            number of optimizer steps. A class of ``torch.optim.lr_scheduler`` without ``total_steps`` counts epochs;
            ``ReduceLROnPlateau`` gets "val/loss" after each validation, or with ``mode="max"`` the ELBO.
        scheduler_interval: "epoch" or "step", to let a schedule without ``total_steps`` count optimizer steps.
        on_nan: if a loss or gradient is not finite, "stop" raises an error and "skip" leaves out the optimizer step.
        compiled: compile the loss with ``torch.compile``; this takes some seconds at the start and makes steps faster.

    Attributes:
        batches_per_epoch: batches in an epoch of training; inf if the loader does not know its length.
        num_accumulated: batches whose gradients are accumulated for the next optimizer step.
        accumulated_losses: loss and example numbers (if known) of each batch of the present optimizer step.
        last_batch_index: index of the last batch in its epoch; -1 before the first one.
        last_metrics: means over the last batch, 0-dim tensors by name; empty before the first batch.
        epochs: trained epochs, a float if the last one is not complete. One epoch has as many batches as
            ``trainer.limit_train_batches`` allows.
        gradient_norm: norm of the last step's gradient before clipping, 0-dim.
        skipped_steps: optimizer steps that ``on_nan="skip"`` has left out.
        schedule_unit: what the learning-rate schedule counts: "step", "epoch" or "validation".
        takes_chunks: data modules read it: other LightningModules get single batches from them.
    """

    takes_chunks = True

    def __init__(
        self,
        objective: Objective,
        seed: int = 0,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        scheduler_interval: str | None = None,
        on_nan: str = "stop",
        compiled: bool = False,
    ):
        super().__init__(objective, seed)
        if on_nan not in ON_NAN:
            raise ValueError(f"on_nan={on_nan} is not one of {', '.join(ON_NAN)}")
        if not isinstance(compiled, bool):
            raise ValueError(f"compile={compiled} is not true or false")
        self.automatic_optimization = False
        self.optimizer = optimizer or partial(Adam, lr=1e-3)
        if scheduler is not None:
            check_schedule(scheduler, scheduler_interval)
        self.scheduler, self.scheduler_interval = scheduler, scheduler_interval
        self.schedule_unit = ""
        self.on_nan, self.compiled = on_nan, compiled
        self.loss_function = self.compute_loss
        self.saved_trainer_options: dict[str, Any] = {}
        self.batches_per_epoch: int | float = math.inf
        self.num_accumulated = 0
        self.restored_gradients: list[Tensor | None] = []  # accumulated before the checkpoint that is resumed from
        self.accumulated_losses: list[tuple[Tensor, Tensor | None]] = []
        self.last_batch_index = -1
        self.last_metrics: dict[str, Tensor] = {}
        self.epochs: int | float = 0
        self.gradient_norm = torch.zeros(())
        self.skipped_steps = 0

    # Before the first step.

    def configure_callbacks(self) -> list:
        """Check the trainer's callbacks before any of them acts.

        This hook is also the last one before Lightning validates the trainer's options.
        """
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_callbacks(self.trainer)
            self.saved_trainer_options = unset_accumulation_and_clipping(self.trainer)
        return []

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            restore_options(self.trainer, self.saved_trainer_options)
            self.epochs = 0
            # An earlier training may have been interrupted, or a checkpoint with gradients may have been tested.
            self.num_accumulated, self.restored_gradients = 0, []

    def configure_optimizers(self) -> Any:
        try:
            optimizer = self.optimizer(self.parameter_groups())
        except ValueError as error:
            raise ValueError(f"optimizer: {error}") from error
        if self.scheduler is None:
            return optimizer
        trainer = self.trainer
        _ = trainer.estimated_stepping_batches  # makes the loader, so that its number of batches is known
        steps_per_epoch = -(-self.count_batches() // trainer.accumulate_grad_batches)
        limits = (trainer.max_steps, steps_per_epoch * (trainer.max_epochs or 0))
        num_steps = min((limit for limit in limits if limit > 0), default=math.inf)
        schedule = make_schedule(self.scheduler, optimizer, num_steps)
        unit = "step" if takes_total_steps(self.scheduler) else self.scheduler_interval or "epoch"
        self.schedule_unit = "validation" if isinstance(schedule, ReduceLROnPlateau) else unit
        # Lightning's LearningRateMonitor logs after each step or each epoch.
        interval = "step" if self.schedule_unit == "step" else "epoch"
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": interval}}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the model's parameters and, if there are any, the objective's own ones with their settings."""
        critic = list(self.objective.parameters())
        model = [p for p in self.parameters() if all(p is not q for q in critic)]
        return [{"params": model}, *([{"params": critic, **self.objective.optimizer_settings}] if critic else [])]

    def count_batches(self) -> int | float:
        """Return the number of batches in an epoch; inf if the loader does not know its length."""
        steps = self.trainer.num_training_batches
        num_batches = getattr(self.trainer.train_dataloader, "num_batches", None)  # of a loader of chunks
        return num_batches(steps) if num_batches else steps

    def on_train_start(self) -> None:
        if self.restored_gradients:
            for parameter, gradient in zip(self.parameters(), self.restored_gradients, strict=True):
                parameter.grad = None if gradient is None else gradient.to(parameter.device)
        self.restored_gradients = []
        if self.schedule_unit == "validation" and not self.trainer.enable_validation:
            raise ValueError(
                "scheduler: ReduceLROnPlateau follows the validation, and there is none: give validation data, or "
                "choose another schedule"
            )
        if self.objective.num_train is None:
            self.objective.set_num_train(count_examples(self.trainer.train_dataloader))
        self.batches_per_epoch = self.count_batches()
        # One graph for each batch size. A graph for several sizes rounds differently, and whether torch
        # makes one depends on earlier batches, which a resumed training has not seen.
        self.loss_function = torch.compile(self.compute_loss, dynamic=False) if self.compiled else self.compute_loss

    # A step: Lightning calls ``training_step``.

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Train on one batch (``to_batch``), or on the batches of a ``BatchChunk`` one after another."""
        if not isinstance(batch, BatchChunk):
            if self.trainer.is_last_batch:
                self.batches_per_epoch = batch_idx + 1  # for a loader that does not know its length
            batch = BatchChunk(iter([IndexedBatch(batch_idx, None, to_batch(batch))]))
        for item in batch:
            if 0 <= self.trainer.max_steps <= self.trainer.global_step:
                break
            self.train_batch(item)
        if self.device.type != "cpu" and self.on_nan == "stop":
            self.check_finite()  # once per chunk, because it waits for the GPU; a NaN does not go away in between

    def train_batch(self, item: IndexedBatch) -> None:
        """Compute loss and gradient of a batch and, if enough batches are accumulated, make an optimizer step."""
        index, example_ids, batch = item
        self.check_first_batch("train", batch)
        self.on_microbatch_start(index)
        batch = self.trainer.precision_plugin.convert_input(Batch(*(value.to(self.device) for value in batch)))
        buffers = [buffer.clone() for buffer in self.buffers()] if self.on_nan == "skip" else []
        loss, self.last_metrics = self.loss_function(batch.x, batch.y)
        values = [loss.detach(), *self.last_metrics.values()]
        counts = self.on_nan == "stop" or bool(torch.stack(values).isfinite().all())
        if counts:  # in the means
            self.train_means.update(self.last_metrics, len(batch.x))
        self.last_batch_index = index
        done = (index + 1) / self.batches_per_epoch
        self.epochs = self.current_epoch + (1 if done == 1 else done)
        if self.num_accumulated == 0:
            self.accumulated_losses.clear()
        self.accumulated_losses.append((loss.detach(), example_ids))
        self.num_accumulated += 1
        with self.without_autocast():
            accumulate = self.trainer.accumulate_grad_batches
            self.manual_backward(loss / accumulate if accumulate > 1 else loss)
            if self.num_accumulated >= accumulate or index + 1 == self.batches_per_epoch:
                self.step_optimizer()
            elif self.on_nan == "stop" and self.device.type == "cpu":
                self.check_finite()  # now: a codebook would carry the NaN to the next batch and to a checkpoint
        if not counts:  # codebooks and running means, which the forward pass changes
            for buffer, value in zip(self.buffers(), buffers, strict=True):
                buffer.copy_(value)
        callbacks: list = self.trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it outside the class
        for callback in callbacks:
            if on_microbatch_end := getattr(callback, "on_microbatch_end", None):
                on_microbatch_end(self.trainer, self, item)

    def without_autocast(self) -> Any:
        """Return a context without autocast, which is for the forward pass only. It takes time even if it is off."""
        kind = self.device.type
        return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()

    def on_microbatch_start(self, index: int) -> None:
        """Set the scheduled weights and seed the noise of batch ``index`` of the epoch."""
        self.objective.apply_schedules(self.trainer.global_step)
        self.seed_noise("train", self.current_epoch, index, self.global_rank)

    def compute_loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a training batch, and the batch's means of all values, 0-dim and without gradient."""
        trace = self(x, y)
        terms = self.objective(trace)
        values = batch_values(trace, terms)
        return terms["loss"], {name: v.detach().mean(dtype=accumulation_dtype(v)) for name, v in values.items()}

    def step_optimizer(self) -> None:
        """Make one optimizer step with the accumulated gradients. Lightning calls ``on_before_optimizer_step``."""
        optimizer: Any = self.optimizers()
        optimizer.step()
        self.clear_gradients(optimizer)
        self.advance_schedule("step")
        self.num_accumulated = 0

    def clear_gradients(self, optimizer: Any) -> None:
        """Do what ``optimizer.zero_grad()`` does, without its time for profiling, that of several small operations."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def advance_schedule(self, unit: str) -> None:
        """Advance the learning-rate schedule, if there is one and it counts this unit."""
        if self.scheduler is None or self.schedule_unit != unit:
            return
        schedule: Any = self.lr_schedulers()
        if unit == "validation":
            schedule.step(self.results["val"][self.monitored if schedule.mode == "max" else "loss"])
        else:
            schedule.step()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Compute the norm of all gradients (a gradient scaler has unscaled them), check it and clip the gradients."""
        # ``self.parameters()`` walks over all modules, which takes as long as the norm itself.
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        self.gradient_norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        if self.on_nan == "stop":
            if self.device.type == "cpu":
                self.check_finite()
        elif not self.is_finite():
            self.skipped_steps += 1
            print(self.describe_divergence("skipped"), file=sys.stderr, flush=True)
            self.clear_gradients(optimizer)  # an optimizer does not change a parameter without a gradient
        self.configure_gradient_clipping(
            optimizer, self.trainer.gradient_clip_val, self.trainer.gradient_clip_algorithm
        )

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each group of parameters by itself.

        With a gradient scaler (fp16), Lightning clips all groups together. Without one, Lightning's own clipping would
        refuse a fused optimizer.
        """
        if gradient_clip_val and not self.uses_grad_scaler:
            by_value = gradient_clip_algorithm == "value"
            clip = torch.nn.utils.clip_grad_value_ if by_value else torch.nn.utils.clip_grad_norm_
            for group in optimizer.param_groups:
                clip(group["params"], gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    # NaN and infinity.

    @property
    def uses_grad_scaler(self) -> bool:
        """Return whether a gradient scaler is in use (fp16): it skips the steps that overflow."""
        return getattr(self.trainer.precision_plugin, "scaler", None) is not None

    def is_finite(self) -> bool:
        """Return whether the last step's losses and gradients are finite; always true with a gradient scaler.

        On a GPU this waits for the result.
        """
        total = sum((loss for loss, _ in self.accumulated_losses), self.gradient_norm)
        return self.uses_grad_scaler or math.isfinite(total)

    def check_finite(self) -> None:
        """Raise a ValueError if a loss or the gradient of the last optimizer step is not finite."""
        if not self.is_finite():
            raise ValueError(f"training diverged: {self.describe_divergence(ADVICE)}")

    def describe_divergence(self, action: str) -> str:
        """Say what is not finite, in which step and for which examples, and what to do or what was done.

        If a loss is not finite, the examples are those of the first such batch: it may have broken the ones after it.
        """
        broken = [name for name, p in self.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        batches = [batch for batch in self.accumulated_losses if not batch[0].isfinite()][:1]
        what = "the loss" if batches or not broken else f"the gradient of {broken[0]}"
        batches = batches or self.accumulated_losses
        examples = [i for _, example_ids in batches if example_ids is not None for i in example_ids.tolist()]
        suffix = f" (training examples {', '.join(map(str, examples))})" if examples else ""
        step, loss = self.trainer.global_step, float(batches[0][0])
        return f"{what} is not finite in step {step} (loss {loss:.6g}): {action}{suffix}"

    # Validation within a training.

    def on_validation_model_zero_grad(self) -> None:
        """Keep the gradients that are being accumulated: by default Lightning clears all of them."""
        if not self.num_accumulated:
            super().on_validation_model_zero_grad()

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        name = self.monitored
        value = self.results["val"].get(name, 0.0)
        if self.trainer.state.fn == TrainerFn.FITTING and not math.isfinite(value):
            what = f"val/{name} is {value} in the validation after step {self.trainer.global_step}"
            if self.on_nan == "stop":
                raise ValueError(f"training diverged: {what}: {ADVICE}, and look for NaN in the validation data")
            if self.trainer.is_global_zero:
                message = f"{what}: these weights cannot become the best checkpoint, the training goes on"
                print(message, file=sys.stderr, flush=True)

    def on_validation_end(self) -> None:
        super().on_validation_end()
        # Not before: the checkpoints that callbacks write during a validation are of a training that repeats it.
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self.advance_schedule("validation")

    # The end of an epoch.

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.advance_schedule("epoch")

    # After the training; saving and loading the state.

    def teardown(self, stage: str) -> None:
        if stage == "fit":
            self.loss_function = self.compute_loss  # a compiled function cannot be pickled

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        for state in checkpoint.get("lr_schedulers", []):  # one of torch's has a Counter, which is no plain value
            state.update({name: dict(value) for name, value in state.items() if isinstance(value, Counter)})
        checkpoint["vaezoo_state"] |= {
            "skipped": self.skipped_steps,
            "epochs": self.epochs,
            "pending": self.num_accumulated,
            "gradients": [p.grad for p in self.parameters()] if self.num_accumulated else [],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["vaezoo_state"]
        self.skipped_steps = state["skipped"]
        self.epochs = state.get("epochs", checkpoint.get("epoch", 0))  # older checkpoints count whole epochs only
        self.num_accumulated, self.restored_gradients = state["pending"], state["gradients"]


def count_examples(loader: Any) -> int | None:
    """Return the number of examples of a ``DataLoader``; None if it is another loader, or if its data set has none.

    A ``DataLoader`` with ``batch_size=None`` has a data set of batches, whose examples cannot be counted.
    """
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
        return None
    return None if isinstance(loader.dataset, IterableDataset) else len(loader.dataset)  # type: ignore[arg-type]
