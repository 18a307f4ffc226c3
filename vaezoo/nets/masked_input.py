"""A network for data with missing entries."""

import torch
from torch import Tensor, nn

from vaezoo.missing import fill_missing, is_observed, to_float
from vaezoo.types import NetFactory, Shape


class MaskedInput(nn.Module):
    """A network for data with missing entries: it is given the data with 0 in place of them, and the mask.

    The mask is 1 if the entry is observed, otherwise 0. It is concatenated to the data along the first dimension: twice
    as many numbers of a vector, or twice as many channels of an image.

    Reference: Mattei & Frellsen 2019, MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets,
    https://arxiv.org/abs/1812.02633, fill missing entries with 0. The mask as an additional input distinguishes a
    missing entry from an observed 0.

    >>> from vaezoo.nets import MLP
    >>> MaskedInput((3,), (2,), MLP)(torch.tensor([[1.0, float("nan"), 0.0]])).shape
    torch.Size([1, 2])

    Args:
        in_shape: shape of one input.
        out_shape: shape of one output.
        net: makes the network.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, net: NetFactory):
        super().__init__()
        first, *rest = in_shape
        self.net = net((2 * first, *rest), out_shape)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the network: (N, *in_shape) -> (N, *out_shape). NaN marks a missing float, -1 a missing integer."""
        floats = to_float(inputs, next(self.parameters(), torch.zeros(())).dtype)
        return self.net(torch.cat([fill_missing(floats), is_observed(floats).to(floats.dtype)], 1), context)
