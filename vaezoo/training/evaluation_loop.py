"""Validation and test: their steps, the means over examples of every stage, and what is logged when a stage ends."""

import math
from abc import abstractmethod
from contextlib import suppress
from math import prod
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from vaezoo import seeding
from vaezoo.families import Family
from vaezoo.missing import is_observed, precedes_end
from vaezoo.objectives import Objective
from vaezoo.trace import Trace
from vaezoo.training.lightning_workarounds import hide_loggers
from vaezoo.training.means import ExampleMean, accumulation_dtype
from vaezoo.types import Batch, to_batch


def batch_values(trace: Trace, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the values of a batch that every stage averages and logs.

    Args:
        trace: one pass over B examples with K samples each.
        terms: the objective's scalars.

    Returns:
        ``elbo`` (B,), ``log_px`` (K, B) and ``kl`` (B,), in nats, and each of the terms, (). Without a bound, there is
        no ``elbo`` and no ``kl``. If the samples have weights, ``log_px`` is (B,).
    """
    log_px = trace.log_px if trace.weights is None else trace.expectation(trace.log_px)
    if not trace.has_bound:
        return {"log_px": log_px, **terms}
    return {"elbo": trace.elbo, "log_px": log_px, "kl": trace.kl.sum(1), **terms}


class EvaluationLoop(pl.LightningModule):
    """Adds to ``LightningModule``: the objective, the noise, validation and test, and the means of each stage.

    Every stage ("train", "val" or "test") logs, in nats per example, ``elbo``, ``log_px``, ``kl`` and ``loss`` with the
    objective's own terms. Validation and test also log ``elbo_error`` (the standard error of the ELBO over the
    examples), ``kl_dim/*`` for each latent dimension and ``active_units``; of sentences, ``tokens`` (their mean length
    with ``<end>``), ``nats_per_token`` and ``perplexity_bound``; of sequences of vectors, ``frames`` and
    ``nats_per_frame``. Each value is a sum over examples in float64, divided by their number. (Lightning's
    ``self.log(on_epoch=True)`` averages in float32, and a training that is resumed within an epoch would lose what came
    before.)

    The noise of evaluation is a function of (seed, stage, batch): it is the same in every epoch, so that only the model
    changes, and the same on several processes, which take whole batches in turn.

    Args:
        objective: computes the loss from a pass.
        seed: seed of all noise in training and evaluation.

    Attributes:
        results: the last means of each stage, as they were logged.
        train_means: means over the training epoch so far.
        val_means: means over the validation so far.
        test_means: means over the test so far.
        checked_stages: stages whose first batch has been checked.
        hidden_loggers: the trainer's loggers while Lightning reports a validation or test outside a training.
    """

    def __init__(self, objective: Objective, seed: int = 0):
        super().__init__()
        self.objective = objective
        self.seed = seed
        self.results: dict[str, dict[str, float]] = {}
        self.train_means, self.val_means, self.test_means = ExampleMean(), ExampleMean(), ExampleMean()
        self.checked_stages: set[str] = set()
        self.hidden_loggers: list[Logger] = []

    # What a model defines.

    data_shape: tuple[int, ...]
    data_description: dict[str, Any]  # ``DataModule.describe``
    monitored: str = "elbo"  # name of the value that shows how well the model is trained

    @property
    @abstractmethod
    def likelihood(self) -> Family:
        """The family of p(x | z)."""

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None, num_samples: int | None = None) -> Trace:
        """One pass: q(z | x), samples of it, and p(x | z)."""

    @abstractmethod
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return a code of each example."""

    @abstractmethod
    def check_batch(self, batch: Batch) -> None:
        """Raise a ValueError if the model cannot take a batch of this shape or kind of data."""

    # A stage, from its start to its end.

    def setup(self, stage: str) -> None:
        self.checked_stages.clear()

    def on_validation_start(self) -> None:
        if self.trainer.state.fn == TrainerFn.FITTING:  # a resumed run may begin here: take the last step's weights
            self.objective.apply_schedules(max(0, self.trainer.global_step - 1))

    def on_test_start(self) -> None:
        self.objective.restore_weights()  # a test does not depend on the step at which a schedule stopped

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.seed_noise("val", self.global_batch_index(batch_idx), dataloader_idx)
        self.eval_step("val", batch)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.seed_noise("test", self.global_batch_index(batch_idx), dataloader_idx)
        self.eval_step("test", batch)

    def global_batch_index(self, batch_idx: int) -> int:
        """Return the index of this process's batch among the batches of all processes."""
        return batch_idx * self.trainer.world_size + self.global_rank

    def seed_noise(self, *keys: str | int) -> None:
        """Seed torch's default generators with (seed, *keys)."""
        seeding.reseed(self.device, self.seed, *keys)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the codes of a batch, as ``encode`` does: ``Trainer.predict`` returns a list of them."""
        batch = to_batch(batch)
        self.check_first_batch("predict", batch)
        return self.encode(batch.x, batch.y)

    def eval_step(self, stage: str, batch: Any) -> None:
        """Pass a batch (``to_batch``) through the model and add its values to the means of the stage."""
        batch = to_batch(batch)
        self.check_first_batch(stage, batch)
        trace = self(batch.x, batch.y)
        values = {
            name: (value.mean(0) if value.dim() == 2 else value).expand(len(batch.x))
            for name, value in batch_values(trace, self.objective(trace)).items()
        }
        if self.likelihood.supported_data == {"token"}:
            values["tokens"] = is_observed(batch.x).sum(1).float()
        if "frame_loc" in self.data_description:
            values["frames"] = precedes_end(batch.x).sum(1).float()
        if (value := values.get(self.monitored)) is not None:
            values[f"{self.monitored}_square"] = value.to(accumulation_dtype(value)).square()
        self.stage_metrics(stage).update(values | self.latent_statistics(trace))

    def check_first_batch(self, stage: str, batch: Batch) -> None:
        """Check the first batch of a stage. To check every batch would slow down the training."""
        if stage not in self.checked_stages:
            self.check_batch(batch)
            self.checked_stages.add(stage)

    # Statistics of the latents.

    def posterior_means(self, trace: Trace) -> list[Tensor]:
        """Return the posterior mean of each stochastic layer, (B, *event), top to bottom.

        The list is empty for a flow, whose mean is not known.
        """
        with suppress(NotImplementedError):
            return [latent.q.mean for latent in trace.latents]
        return []

    def latent_statistics(self, trace: Trace) -> dict[str, Tensor]:
        """Return the statistics that evaluation averages over examples, for each stochastic layer i.

        Returns:
            ``kl_dim{i}``, ``mean{i}`` and ``square{i}``, each (B, D): the KL of each dimension, the posterior mean and
            its square. An entry that the model does not have is left out.
        """
        values: dict[str, Tensor] = {}
        for i, latent in enumerate(trace.latents):
            if latent.kl_per_dim is not None:
                values[f"kl_dim{i}"] = latent.kl_per_dim.flatten(1)
        for i, mean in enumerate(self.posterior_means(trace)):
            mean = mean.flatten(1).to(accumulation_dtype(mean))  # the variance is a small difference of large sums
            values |= {f"mean{i}": mean, f"square{i}": mean.square()}
        return values

    def reduce_latent_statistics(self, means: dict[str, Tensor]) -> dict[str, float]:
        """Return ``kl_dim/*`` and ``active_units`` from the means of ``latent_statistics`` over examples.

        A dimension d is active if Var_x E_q[z_d | x] > 0.01 (Burda et al. 2016, https://arxiv.org/abs/1509.00519,
        section 5.1).
        """
        values: dict[str, float] = {}
        layers = [name.removeprefix("kl_dim") for name in means if name.startswith("kl_dim")]
        for i in layers:
            prefix = f"kl_dim/{i}." if len(layers) > 1 else "kl_dim/"
            values |= {f"{prefix}{d:03d}": float(nats) for d, nats in enumerate(means[f"kl_dim{i}"])}
        moments = [(means[f"mean{i}"], means[f"square{i}"]) for i in range(len(means)) if f"mean{i}" in means]
        if moments:
            active = [(square - mean.square() > 0.01).sum() for mean, square in moments]
            values["active_units"] = float(sum(active))
        return values

    # The end of a stage.

    def on_train_epoch_end(self) -> None:
        self.log_stage("train")

    def on_validation_epoch_end(self) -> None:
        self.log_stage("val")

    def on_test_epoch_end(self) -> None:
        self.log_stage("test")

    def log_stage(self, stage: str) -> None:
        """Log the means of a stage and reset them."""
        values = self.results[stage] = self.stage_values(stage)
        self.stage_metrics(stage).reset()
        if not self.trainer.sanity_checking:
            named = {f"{stage}/{name}": value for name, value in values.items()}
            step = self.trainer.global_step - (stage != "test")  # rows count optimizer steps from 0
            for logger in self.trainer.loggers:  # in float64
                logger.log_metrics({"epoch": self.current_epoch, **named}, step)
            if self.trainer.state.fn == TrainerFn.FITTING:  # for callbacks, in float32
                # ``self.log_dict`` does the same, but takes as long as several steps of a small model.
                self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in named.items()})
            else:  # ``Trainer.test`` and ``Trainer.validate`` return and print these, in float64
                exact = {name: torch.tensor(value, dtype=torch.float64) for name, value in named.items()}
                # The means are over all processes already, and equal values stay so when Lightning averages them;
                # without sync_dist it would warn.
                self.log_dict(exact, sync_dist=self.trainer.world_size > 1)
                self.hidden_loggers = hide_loggers(self.trainer)

    def on_validation_end(self) -> None:
        self.show_loggers()

    def on_test_end(self) -> None:
        self.show_loggers()

    def show_loggers(self) -> None:
        """Give the trainer the loggers back that ``log_stage`` has hidden from it."""
        if self.hidden_loggers:
            self.trainer.loggers, self.hidden_loggers = self.hidden_loggers, []

    def stage_metrics(self, stage: str) -> ExampleMean:
        """Return the running means of "train", "val" or "test"."""
        return {"train": self.train_means, "val": self.val_means, "test": self.test_means}[stage]

    def stage_values(self, stage: str) -> dict[str, float]:
        """Return the means of a stage since the last reset, by the names they are logged under."""
        metrics = self.stage_metrics(stage)
        means = {name: value.cpu() for name, value in metrics.values().items()}
        values = {name: float(value) for name, value in means.items() if value.dim() == 0}
        name = self.monitored
        if f"{name}_square" in values:
            variance = values.pop(f"{name}_square") - values[name] ** 2
            if metrics.num > 1:  # one example has no spread
                values[f"{name}_error"] = math.sqrt(max(variance, 0.0) / (metrics.num - 1))
        values |= self.reduce_latent_statistics(means)
        if self.likelihood.supported_data == {"byte"} and "elbo" in values:
            values["bits_per_dim"] = -values["elbo"] / (prod(self.data_shape) * math.log(2))
        if values.get("tokens") and "elbo" in values:
            values["nats_per_token"] = -values["elbo"] / values["tokens"]
            values["perplexity_bound"] = float(torch.tensor(values["nats_per_token"], dtype=torch.float64).exp())
        if values.get("frames") and "elbo" in values:
            values["nats_per_frame"] = values["elbo"] / values["frames"]
        return values

    # Checkpoints. The keys in "vaezoo_state" are those of every version, so that old runs can be resumed.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vaezoo_state"] = {
            "results": self.results,
            "names": list(self.train_means.shapes),
            "train_means": self.train_means.snapshot(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["vaezoo_state"]
        self.results, sums = state["results"], state["train_means"]
        if self.global_rank != 0:
            # The saved sums cover all processes. Process 0 restores them and the others restore zeros, so that the next
            # sum over the processes does not count them twice.
            sums = {name: 0 * value for name, value in sums.items()}
        self.train_means.restore(state["names"], sums)
