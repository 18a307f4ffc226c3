"""The base class of all objectives: weights that a schedule can set, and the KL term with free bits."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaezoo.instantiate import Recorded
from vaezoo.trace import Trace

FREE_BITS_PER = ("dim", "layer")


def linear_rise(step: int, steps: int) -> float:
    """Return the factor of a weight that rises linearly from 0 to 1 in the first ``steps`` optimizer steps.

    >>> [linear_rise(step, steps=4) for step in (0, 1, 4, 9)]
    [0.0, 0.25, 1.0, 1.0]
    """
    return min(1.0, step / steps)


class Objective(Recorded, nn.Module):
    """Map a ``Trace`` to a dict of scalars; the one named "loss" is minimized, the others are logged.

    The weights of the loss (beta, gamma, ...) are 0-dim buffers, so that a schedule can change them without compiling
    a new graph. Checkpoints do not contain them, because the config does. If an objective has parameters of its own (a
    discriminator), they are trained in the same optimizer step as the model, with ``optimizer_settings``.

    Attributes:
        has_kl_term: whether the loss contains KL(q, p), to which free bits can be applied.
        is_batch_coupled: whether the loss of an example depends on the other examples of its batch.
        uses_gradient_hooks: whether the backward pass multiplies the gradient of each posterior sample by a factor.
        kl_weight: the name of the weight that multiplies KL(q, p) and nothing else; None if there is none.
        num_groups: the number of equal groups that the K posterior samples are cut into; K is a multiple of it.
        optimizer_settings: options of the optimizer for the objective's own parameters.
        num_train: N, the number of training examples; None if it is unknown.
        configured_weights: the configured value of each weight, which a schedule does not change.
        schedules: functions that map the optimizer step to a factor of the configured weight, by the weight's name.
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
        """The names in ``vaezoo.models.base.CAPABILITIES`` that a model with this objective lacks, with the reasons."""
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
        """Add a weight of the loss, or change its configured value.

        Raises:
            ValueError: the value is negative or not finite.
        """
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a finite number >= 0, got {value}")
        self.configured_weights[name] = float(value)
        self.register_buffer(name, torch.tensor(float(value)), persistent=False)

    def set_free_bits(self, nats: float, per: str) -> None:
        """Set the free bits of ``kl_term``.

        Args:
            nats: the value below which a KL is not minimized, in nats; >= 0.
            per: "dim" or "layer", the unit whose KL is compared with ``nats``.

        Raises:
            ValueError: an argument is out of range, or the loss has no KL term.
        """
        if per not in FREE_BITS_PER:
            raise ValueError(f"free_bits_per={per} is not one of {', '.join(FREE_BITS_PER)}")
        self.free_bits_per = per
        if self.has_kl_term:
            self.set_weight("free_bits", nats)
        elif nats != 0:
            raise ValueError(f"free_bits={nats} has no effect: {type(self).__name__} has no KL term, set free_bits=0")

    def set_num_train(self, num_train: int | None) -> None:
        """Set N, the number of training examples; None if it is unknown. A model calls it before training."""
        self.num_train = num_train

    def apply_schedules(self, step: int) -> None:
        """Set each weight that has a schedule to its value at this optimizer step."""
        for name, factor in self.schedules.items():
            self.get_buffer(name).fill_(self.configured_weights[name] * factor(step))

    def restore_weights(self) -> None:
        """Set each weight to its configured value."""
        for name, value in self.configured_weights.items():
            self.get_buffer(name).fill_(value)

    def weights(self) -> dict[str, Tensor]:
        """Return the current value of each weight, by its name."""
        return {name: getattr(self, name) for name in self.configured_weights}

    def kl_term(self, trace: Trace) -> Tensor:
        """Return KL(q, p), the mean over the batch, with free bits.

            sum_d max(free_bits, mean_B KL_d)

        with d over latent dimensions or stochastic layers (Kingma et al. 2016, Improved Variational Inference with
        Inverse Autoregressive Flow, https://arxiv.org/abs/1606.04934, eq. 15). ``trace.elbo`` has no free bits.

        Raises:
            ValueError: free bits are per dimension, but q or p does not factorize over dimensions.
        """
        if self.configured_weights["free_bits"] == 0:
            return trace.kl.sum(1).mean()
        if self.free_bits_per == "layer":
            return torch.maximum(trace.kl.mean(0), self.get_buffer("free_bits")).sum()
        floored = []
        for latent in trace.latents:
            if latent.kl_per_dim is None:
                raise ValueError(
                    "free bits per dimension need a posterior and a prior that factorize over dimensions: "
                    "use model.free_bits_per=layer"
                )
            floored.append(torch.maximum(latent.kl_per_dim.mean(0), self.get_buffer("free_bits")).sum())
        return torch.stack(floored).sum()

    @abstractmethod
    def forward(self, trace: Trace) -> dict[str, Tensor]:
        """Return the scalars of this pass: "loss", and the objective's own terms by their names."""
