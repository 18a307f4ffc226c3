"""A network for counts."""

import torch
from torch import Tensor, nn

from vaezoo.missing import to_float
from vaezoo.types import NetFactory, Shape


class LogInput(nn.Module):
    """A network for counts x: it is given ln(1 + x), whose range is that of a usual input.

    >>> from vaezoo.nets import MLP
    >>> LogInput((3,), (2,), MLP)(torch.tensor([[0, 7, 2500]])).shape
    torch.Size([1, 2])

    Args:
        in_shape: shape of one input.
        out_shape: shape of one output.
        net: makes the network.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, net: NetFactory):
        super().__init__()
        self.net = net(in_shape, out_shape)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the network: (N, *in_shape) -> (N, *out_shape)."""
        floats = to_float(inputs, next(self.parameters(), torch.zeros(())).dtype)
        # The pseudo-inputs of a VampPrior may be below 0, but ln(1 + x) is finite above -1 only.
        return self.net(floats.clamp(min=-0.5).log1p(), context)
