"""Means over examples, and the dtype of long sums."""

import torch
from torch import Tensor
from torchmetrics import Metric

from vaezoo.distributions.numerics import accumulation_dtype


class ExampleMean(Metric):
    """Mean over examples of named quantities: the sum over all examples in float64, divided by their number.

    It is never a mean of batch means. So the batch size, a smaller last batch and the number of processes do not
    change it. The sums of all quantities are packed into one vector: each batch then costs one addition, and several
    processes exchange one tensor.

    Attributes:
        num: number of examples behind the last ``compute``, over all processes.
        shapes: shape of each quantity's mean, by name; empty before the first ``update``.

    Example:
        >>> mean = ExampleMean()
        >>> mean.update({"elbo": torch.tensor([-3.0, -1.0])})
        >>> mean.update({"elbo": torch.tensor([-8.0])})
        >>> float(mean.values()["elbo"])
        -4.0
    """

    full_state_update = False
    num = 0
    count: Tensor
    sums: Tensor  # exists from the first update on

    def __init__(self) -> None:
        super().__init__()
        self.shapes: dict[str, torch.Size] = {}
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, values: dict[str, Tensor], count: int | None = None) -> None:
        """Add a batch of B examples.

        Args:
            values: the quantities by name, the same names in every call. Without ``count``, each is (B,) or (B, D).
                With ``count``, each is the batch's mean, () or (D,).
            count: B, if ``values`` are means of the batch.
        """
        parts = {}
        for name, value in values.items():
            dtype = accumulation_dtype(value)
            parts[name] = value.detach().sum(0, dtype=dtype) if count is None else value.detach().to(dtype)
        packed = torch.cat([part.reshape(-1) for part in parts.values()])
        if not self.shapes:
            self.allocate({name: part.shape for name, part in parts.items()}, packed)
        self.sums = self.sums + (packed if count is None else packed * count)
        self.count = self.count + (len(value) if count is None else count)

    def allocate(self, shapes: dict[str, torch.Size], like: Tensor) -> None:
        """Set the quantities' names and shapes, and their sums to 0."""
        self.shapes = shapes
        self.add_state("sums", torch.zeros_like(like), dist_reduce_fx="sum")

    def compute(self) -> dict[str, Tensor]:
        """Return each quantity's mean; an empty dict before the first update."""
        self.num = int(self.count)
        if self.num == 0:
            return {}
        parts = (self.sums / self.count).split([shape.numel() for shape in self.shapes.values()])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def values(self) -> dict[str, Tensor]:
        """Return ``compute()`` with each mean in its own shape: torchmetrics turns (1,) into ()."""
        return {name: mean.reshape(self.shapes[name]) for name, mean in self.compute().items()}

    def snapshot(self) -> dict[str, Tensor]:
        """Return the count and the sums over all processes, for a checkpoint. Every process has to call this."""
        with self.sync_context():  # "sum_row" is the key in checkpoints of every version
            sums = {"sum_row": self.sums.clone()} if self.shapes else {}
            return {"count": self.count.clone(), **sums}

    def restore(self, names: list[str], state: dict[str, Tensor]) -> None:
        """Continue from the ``snapshot`` of means that are all 0-dim.

        Args:
            names: the quantities' names, in the order of the snapshot.
            state: the snapshot. One process gets it, all others get zeros.
        """
        self.reset()
        self.count = state["count"].to(self.device)
        if "sum_row" in state:
            self.allocate(dict.fromkeys(names, torch.Size()), state["sum_row"])
            self.sums = state["sum_row"].to(self.device)
        self._update_count = int(self.count > 0)  # otherwise torchmetrics warns of a compute before any update
