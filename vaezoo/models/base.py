"""The narrow waist: what callbacks, metrics and tasks may use of a model."""

import math
import sys
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import prod
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.distributions import Distribution
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vaezoo import evidence, seeding
from vaezoo.conditional import Conditional, Shape
from vaezoo.evidence import evaluating
from vaezoo.families import Family
from vaezoo.metrics.mean import ExampleMean, wide
from vaezoo.objectives import Objective
from vaezoo.trace import Trace

ON_NAN = ("stop", "skip")
OptimizerFactory = Callable[[Any], Optimizer]  # from parameters or groups of them
SchedulerFactory = Callable[[Optimizer, int], LRScheduler]


class Batch(NamedTuple):
    """What a data module hands over: images (B, C, H, W) as floats, and labels (B,) or factors (B, F)."""

    x: Tensor
    y: Tensor


class LatentVariableModel(pl.LightningModule):
    """q(z | x), p(z), p(x | z) and an objective, as a LightningModule.

    It logs, in nats per example and whatever the objective is, ``{train,val,test}/elbo``,
    ``log_px``, ``kl``, ``loss`` with the objective's own terms, and for validation and test the
    ``kl_dim/*`` of each latent dimension and ``active_units``. Every value is a sum over the examples
    divided by their number.

    All noise of a step is a function of (seed, epoch, batch, process).

    Attributes:
        latent_shape: shape of one z, and
        decoder: p(x | z): both set by the paper's class.
        conditional: whether p(x | z) and the bound are given the context.
        started: 1 once the parts that start from data have; a checkpoint holds it.

    Args:
        data_shape: shape of one example, (C, H, W).
        objective: what is minimised.
        free_bits: nats that the objective does not charge for,
        free_bits_per: for each latent "dim" (the batch's mean KL of each), or for each "layer".
        optimizer: makes the optimizer from the parameters; Adam at 1e-3 where none is given.
        scheduler: makes the learning-rate schedule from the optimizer and the number of steps.
        seed: names the noise of training and evaluation.
        on_nan: where a loss or gradient is not finite, "stop" the training or "skip" the optimizer step.
        compiled: train through ``torch.compile``: some seconds at the start, less in each step.
    """

    latent_shape: tuple[int, ...]
    decoder: Conditional
    objective: Objective
    conditional: bool = False
    started: Tensor

    def __init__(
        self,
        data_shape: Shape,
        objective: Objective,
        free_bits: float = 0.0,
        free_bits_per: str = "dim",
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        seed: int = 0,
        on_nan: str = "stop",
        compiled: bool = False,
    ):
        super().__init__()
        if on_nan not in ON_NAN:
            raise ValueError(f"on_nan={on_nan} is not one of {', '.join(ON_NAN)}")
        if len(data_shape) == 0 or min(data_shape) < 1:
            raise ValueError(f"data_shape must hold sizes >= 1, got {tuple(data_shape)}")
        self.data_shape = tuple(data_shape)
        self.objective = objective
        self.objective.set_free_bits(free_bits, free_bits_per)
        self.optimizer = optimizer or partial(Adam, lr=1e-3)
        self.scheduler = scheduler
        self.seed = seed
        self.on_nan, self.compiled = on_nan, compiled
        self.register_buffer("started", torch.zeros((), dtype=torch.long))
        self.automatic_optimization = False  # a step of Lightning's is several of ours
        self.taken: tuple[Any, Any] | None = None  # the trainer's accumulation and clipping, while it is checked
        self.pending = 0  # batches whose gradients wait for the optimizer step
        self.gradients: list[Tensor | None] = []  # and those gradients, in a run that is about to go on
        self.batches_per_epoch: int | float = 0
        self.compute = self.losses
        self.batch_hooks: list[Callable[[int, Tensor | None, Batch], None]] = []  # called after each batch
        self.config: dict[str, Any] | None = None  # the run's config; a checkpoint carries it
        self.names: tuple[str, ...] = ()  # of the last training batch's means
        self.row = torch.zeros(0)  # and these means
        self.last_number = -1  # and its number in the epoch
        self.window: list[tuple[Tensor, Tensor | None]] = []  # loss and examples of each batch of the optimizer step
        self.gradient_norm = torch.zeros(())  # the last step's, before clipping
        self.skipped = 0  # steps without an update, for on_nan=skip
        self.results: dict[str, dict[str, float]] = {}  # each stage's last means, in float64
        self.train_means, self.val_means, self.test_means = ExampleMean(), ExampleMean(), ExampleMean()

    # What a paper's class defines.

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None, num_samples: int | None = None) -> Trace:
        """One pass: q(z | x), samples, p(x | z).

        Args:
            x: (B, *data_shape).
            context: labels or whatever else is conditioned on; ignored by models that are not.
            num_samples: K; the model's own where None.
        """

    @abstractmethod
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """A deterministic code of x, (B, *latent_shape): the posterior's mean, or codes."""

    @abstractmethod
    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """p(x | z) for z (*batch, *latent_shape)."""

    @abstractmethod
    def sample(self, num: int, context: Tensor | None = None) -> Distribution:
        """p(x | z) at ``num`` draws z ~ p(z): take its ``.mean`` or ``.sample()``."""

    # What all have.

    @property
    def likelihood(self) -> Family:
        """The family of p(x | z): it knows which data it can score."""
        return self.decoder.family

    def log_marginal(
        self, x: Tensor, context: Tensor | None = None, num_samples: int = 1000, **settings: Any
    ) -> Tensor:
        """The importance-weighted lower bound of log p(x), in nats, (B,), float64.

        ``log 1/K sum_k p(x, z_k) / q(z_k | x)`` with z_k ~ q (Burda et al. 2016,
        https://arxiv.org/abs/1509.00519, eq. 8): rises to log p(x) with K. ``evidence.estimate`` gives the
        errors too, and says what a call can set.

        Args:
            x: (B, *data_shape), of the kind the likelihood scores.
            num_samples: K.
            **settings: as ``evidence.estimate``.
        """
        return evidence.estimate(self, x, context, num_samples, **settings).log_px

    def start(self, x: Tensor, context: Tensor | None = None) -> None:
        """Adapt what starts from data to training examples x (N, *data_shape): most have nothing that does."""

    def setup(self, stage: str) -> None:
        """Learn from the data module, if it is one of ours, the training set's size and, once in the model's
        life, where to start: p(x | z) at the mean training image, and ``start``. Weights from a checkpoint come
        after this. Then pass two examples, so that parts that do not go together say so before the first step.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        self.objective.num_data = getattr(data, "num_train", None)
        if stage == "fit":
            self.batch_hooks.clear()
            self.pending, self.gradients = 0, []  # of a training that broke off, or of a checkpoint that was tested
            if self.taken:
                self.trainer.accumulate_grad_batches, self.trainer.gradient_clip_val = self.taken
                self.taken = None
        if stage != "fit" or self.objective.num_data is None:
            return
        if tuple(data.shape) != self.data_shape:
            raise ValueError(f"data_shape is {self.data_shape}, but {type(data).__name__}'s images are {data.shape}")
        x, y = (part.to(self.device) for part in data.examples(2 if self.started else 1000))
        with seeding.isolated(self.device, self.seed, "start"):
            if not self.started:
                self.decoder.centre(data.mean)
                self.start(x, y)
                self.started.fill_(1)
            with evaluating(self):
                self.objective(self(x[:2].type(self.dtype), y[:2]))

    def on_train_start(self) -> None:
        for parameter, gradient in zip(self.parameters(), self.gradients, strict=False):  # of a resumed run
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        self.gradients = []
        self.batches_per_epoch = self.train_batches()
        self.compute = torch.compile(self.losses) if self.compiled else self.losses

    def train_batches(self) -> int | float:
        """Batches in an epoch; inf where the loader does not say."""
        turns = self.trainer.num_training_batches
        count = getattr(self.trainer.train_dataloader, "num_batches", None)  # of a loader of chunks
        return count(turns) if count else turns

    def on_fit_start(self) -> None:
        """Refuse a training whose loss or gradient would silently be another one."""
        likelihood, objective = self.likelihood, self.objective
        if self.trainer.world_size > 1 and (likelihood.couples_examples or objective.couples_examples):
            raise ValueError(
                f"{type(self).__name__}'s loss couples the examples of a batch, and each of {self.trainer.world_size} "
                f"processes would see its own alone: use trainer.devices=1"
            )
        if likelihood.couples_examples and objective.uses_hooks:
            raise ValueError(
                f"{type(objective).__name__} weighs the gradient of each sample by itself, and the likelihood "
                f"{type(likelihood).__name__} couples them: use another model/likelihood"
            )

    def configure_callbacks(self) -> list:
        """Hide from Lightning's check what it refuses in manual optimisation, and we do; ``setup`` gives it back."""
        trainer = self.trainer
        if trainer.state.fn == TrainerFn.FITTING:
            self.taken = trainer.accumulate_grad_batches, trainer.gradient_clip_val
            trainer.accumulate_grad_batches, trainer.gradient_clip_val = 1, None
        return []

    def teardown(self, stage: str) -> None:
        if stage == "fit":
            self.batch_hooks.clear()  # they hold the trainer, and could not be pickled
            self.compute = self.losses

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Train on one ``Batch``, or on the parts of a ``vaezoo.data.Chunk`` one after another."""
        if isinstance(batch, Batch):
            if self.trainer.is_last_batch:
                self.batches_per_epoch = batch_idx + 1  # which a loader of no length has not said
            batch = [(batch_idx, None, batch)]
        for part in batch:
            if 0 <= self.trainer.max_steps <= self.trainer.global_step:
                break
            self.train_on(*part)
        if self.device.type != "cpu" and self.on_nan == "stop":
            self.check_finite()  # once a chunk: NaN stays

    def train_on(self, number: int, index: Tensor | None, batch: Batch) -> None:
        """Forward, backward and, where the gradients of enough batches are together, an optimizer step.

        Args:
            number: of the batch in its epoch.
            index: the examples in it, (B,), where the loader tells.
            batch: the examples.
        """
        self.objective.advance(self.trainer.global_step)
        self.name_noise("train", self.current_epoch, number)
        batch = self.trainer.precision_plugin.convert_input(Batch(*(part.to(self.device) for part in batch)))
        loss, self.names, self.row = self.compute(batch.x, batch.y)
        if self.on_nan == "stop" or bool(self.row.isfinite().all()):  # what is left out does not count
            self.train_means.update({"row": self.row}, len(batch.x))
        self.last_number = number
        if self.pending == 0:
            self.window.clear()
        self.window.append((loss.detach(), index))
        self.pending += 1
        with torch.autocast(self.device.type, enabled=False):  # it is for the forward pass alone
            accumulate = self.trainer.accumulate_grad_batches
            self.manual_backward(loss / accumulate if accumulate > 1 else loss)
            if self.pending >= accumulate or number + 1 == self.batches_per_epoch:
                self.update()
        for hook in self.batch_hooks:
            hook(number, index, batch)

    def update(self) -> None:
        """One optimizer step with the gradients that are there."""
        optimizer: Any = self.optimizers()
        optimizer.step()
        optimizer.zero_grad()
        schedule: Any = self.lr_schedulers()
        if schedule is not None:
            schedule.step()
        self.pending = 0

    def losses(self, x: Tensor, y: Tensor) -> tuple[Tensor, tuple[str, ...], Tensor]:
        """The loss of a training batch; names, and the batch's means of them, (names,), without gradient."""
        trace = self(x, y)
        terms = self.objective(trace)
        values = {"elbo": trace.elbo, "log_px": trace.log_px, "kl": trace.kl.sum(1), **terms}
        means = [value.detach().mean(dtype=wide(value)) for value in values.values()]
        return terms["loss"], tuple(values), torch.stack(means)

    @property
    def latest(self) -> dict[str, Tensor]:
        """The last training batch's means, 0-dim; none before the first, though a resumed run knows the names."""
        return dict(zip(self.names, self.row, strict=False))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Look at the gradients, all of them together and unscaled, and clip them."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self.gradient_norm = torch.nn.utils.get_total_norm(gradients)
        if self.on_nan == "stop":
            if self.device.type == "cpu":
                self.check_finite()
        elif not self.is_finite():
            self.skipped += 1
            print(f"{self.diverged()}: skipped", file=sys.stderr, flush=True)
            optimizer.zero_grad()  # the optimizer leaves alone what has no gradient
        self.configure_gradient_clipping(
            optimizer, self.trainer.gradient_clip_val, self.trainer.gradient_clip_algorithm
        )

    def check_finite(self) -> None:
        """Stop the training where a loss or gradient of the last optimizer step is not finite."""
        if not self.is_finite():
            raise self.diverged()

    @property
    def scaled(self) -> bool:
        """Whether a gradient scaler is at work (fp16): it leaves out the steps that overflow, by itself."""
        return getattr(self.trainer.precision_plugin, "scaler", None) is not None

    def is_finite(self) -> bool:
        """Whether the last optimizer step's losses and gradients are numbers: on a GPU, this waits for it."""
        return self.scaled or bool(torch.isfinite(sum((loss for loss, _ in self.window), self.gradient_norm)))

    def diverged(self) -> ValueError:
        """What was not finite, in which step, on which examples: those of the batches at fault, if the loss tells."""
        broken = [name for name, p in self.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        batches = [batch for batch in self.window if not batch[0].isfinite()]
        what = "the loss" if batches or not broken else f"the gradient of {broken[0]}"
        batches = batches or self.window
        seen = [i for _, index in batches if index is not None for i in index.tolist()]
        where = f", on the training examples {seen}" if seen else ""
        return ValueError(
            f"training diverged: {what} is not finite in step {self.trainer.global_step} (loss "
            f"{float(batches[0][0]):.6g}): try a smaller optimizer.lr, trainer.gradient_clip_val=1 "
            f"or on_nan=skip{where}"
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.name_noise("val", batch_idx)  # the same noise every epoch: what moves is the model
        self.step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.name_noise("test", batch_idx)
        self.step("test", batch)

    def name_noise(self, *keys: str | int) -> None:
        """Start the default random stream at (seed, *keys, process)."""
        seeding.reseed(self.device, self.seed, *keys, self.global_rank)

    def step(self, stage: str, batch: Batch) -> None:
        """Pass a batch through the model and add it to the stage's means."""
        trace = self(batch.x, batch.y)
        terms = self.objective(trace)
        size = len(batch.x)
        values = {
            "elbo": trace.elbo,
            "log_px": trace.log_px.mean(0),
            "kl": trace.kl.sum(1),
            **{name: term.expand(size) for name, term in terms.items()},
        }
        self.means(stage).update(values | self.latent_statistics(trace))

    def means(self, stage: str) -> ExampleMean:
        """The running means of "train", "val" or "test"."""
        return {"train": self.train_means, "val": self.val_means, "test": self.test_means}[stage]

    def latent_statistics(self, trace: Trace) -> dict[str, Tensor]:
        """What evaluation averages over examples: KL per dimension, and the first two moments of the
        posterior mean, each (B, D), where the model has them.
        """
        values: dict[str, Tensor] = {}
        for i, latent in enumerate(trace.latents):
            if latent.kl_per_dim is not None:
                values[f"kl_dim{i}"] = latent.kl_per_dim.flatten(1)
        for i, mean in enumerate(self.layer_means(trace)):
            mean = mean.flatten(1).to(wide(mean))  # the variance is a small difference of large sums
            values |= {f"mean{i}": mean, f"square{i}": mean.square()}
        return values

    def layer_means(self, trace: Trace) -> list[Tensor]:
        """The posterior mean of each stochastic layer, (B, *event), top to bottom; none for a flow, which
        knows no mean.
        """
        with suppress(NotImplementedError):
            return [latent.q.mean for latent in trace.latents]
        return []

    def latent_summary(self, means: dict[str, Tensor]) -> dict[str, float]:
        """From the means of ``latent_statistics`` to what is logged: ``kl_dim/*``, ``active_units``."""
        values: dict[str, float] = {}
        layers = [name.removeprefix("kl_dim") for name in means if name.startswith("kl_dim")]
        for i in layers:
            prefix = f"kl_dim/{i}." if len(layers) > 1 else "kl_dim/"
            values |= {f"{prefix}{d:03d}": float(nats) for d, nats in enumerate(means[f"kl_dim{i}"])}
        # Burda et al. 2016, section 5.1: Var_x E_q[z_d | x] > 0.01.
        moments = [(means[f"mean{i}"], means[f"square{i}"]) for i in range(len(means)) if f"mean{i}" in means]
        if moments:
            active = [(square - mean.square() > 0.01).sum() for mean, square in moments]
            values["active_units"] = float(sum(active))
        return values

    def stage_values(self, stage: str) -> dict[str, float]:
        """The stage's means since the last reset, by the names they are logged under."""
        means = {name: value.cpu() for name, value in self.means(stage).values().items()}
        if "row" in means:  # of training
            means |= zip(self.names, means.pop("row"), strict=True)
        values = {name: float(value) for name, value in means.items() if value.dim() == 0}
        values |= self.latent_summary(means)
        if self.likelihood.scores == {"byte"}:
            values["bits_per_dim"] = -values["elbo"] / (prod(self.data_shape) * math.log(2))
        return values

    def log_stage(self, stage: str) -> None:
        """Log the stage's means and start anew."""
        values = self.results[stage] = self.stage_values(stage)
        self.means(stage).reset()
        if not self.trainer.sanity_checking:
            named = {f"{stage}/{name}": value for name, value in values.items()}
            # The means are over all processes already; Lightning's own reduction changes nothing.
            self.log_dict(named, sync_dist=self.trainer.world_size > 1, logger=False)  # for callbacks, in float32
            step = self.trainer.global_step - (stage != "test")  # rows count optimizer steps from 0
            for logger in self.trainer.loggers:
                logger.log_metrics({"epoch": self.current_epoch, **named}, step)

    def on_validation_start(self) -> None:
        if self.trainer.state.fn == TrainerFn.FITTING:  # a resumed run may begin here: the last step's weights
            self.objective.advance(max(0, self.trainer.global_step - 1))

    def on_test_start(self) -> None:
        self.objective.restore_weights()  # a schedule may have left them anywhere; a test is always the same

    def on_validation_model_zero_grad(self) -> None:
        """Lightning's, which knows of no gradients that wait for their optimizer step."""
        if not self.pending:
            super().on_validation_model_zero_grad()

    def on_train_epoch_end(self) -> None:
        self.log_stage("train")

    def on_validation_epoch_end(self) -> None:
        self.log_stage("val")

    def on_test_epoch_end(self) -> None:
        self.log_stage("test")

    def configure_optimizers(self) -> Any:
        theirs = list(self.objective.parameters())
        ours = [p for p in self.parameters() if all(p is not q for q in theirs)]
        groups: list[dict[str, Any]] = [{"params": ours}]
        if theirs:
            groups.append({"params": theirs, **self.objective.optimizer_settings})
        try:
            optimizer = self.optimizer(groups)
        except ValueError as error:
            raise ValueError(f"optimizer: {error}") from error
        if self.scheduler is None:
            return optimizer
        trainer = self.trainer
        trainer.fit_loop.setup_data()
        whole = -(-self.train_batches() // trainer.accumulate_grad_batches) * (trainer.max_epochs or 0)
        steps = min((limit for limit in (trainer.max_steps, whole) if limit > 0), default=math.inf)
        if steps == math.inf:
            raise ValueError("a learning-rate schedule needs an end: set trainer.max_epochs or trainer.max_steps")
        schedule = {"scheduler": self.scheduler(optimizer, int(steps)), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the model's gradients and the objective's own, each by themselves, and with a fused
        optimizer in bf16 too: Lightning refuses that for the sake of a gradient scaler, which bf16 has not.
        (With a scaler, in fp16, Lightning clips them all together.)
        """
        if gradient_clip_val and not self.scaled:
            by_value = gradient_clip_algorithm == "value"
            clip = torch.nn.utils.clip_grad_value_ if by_value else torch.nn.utils.clip_grad_norm_
            for group in optimizer.param_groups:
                clip(group["params"], gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["vaezoo_state"]
        self.skipped, self.results, self.names = state["skipped"], state["results"], tuple(state["names"])
        # The sums are over all processes: the first one has them, the others know of them, for all will add them up.
        sums = state["train_means"]
        self.train_means.restore(sums if self.global_rank == 0 else {name: 0 * value for name, value in sums.items()})
        self.pending, self.gradients = state["pending"], state["gradients"]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vaezoo_state"] = {
            "skipped": self.skipped,
            "results": self.results,
            "names": list(self.names),
            "train_means": self.train_means.snapshot(),  # of the epoch so far
            "pending": self.pending,
            "gradients": [p.grad for p in self.parameters()] if self.pending else [],
        }
        if self.config is not None:
            checkpoint["vaezoo_config"] = self.config  # vaezoo.load reads it
