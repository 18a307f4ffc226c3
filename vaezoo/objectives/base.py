"""What every objective has: weights that a schedule can write, and the rate with free bits."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from vaezoo.trace import Trace


class Objective(nn.Module):
    """``forward(trace)`` -> a dict of scalars, of which "loss" is minimised.

    Weights are 0-dim buffers: a schedule writes them without a new graph, and no checkpoint holds
    them, because the config does.

    Attributes:
        configured: each weight's value as configured, whatever a schedule has written since.
    """

    def __init__(self) -> None:
        super().__init__()
        self.configured: dict[str, float] = {}
        self.set_weight("free_bits", 0.0)

    def set_weight(self, name: str, value: float) -> None:
        """Configure a weight: a number >= 0, else a ValueError."""
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a finite number >= 0, got {value}")
        self.configured[name] = float(value)
        self.register_buffer(name, torch.tensor(float(value)), persistent=False)

    def restore_weights(self) -> None:
        """Set every weight to its configured value."""
        for name, value in self.configured.items():
            self.get_buffer(name).fill_(value)

    def weights(self) -> dict[str, Tensor]:
        """Each weight's present value."""
        return {name: getattr(self, name) for name in self.configured}

    def rate(self, trace: Trace) -> Tensor:
        """KL(q, p), mean over the batch, with at least ``free_bits`` nats for each dimension.

        ``sum_d max(free_bits, mean_B KL_d)`` (Kingma et al. 2016, https://arxiv.org/abs/1606.04934,
        eq. 15). The floor is for training alone: ``trace.elbo`` never has it.
        """
        if self.configured["free_bits"] == 0:
            return trace.kl.sum(1).mean()
        floored = []
        for latent in trace.latents:
            if latent.kl_per_dim is None:
                raise ValueError("free_bits needs a posterior and a prior that factorise over dimensions")
            floored.append(torch.maximum(latent.kl_per_dim.mean(0), self.get_buffer("free_bits")).sum())
        return torch.stack(floored).sum()

    @abstractmethod
    def forward(self, trace: Trace) -> dict[str, Tensor]:
        """The scalars of this pass: "loss", and the objective's own terms."""
