"""Means over examples."""

import torch
from torch import Tensor
from torchmetrics import Metric


def accumulation_dtype(value: Tensor) -> torch.dtype:
    """The dtype for sums over many examples: float64, or float32 on MPS, which has no float64."""
    return torch.float32 if value.device.type == "mps" else torch.float64


class ExampleMean(Metric):
    """Mean over examples of named quantities: their sum in float64 divided by the examples' number.

    Never a mean of batch means, so a ragged last batch, the batch size and the number of processes
    change nothing.

    Attributes:
        num: the examples behind the last ``compute``, over all processes.
    """

    num = 0

    full_state_update = False
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, values: dict[str, Tensor], count: int | None = None) -> None:
        """Add a batch.

        Args:
            values: each (B,) or (B, D) where the mean is to be (D,); the same names every time.
            count: B, where the values are the batch's means already: each () or (D,).
        """
        for name, value in values.items():
            value = value.detach()
            dtype = accumulation_dtype(value)
            total = value.sum(0, dtype=dtype) if count is None else value.to(dtype) * count
            if name not in self.names:  # shapes are known with the first batch
                self.names.append(name)
                self.add_state(f"sum_{name}", torch.zeros_like(total), dist_reduce_fx="sum")
            setattr(self, f"sum_{name}", getattr(self, f"sum_{name}") + total)
        self.count = self.count + (len(value) if count is None else count)

    def compute(self) -> dict[str, Tensor]:
        """Each quantity's mean; an empty dict before the first update."""
        self.num = int(self.count)
        return {name: getattr(self, f"sum_{name}") / self.count for name in self.names if self.count > 0}

    def values(self) -> dict[str, Tensor]:
        """``compute()`` with each quantity in its own shape: torchmetrics turns (1,) into ()."""
        return {name: mean.reshape(getattr(self, f"sum_{name}").shape) for name, mean in self.compute().items()}

    def snapshot(self) -> dict[str, Tensor]:
        """Count and sums so far over all processes, for a checkpoint: to be called in each of them."""
        with self.sync_context():
            return {name: getattr(self, name).clone() for name in ("count", *(f"sum_{name}" for name in self.names))}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a snapshot; in one process alone, where there are several."""
        self.reset()
        for name, value in state.items():
            if name not in self._defaults:
                self.names.append(name.removeprefix("sum_"))
                self.add_state(name, torch.zeros_like(value), dist_reduce_fx="sum")
            setattr(self, name, value.to(self.device))
        self._update_count = int(self.count > 0)  # else torchmetrics warns of a mean of nothing
