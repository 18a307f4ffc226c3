"""What metrics stand on: tensors gathered over batches and processes."""

import torch
from torch import Tensor
from torchmetrics import Metric


class BufferedMetric(Metric):
    """Keeps tensors whose first dimension counts examples, over batches and processes, until ``compute``.

    A metric names what it keeps and defines ``compute``, which finds all of it in ``gathered()``. What it gives
    is a dict of floats; next to NAME may stand ``NAME_error``, its standard error, ``NAME_ceiling``, what a
    perfect answer gets under the same protocol, and ``NAME_reference``, what real images get, which is no bound.

    Attributes:
        keeps: names of the tensors: the arguments of ``update``.
    """

    full_state_update = False
    buffer_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        for name in self.buffer_names:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, **values: Tensor) -> None:
        """Add a batch: each tensor (B, ...), under its name."""
        for name in self.buffer_names:
            getattr(self, name).append(values[name].detach())

    def buffered(self) -> dict[str, Tensor]:
        """All that was kept, (N, ...) each; with several processes, what all of them kept, in ``compute``."""
        values = {name: getattr(self, name) for name in self.buffer_names}
        if any(isinstance(value, list) and not value for value in values.values()):
            raise ValueError(f"{type(self).__name__} has seen no examples: call update first")
        return {name: value if isinstance(value, Tensor) else torch.cat(value) for name, value in values.items()}
