"""The narrow waist: what callbacks, metrics and tasks may use of a model."""

import math
import sys
from abc import abstractmethod
from contextlib import suppress
from math import prod
from typing import Any, Self

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import seeding
from vaezoo.conditional import Conditional
from vaezoo.families import Family
from vaezoo.inference.importance_sampling import estimate_log_marginal
from vaezoo.objectives import Objective
from vaezoo.trace import Trace
from vaezoo.training.eval_mode import evaluating
from vaezoo.training.loop import ADVICE, TrainingLoop
from vaezoo.training.means import ExampleMean, accumulation_dtype
from vaezoo.types import Batch, Shape


class LatentVariableModel(TrainingLoop):
    """q(z | x), p(z), p(x | z) and an objective, as a LightningModule.

    It logs, in nats per example and whatever the objective is, ``{train,val,test}/elbo``,
    ``log_px``, ``kl``, ``loss`` with the objective's own terms, and for validation and test the
    ``kl_dim/*`` of each latent dimension and ``active_units``. Every value is a sum over the examples
    divided by their number.

    All noise of a training step is a function of (seed, epoch, batch, process), that of evaluation one of (seed,
    batch): the same on one process as on several, where these take whole batches in turn.

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
        seed: names the noise of training and evaluation.
        **training: those of ``TrainingLoop``: optimizer, scheduler, on_nan, compiled.
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
        seed: int = 0,
        **training: Any,
    ):
        super().__init__(**training)
        if len(data_shape) == 0 or min(data_shape) < 1:
            raise ValueError(f"data_shape must hold sizes >= 1, got {tuple(data_shape)}")
        self.data_shape = tuple(data_shape)
        self.objective = objective
        self.objective.set_free_bits(free_bits, free_bits_per)
        self.seed = seed
        self.register_buffer("started", torch.zeros((), dtype=torch.long))
        self.config: dict[str, Any] | None = None  # the run's config; a checkpoint carries it
        self.results: dict[str, dict[str, float]] = {}  # each stage's last means, in float64
        self.val_means, self.test_means = ExampleMean(), ExampleMean()

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

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # a checkpoint of a run has its settings in itself
        cls, checkpoint_path: Any, map_location: Any = None, allow_packages: tuple[str, ...] = (), **settings: Any
    ) -> Self:
        """Load a trained model in eval mode, built from its run's own config, as ``vaezoo.load`` does.

        A checkpoint that your own ``Trainer`` wrote holds no config: ``settings`` are then the model's arguments, as
        for any LightningModule.

        Args:
            checkpoint_path: a run folder (its best checkpoint is loaded) or a checkpoint.
            map_location: device to move the model to; the CPU if None.
            allow_packages: packages of your own that the model's config may name.
            **settings: arguments of the model, which must not contradict the checkpoint's config.

        Raises:
            ValueError: the checkpoint is of another class, or a setting contradicts its config.
        """
        from vaezoo.runs.checkpoint import ForeignCheckpoint, find_checkpoint
        from vaezoo.runs.load import load

        path = find_checkpoint(checkpoint_path)
        try:
            model = load(path, allow_packages)
        except ForeignCheckpoint:
            return super().load_from_checkpoint(path, map_location, **{"weights_only": True, **settings})
        if not isinstance(model, cls):
            name = type(model).__name__
            raise ValueError(f"{path} holds a {name}, not a {cls.__name__}: use {name}.load_from_checkpoint")
        config: dict[str, Any] = model.config or {}
        saved = {"seed": config["seed"], **config["model"]}
        for name, value in settings.items():
            if name not in saved:
                raise ValueError(f"{name}={value!r} is not in the config of {path}, which decides: leave it out")
            if (list(value) if isinstance(value, tuple) else value) != saved[name]:
                raise ValueError(
                    f"{name}={value!r} contradicts the config of {path}, {name}={saved[name]!r}: leave it out"
                )
        return model if map_location is None else model.to(map_location)

    @property
    def likelihood(self) -> Family:
        """The family of p(x | z): it knows which data it can score."""
        return self.decoder.family

    def log_marginal(
        self, x: Tensor, context: Tensor | None = None, num_samples: int = 1000, **settings: Any
    ) -> Tensor:
        """The importance-weighted lower bound of log p(x), in nats, (B,), float64.

        ``log 1/K sum_k p(x, z_k) / q(z_k | x)`` with z_k ~ q (Burda et al. 2016,
        https://arxiv.org/abs/1509.00519, eq. 8): rises to log p(x) with K. ``estimate`` gives the
        errors too, and says what a call can set.

        Args:
            x: (B, *data_shape), of the kind the likelihood scores.
            num_samples: K.
            **settings: as ``estimate``.
        """
        return estimate_log_marginal(self, x, context, num_samples, **settings).log_px

    def init_from_data(self, x: Tensor, context: Tensor | None = None) -> None:
        """Adapt what starts from data to training examples x (N, *data_shape): most have nothing that does."""

    def setup(self, stage: str) -> None:
        """Compare the data module, if it is one of ours, with the model, and learn from it the training set's size
        and, once in the model's life, where to start: p(x | z) at the mean training image, and ``start``. Weights
        from a checkpoint come after this. Then pass two examples, so that parts that do not go together say so before
        the first step.
        """
        super().setup(stage)
        data: Any = getattr(self.trainer, "datamodule", None)
        self.objective.set_num_train(getattr(data, "num_train", None))
        if self.objective.num_train is None:
            return
        self.check_data_kind(data)
        if tuple(data.shape) != self.data_shape:
            raise ValueError(f"data_shape is {self.data_shape}, but {type(data).__name__}'s images are {data.shape}")
        if stage != "fit":
            return
        x, y = (part.to(self.device) for part in data.examples(2 if self.started else 1000))
        with seeding.isolated(self.device, self.seed, "start"):
            if not self.started:
                self.decoder.init_mean(data.mean)
                self.init_from_data(x, y)
                self.started.fill_(1)
            with evaluating(self):
                self.objective(self(x[:2].type(self.dtype), y[:2]))

    def check_data_kind(self, data: Any) -> None:
        """Raise a ValueError if the likelihood cannot score the kind of data that an ``ImageData`` makes."""
        scores = self.likelihood.supported_data
        if data.data_kind not in scores:
            fix = "data.binarize=dynamic" if "binary" in scores else "data.binarize=none"
            raise ValueError(
                f"the likelihood {type(self.likelihood).__name__} scores {' or '.join(sorted(scores))} "
                f"data, but data.binarize={data.binarize} makes them {data.data_kind}: "
                f"use {fix} or another model/likelihood"
            )

    def check_batch(self, batch: Batch) -> None:
        """Raise a ValueError if a batch does not have the shape and the kind of data that the model takes."""
        x, y = batch
        for name, value in {"x": x, "y": y}.items():
            if not isinstance(value, Tensor):
                raise ValueError(
                    f"{name} of Batch(x, y) is a {type(value).__name__}: give a tensor"
                    + ", torch.zeros(len(x)) if there are no labels" * (name == "y")
                )
        if x.shape[1:] != self.data_shape or y.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"Batch(x, y) has the shapes {tuple(x.shape)} and {tuple(y.shape)}: data_shape={self.data_shape} takes "
                f"x of shape {('B', *self.data_shape)} and y of shape (B, ...)".replace("'", "")
            )
        # NaN and infinity are not refused here: they make the loss NaN, and on_nan says what happens then.
        self.likelihood.check(x.where(x.isfinite(), 0))
        self.check_labels(y)

    def check_labels(self, labels: Tensor) -> None:
        """Raise a ValueError for labels that the model cannot take; only a conditional model looks at them."""

    def on_fit_start(self) -> None:
        """Refuse a training whose loss or gradient would silently be another one."""
        likelihood, objective = self.likelihood, self.objective
        if self.trainer.world_size > 1 and (likelihood.is_batch_coupled or objective.is_batch_coupled):
            raise ValueError(
                f"{type(self).__name__}'s loss couples the examples of a batch, and each of {self.trainer.world_size} "
                f"processes would see its own alone: use trainer.devices=1"
            )
        if likelihood.is_batch_coupled and objective.uses_gradient_hooks:
            raise ValueError(
                f"{type(objective).__name__} weighs the gradient of each sample by itself, and the likelihood "
                f"{type(likelihood).__name__} couples them: use another model/likelihood"
            )

    def on_microbatch_start(self, index: int) -> None:
        self.objective.apply_schedules(self.trainer.global_step)
        self.seed_noise("train", self.current_epoch, index, self.global_rank)

    def compute_loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, tuple[str, ...], Tensor]:
        trace = self(x, y)
        terms = self.objective(trace)
        values = {"elbo": trace.elbo, "log_px": trace.log_px, "kl": trace.kl.sum(1), **terms}
        means = [value.detach().mean(dtype=accumulation_dtype(value)) for value in values.values()]
        return terms["loss"], tuple(values), torch.stack(means)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.evaluate("val", batch, batch_idx, dataloader_idx)  # the same noise every epoch: what moves is the model

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.evaluate("test", batch, batch_idx, dataloader_idx)

    def evaluate(self, stage: str, batch: Batch, batch_idx: int, dataloader_idx: int) -> None:
        """A step of validation or test, with the noise of its batch, counted over all processes."""
        number = batch_idx * self.trainer.world_size + self.global_rank
        self.seed_noise(stage, number, dataloader_idx)
        self.eval_step(stage, batch)

    def seed_noise(self, *keys: str | int) -> None:
        """Start the default random stream at (seed, *keys)."""
        seeding.reseed(self.device, self.seed, *keys)

    def eval_step(self, stage: str, batch: Batch) -> None:
        """Pass a batch through the model and add it to the stage's means."""
        self.check_batch_type(batch)
        self.check_first_batch(stage, batch)
        trace = self(batch.x, batch.y)
        terms = self.objective(trace)
        size = len(batch.x)
        values = {
            "elbo": trace.elbo,
            "elbo_square": trace.elbo.to(accumulation_dtype(trace.elbo)).square(),
            "log_px": trace.log_px.mean(0),
            "kl": trace.kl.sum(1),
            **{name: term.expand(size) for name, term in terms.items()},
        }
        self.stage_metrics(stage).update(values | self.latent_statistics(trace))

    def stage_metrics(self, stage: str) -> ExampleMean:
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
        for i, mean in enumerate(self.posterior_means(trace)):
            mean = mean.flatten(1).to(accumulation_dtype(mean))  # the variance is a small difference of large sums
            values |= {f"mean{i}": mean, f"square{i}": mean.square()}
        return values

    def posterior_means(self, trace: Trace) -> list[Tensor]:
        """The posterior mean of each stochastic layer, (B, *event), top to bottom; none for a flow, which
        knows no mean.
        """
        with suppress(NotImplementedError):
            return [latent.q.mean for latent in trace.latents]
        return []

    def reduce_latent_statistics(self, means: dict[str, Tensor]) -> dict[str, float]:
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
        means = {name: value.cpu() for name, value in self.stage_metrics(stage).values().items()}
        if "row" in means:  # of training
            means |= zip(self.metric_names, means.pop("row"), strict=True)
        values = {name: float(value) for name, value in means.items() if value.dim() == 0}
        if "elbo_square" in values:
            variance, num = values.pop("elbo_square") - values["elbo"] ** 2, self.stage_metrics(stage).num
            if num > 1:  # one example has no spread
                values["elbo_error"] = math.sqrt(max(variance, 0.0) / (num - 1))
        values |= self.reduce_latent_statistics(means)
        if self.likelihood.supported_data == {"byte"}:
            values["bits_per_dim"] = -values["elbo"] / (prod(self.data_shape) * math.log(2))
        return values

    def log_stage(self, stage: str) -> None:
        """Log the stage's means and start anew."""
        values = self.results[stage] = self.stage_values(stage)
        self.stage_metrics(stage).reset()
        if not self.trainer.sanity_checking:
            named = {f"{stage}/{name}": value for name, value in values.items()}
            # The means are over all processes already; Lightning's own reduction changes nothing.
            self.log_dict(named, sync_dist=self.trainer.world_size > 1, logger=False)  # for callbacks, in float32
            step = self.trainer.global_step - (stage != "test")  # rows count optimizer steps from 0
            for logger in self.trainer.loggers:
                logger.log_metrics({"epoch": self.current_epoch, **named}, step)

    def on_validation_start(self) -> None:
        if self.trainer.state.fn == TrainerFn.FITTING:  # a resumed run may begin here: the last step's weights
            self.objective.apply_schedules(max(0, self.trainer.global_step - 1))

    def on_test_start(self) -> None:
        self.objective.restore_weights()  # a schedule may have left them anywhere; a test is always the same

    def on_train_epoch_end(self) -> None:
        self.log_stage("train")

    def on_validation_epoch_end(self) -> None:
        self.log_stage("val")
        elbo = self.results["val"].get("elbo", 0.0)
        if self.trainer.state.fn == TrainerFn.FITTING and not math.isfinite(elbo):
            what = f"val/elbo is {elbo} in the validation after step {self.trainer.global_step}"
            if self.on_nan == "stop":
                raise ValueError(f"training diverged: {what}: {ADVICE}, and look for NaN in the validation data")
            if self.trainer.is_global_zero:
                said = f"{what}: it cannot become the best checkpoint, the training goes on"
                print(said, file=sys.stderr, flush=True)

    def on_test_epoch_end(self) -> None:
        self.log_stage("test")

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The model's parameters, and the objective's own, which has settings for them."""
        theirs = list(self.objective.parameters())
        ours = [p for p in self.parameters() if all(p is not q for q in theirs)]
        return [{"params": ours}, *([{"params": theirs, **self.objective.optimizer_settings}] if theirs else [])]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.results = checkpoint["vaezoo_state"]["results"]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["vaezoo_state"]["results"] = self.results
        if self.config is not None:
            checkpoint["vaezoo_config"] = self.config  # vaezoo.load reads it
