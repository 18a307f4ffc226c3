"""The interface of every model: all that callbacks, metrics and tasks may use."""

from abc import abstractmethod
from typing import Any, Self

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import seeding
from vaezoo.conditional import Conditional
from vaezoo.families import Family
from vaezoo.instantiate import Recorded, to_node
from vaezoo.models import checks
from vaezoo.models.inference import inference
from vaezoo.objectives import Objective
from vaezoo.trace import Trace
from vaezoo.training.eval_mode import evaluating
from vaezoo.training.loop import TrainingLoop
from vaezoo.types import Batch, Shape

CAPABILITIES = {
    "elbo": "the evidence lower bound of a pass",
    "kl_per_dim": "KL(q, p) of each latent dimension, logged as kl_dim/*",
    "active_units": "the number of latent dimensions that depend on x, logged as active_units",
    "impute": "missing entries can be drawn from p(missing | z)",
    "compile": "torch.compile makes one graph of the pass from x to the loss",
}


class LatentVariableModel(Recorded, TrainingLoop):
    """q(z | x), p(z), p(x | z) and an objective, as a LightningModule.

    Single inheritance: ``LatentVariableModel`` -> ``TrainingLoop`` (``vaezoo.training.loop``: optimizer steps and
    resume) -> ``EvaluationLoop`` (``vaezoo.training.evaluation_loop``: validation, test, logging) ->
    ``LightningModule``.

    Args:
        data_shape: shape of one example, (C, H, W).
        objective: computes the loss, which is minimized.
        free_bits: KL in nats below which nothing is charged, for each latent dimension or each layer.
        free_bits_per: unit that ``free_bits`` is for: each latent "dim" (its mean KL over the batch) or each "layer".
        seed: seed of all noise in training and evaluation.
        **training: arguments of ``TrainingLoop``: optimizer, scheduler, scheduler_interval, on_nan, compiled.

    Attributes:
        latent_shape: shape of one z; the model's class sets it.
        latent_kind: what one z is: a "vector" of R^D, a "map" of any other shape, a point on the unit "sphere" of R^D,
            a grid of "codes" from a codebook, or the lowest of several "layers".
        decoder: p(x | z); the model's class sets it.
        conditional: whether p(x | z) and the bound depend on a context, such as labels.
        uses_labels: whether labels have a meaning for the model although its bound does not depend on them: it learns
            from those that there are, and ``sample`` takes them.
        num_values: number of values of an enumerated latent, 1 if there is none. The K samples of a pass are a multiple
            of it, with as many of each value.
        has_own_likelihood: whether the model's class sets the likelihood, so that it cannot be chosen.
        started: 1 after the data-dependent initialization; a buffer, so that a checkpoint holds it.
        config: the run's config, which checkpoints carry; None outside a run, where they carry ``own_config``.
        data_description: what the data module says of the data (``DataModule.describe``), which checkpoints carry;
            empty before the first fit.
    """

    latent_shape: tuple[int, ...]
    latent_kind: str = "vector"
    decoder: Conditional
    conditional: bool = False
    uses_labels: bool = False
    num_values: int = 1
    has_own_likelihood: bool = False
    started: Tensor
    # Settings of the training.
    not_recorded = ("seed", "optimizer", "scheduler", "scheduler_interval", "on_nan", "compiled")

    def __init__(
        self,
        data_shape: Shape,
        objective: Objective,
        free_bits: float = 0.0,
        free_bits_per: str = "dim",
        seed: int = 0,
        **training: Any,
    ):
        super().__init__(objective, seed, **training)
        if len(data_shape) == 0 or min(data_shape) < 1:
            raise ValueError(f"data_shape must hold sizes >= 1, got {tuple(data_shape)}")
        self.data_shape = tuple(data_shape)
        self.objective.set_free_bits(free_bits, free_bits_per)
        self.register_buffer("started", torch.zeros((), dtype=torch.long))
        self.config: dict[str, Any] | None = None
        self.data_description: dict[str, Any] = {}

    # What a model's class defines.

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None, num_samples: int | None = None) -> Trace:
        """One pass: q(z | x), samples of it, and p(x | z).

        Args:
            x: data, (B, *data_shape).
            context: labels or whatever else the model is conditioned on, (B, ...); other models ignore it.
            num_samples: K, samples of q for each example; the model's own number if None.
        """

    # A model's class decorates these three with ``inference``: they have no gradients, and take arrays of NumPy.

    @abstractmethod
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return a deterministic code of x, (B, *latent_shape): the posterior mean, or the codebook's vectors."""

    @abstractmethod
    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """Return p(x | z) for z (*batch, *latent_shape)."""

    @abstractmethod
    def sample(self, num: int, context: Tensor | None = None) -> Distribution:
        """Return p(x | z) at ``num`` draws z ~ p(z): take its ``.mean`` or ``.sample()``."""

    def init_from_data(self, x: Tensor, context: Tensor | None = None) -> None:
        """Data-dependent initialization from training examples x (N, *data_shape). Does nothing by default."""

    def check_labels(self, labels: Tensor) -> None:
        """Raise a ValueError for labels that the model cannot take. Only a conditional model looks at them."""

    # What every model has.

    @property
    def limits(self) -> dict[str, str]:
        """The names in ``CAPABILITIES`` that this model lacks, each with the reason."""
        return self.objective.limits

    @property
    def monitored(self) -> str:  # type: ignore[override]  # it depends on the parts
        """Name of the value that shows how well the model is trained: ``elbo``; ``log_px`` if there is no ELBO."""
        return "log_px" if "elbo" in self.limits else "elbo"

    @property
    def likelihood(self) -> Family:
        """The family of p(x | z): it knows which data it can score."""
        return self.decoder.family

    @inference
    def autoencode(self, x: Tensor, context: Tensor | None = None) -> Distribution:
        """Return p(x | z) at the code of x, batch shape (B,), with what the likelihood takes from x itself."""
        return self.likelihood.given(self.decode(self.encode(x, context), context), x)

    @inference
    def reconstruct(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the examples that represent p(x | z) at the code of x, (B, *data_shape).

        They are its means; of tokens and categories the modes.
        """
        px = self.autoencode(x, context)
        return px.mode if self.likelihood.supported_data <= {"token", "categorical"} else px.mean

    @inference
    def log_marginal(
        self, x: Tensor, context: Tensor | None = None, num_samples: int = 1000, **settings: Any
    ) -> Tensor:
        """Return the importance-weighted lower bound of log p(x), in nats, (B,), float64.

        ``log 1/K sum_k p(x, z_k) / q(z_k | x)`` with z_k ~ q (Burda et al. 2016,
        https://arxiv.org/abs/1509.00519, eq. 8) rises to log p(x) with K. ``estimate_log_marginal`` also returns the
        errors.

        Args:
            x: data, (B, *data_shape), of a kind that the likelihood can score.
            context: labels, (B, ...), if the model is conditional.
            num_samples: K.
            **settings: further arguments of ``estimate_log_marginal``.
        """
        from vaezoo.inference.importance_sampling import estimate_log_marginal

        return estimate_log_marginal(self, x, context, num_samples, **settings).log_p

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # a checkpoint of a run has its settings in itself
        cls, checkpoint_path: Any, map_location: Any = None, allow_packages: tuple[str, ...] = (), **settings: Any
    ) -> Self:
        """Load a trained model in eval mode, built from the config in its checkpoint, as ``vaezoo.load`` does.

        A checkpoint holds no config if the model was built from arguments that a config cannot describe, such as a
        function of your own: ``settings`` are then the model's arguments, as for any LightningModule.

        Args:
            checkpoint_path: a run folder (its best checkpoint is loaded) or a checkpoint.
            map_location: device to move the model to; the CPU if None.
            allow_packages: packages of your own that the model's config may name.
            **settings: arguments of the model, which must not contradict the checkpoint's config; and optimizer,
                scheduler, scheduler_interval, on_nan and compiled, if it is not the checkpoint of a run.

        Raises:
            ValueError: the checkpoint is of another class, a setting contradicts its config, or an argument is missing.
        """
        from vaezoo.runs.checkpoint import ForeignCheckpoint, find_checkpoint
        from vaezoo.runs.load import load

        path = find_checkpoint(checkpoint_path)
        try:
            model = load(path, allow_packages, map_location)
        except ForeignCheckpoint as error:
            try:
                return super().load_from_checkpoint(path, map_location, **{"weights_only": True, **settings})
            except TypeError as missing:  # an argument
                raise ValueError(
                    f"{error}, or give the model's arguments, {cls.__name__}.load_from_checkpoint(FILE, data_shape=...)"
                ) from missing
        if not isinstance(model, cls):
            name = type(model).__name__
            raise ValueError(f"{path} holds a {name}, not a {cls.__name__}: use {name}.load_from_checkpoint")
        config: dict[str, Any] = model.config or {}
        saved = {"seed": config["seed"], **config["model"]}
        is_run = "optimizer" in config
        for name, value in settings.items():
            if name in cls.not_recorded and name not in saved and not is_run:
                setattr(model, name, value)
            elif name not in saved:
                raise ValueError(f"{name}={value!r} is not in the config of {path}, which decides: leave it out")
            elif to_node(value, name) != saved[name]:
                raise ValueError(
                    f"{name}={value!r} contradicts the config of {path}, {name}={saved[name]!r}: leave it out"
                )
        return model

    # What happens before the first step.

    def setup(self, stage: str) -> None:
        """Compare the data module with the model, and initialize the model from its data.

        On the first fit, p(x | z) starts at the mean training image, and ``init_from_data`` gets up to 1000 training
        examples. Weights of a checkpoint are loaded after this. Finally, two examples pass the model, so that parts
        that do not go together are found before the first step. A data module without ``num_train`` is not checked.
        """
        super().setup(stage)
        data: Any = getattr(self.trainer, "datamodule", None)
        self.objective.set_num_train(getattr(data, "num_train", None))
        if self.objective.num_train is None:
            return
        checks.check_data_module(self, data)
        checks.check_precision(data, self.trainer.precision)
        describe = getattr(data, "describe", None)
        self.data_description = describe() if describe else {}
        if stage != "fit":
            return
        x, y = (part.to(self.device) for part in data.examples(2 if self.started else 1000))
        with seeding.isolated(self.device, self.seed, "start"):
            if not self.started:
                self.decoder.init_from_data(data.mean, x)
                self.init_from_data(x, y)
                self.started.fill_(1)
            with evaluating(self):
                self.objective(self(x[:2].type(self.dtype) if x.is_floating_point() else x[:2], y[:2]))

    def on_fit_start(self) -> None:
        checks.check_objective(self, self.trainer.world_size)

    def check_batch(self, batch: Batch) -> None:
        checks.check_batch(self, batch)

    def check_data_kind(self, data: Any) -> None:
        """Raise a ValueError if the likelihood cannot score the kind of data that a data module makes."""
        checks.check_data_kind(self, data)

    # Checkpoints.

    def origin(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside the weights, so that ``vaezoo.load`` can build the model again.

        Raises:
            ValueError: an argument of the model cannot be described by a config.
        """
        if self.config is None and isinstance(self.config_node, str):
            raise ValueError(
                f"how this {type(self).__name__} was built cannot be saved, because {self.config_node}: build it from "
                f"classes of the zoo with plain arguments, or save model.state_dict() and keep the code"
            )
        config = self.config if self.config is not None else {"model": self.config_node, "seed": self.seed}
        return {"vaezoo_config": config, "vaezoo_data": self.data_description}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.data_description and self.trainer.state.fn == TrainerFn.FITTING:
            data = getattr(self.trainer, "datamodule", None)
            checks.check_same_data(checkpoint.get("vaezoo_data", {}), self.data_description, data)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.config is not None or isinstance(self.config_node, dict):
            checkpoint |= self.origin()
