"""A linear decoder of shares."""

import torch
from torch import Tensor, nn

from vaezoo.types import Shape


class SharesDecoder(nn.Module):
    """A linear map of softmax(z): each of T shares, such as those of topics, has a weight of each output.

    Args:
        in_shape: (T,), T >= 2.
        out_shape: (D,).

    Attributes:
        weights: (D, T); at the start small random numbers.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape):
        super().__init__()
        if len(in_shape) != 1 or in_shape[0] < 2:
            raise ValueError(f"shares need a z of at least 2 numbers, got the shape {tuple(in_shape)}")
        self.weights = nn.Parameter(0.1 * torch.randn(*out_shape, *in_shape))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the network: (N, T) -> (N, D)."""
        return inputs.softmax(-1) @ self.weights.T
