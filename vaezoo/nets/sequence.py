"""An encoder of sequences of vectors, such as sentences."""

from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from vaezoo.nets.mlp import activation_function, init_glorot
from vaezoo.types import Shape


class SequenceEncoder(nn.Module):
    """An encoder of sequences: convolutions over time, the mean and the maximum over all times, a linear layer.

    What it finds in a sequence does not depend on the place. Its size does not depend on the length.

    Reference: Kim 2014, Convolutional Neural Networks for Sentence Classification, https://arxiv.org/abs/1408.5882.
    Differs from the paper: kernels of one size, in ``num_layers`` layers, and also the mean over time.

    >>> SequenceEncoder((64, 20), (5,))(torch.zeros(2, 64, 20)).shape
    torch.Size([2, 5])

    Args:
        in_shape: shape of one input, (C, T).
        out_shape: shape of one output.
        hidden: number of channels of each convolution; >= 1.
        num_layers: number of convolutions; >= 1.
        kernel: size of the kernel of each convolution, odd.
        activation: name of a function in ``torch.nn.functional``.

    Raises:
        ValueError: an argument is out of range, or the inputs are no sequences of vectors.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        hidden: int = 128,
        num_layers: int = 1,
        kernel: int = 3,
        activation: str = "relu",
    ):
        super().__init__()
        if len(in_shape) != 2:
            raise ValueError(
                f"SequenceEncoder takes sequences of vectors, (channels, length), got the shape {tuple(in_shape)}: use "
                f"it for sentences, or another network, such as model/encoder=mlp"
            )
        if min(hidden, num_layers) < 1 or kernel < 1 or kernel % 2 == 0:
            raise ValueError(
                f"hidden and num_layers must be >= 1 and kernel odd, got {hidden}, {num_layers} and {kernel}"
            )
        self.out_shape = tuple(out_shape)
        widths = [in_shape[0], *[hidden] * num_layers]
        self.convs = nn.ModuleList(nn.Conv1d(a, b, kernel, padding=kernel // 2) for a, b in pairwise(widths))
        self.out = nn.Linear(2 * hidden, prod(out_shape))
        self.activation = activation_function(activation)
        init_glorot(self)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the network: (N, C, T) -> (N, *out_shape)."""
        h = inputs
        for conv in self.convs:
            h = self.activation(conv(h))
        # Not h.mean(-1): in an ONNX file, its name would be that of the output "mean" of an encoder.
        mean = h.sum(-1) / h.shape[-1]
        return self.out(torch.cat([mean, h.amax(-1)], 1)).unflatten(1, self.out_shape)
