"""The base class of metrics that need all examples at once."""

import torch
from torch import Tensor
from torchmetrics import Metric


class BufferedMetric(Metric):
    """Collect tensors over batches and processes for ``compute``.

    A subclass sets ``buffer_names`` and defines ``compute``, which gets the tensors from ``buffered()`` and returns a
    dict of floats. A number NAME may come with

    * ``NAME_error``: its standard error,
    * ``NAME_ceiling``: the largest value that is possible under the same protocol,
    * ``NAME_reference``: the value of real images under the same protocol, which is no bound.

    Attributes:
        buffer_names: names of the tensors, which are the arguments of ``update``.
    """

    full_state_update = False
    buffer_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        for name in self.buffer_names:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, **values: Tensor) -> None:
        """Add a batch: tensors (B, ...), by their names."""
        for name in self.buffer_names:
            getattr(self, name).append(values[name].detach())

    def buffered(self) -> dict[str, Tensor]:
        """Return the tensors of all batches, (N, ...) each; in ``compute``, those of all processes.

        Raises:
            ValueError: there was no batch.
        """
        values = {name: getattr(self, name) for name in self.buffer_names}
        if any(isinstance(value, list) and not value for value in values.values()):
            raise ValueError(f"{type(self).__name__} has seen no examples: call update first")
        return {name: value if isinstance(value, Tensor) else torch.cat(value) for name, value in values.items()}
