"""What every objective has: weights that a schedule can write, and the rate with free bits."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaezoo.trace import Trace

FREE_BITS_PER = ("dim", "layer")


class Objective(nn.Module):
    """``forward(trace)`` -> a dict of scalars, of which "loss" is minimised.

    Weights are 0-dim buffers: a schedule writes them without a new graph, and no checkpoint holds
    them, because the config does. Parameters that an objective has of its own (a critic's) are
    trained beside the model's, with ``optimizer_settings``.

    Attributes:
        has_kl_term: whether the loss has a KL term in it that free bits can be granted on.
        is_batch_coupled: whether one example's loss depends on the others of its batch.
        uses_gradient_hooks: whether the backward pass scales the gradient of each sample by itself.
        kl_weight: name of the weight that the rate alone is multiplied by, if there is one.
        num_groups: number of equal groups that the posterior samples are cut into; K is a multiple of it.
        optimizer_settings: of the objective's own parameters, where they differ from the model's.
        num_train: size of the training set; the model tells it before training. None: the batch's.
        configured_weights: each weight's value as configured, whatever a schedule has written since.
        schedules: for some weights, what the configured value is multiplied by at an optimizer step.
    """

    has_kl_term: bool = True
    is_batch_coupled: bool = False
    kl_weight: str | None = None
    num_groups: int = 1
    num_train: int | None = None

    @property
    def uses_gradient_hooks(self) -> bool:
        return False

    @property
    def limits(self) -> dict[str, str]:
        """What a model with this objective cannot do (``vaezoo.models.base.CAPABILITIES``), with the reasons."""
        return {}

    def __init__(self) -> None:
        super().__init__()
        self.configured_weights: dict[str, float] = {}
        self.schedules: dict[str, Callable[[int], float]] = {}
        self.optimizer_settings: dict[str, Any] = {}
        self.free_bits_per = "dim"
        if self.has_kl_term:
            self.set_weight("free_bits", 0.0)

    def set_weight(self, name: str, value: float) -> None:
        """Configure a weight: a number >= 0, else a ValueError."""
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a finite number >= 0, got {value}")
        self.configured_weights[name] = float(value)
        self.register_buffer(name, torch.tensor(float(value)), persistent=False)

    def set_free_bits(self, nats: float, per: str) -> None:
        """Configure the nats that ``rate`` does not charge for, for each "dim" or "layer"."""
        if per not in FREE_BITS_PER:
            raise ValueError(f"free_bits_per={per} is not one of {', '.join(FREE_BITS_PER)}")
        self.free_bits_per = per
        if self.has_kl_term:
            self.set_weight("free_bits", nats)
        elif nats != 0:
            raise ValueError(f"free_bits={nats}: {type(self).__name__} charges no rate to grant them on, use 0")

    def set_num_train(self, num_train: int | None) -> None:
        """Set the size of the training set; None if it is unknown."""
        self.num_train = num_train

    def apply_schedules(self, step: int) -> None:
        """Set the weights that have a schedule to their values at this optimizer step."""
        for name, factor in self.schedules.items():
            self.get_buffer(name).fill_(self.configured_weights[name] * factor(step))

    def restore_weights(self) -> None:
        """Set every weight to its configured value."""
        for name, value in self.configured_weights.items():
            self.get_buffer(name).fill_(value)

    def weights(self) -> dict[str, Tensor]:
        """Each weight's present value."""
        return {name: getattr(self, name) for name in self.configured_weights}

    def kl_term(self, trace: Trace) -> Tensor:
        """KL(q, p), mean over the batch, with at least ``free_bits`` nats for each dimension or layer.

        ``sum_d max(free_bits, mean_B KL_d)`` (Kingma et al. 2016, https://arxiv.org/abs/1606.04934,
        eq. 15), d over latent dimensions or stochastic layers. The floor is for training alone:
        ``trace.elbo`` never has it.
        """
        if self.configured_weights["free_bits"] == 0:
            return trace.kl.sum(1).mean()
        if self.free_bits_per == "layer":
            return torch.maximum(trace.kl.mean(0), self.get_buffer("free_bits")).sum()
        floored = []
        for latent in trace.latents:
            if latent.kl_per_dim is None:
                raise ValueError(
                    "free_bits for each dimension needs a posterior and a prior that factorise over dimensions: "
                    "use model.free_bits_per=layer"
                )
            floored.append(torch.maximum(latent.kl_per_dim.mean(0), self.get_buffer("free_bits")).sum())
        return torch.stack(floored).sum()

    @abstractmethod
    def forward(self, trace: Trace) -> dict[str, Tensor]:
        """The scalars of this pass: "loss", and the objective's own terms."""
