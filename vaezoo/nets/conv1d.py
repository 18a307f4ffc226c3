"""Convolutional encoder and decoder over time: for sounds, and for spectrograms with a channel for each band."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from vaezoo.nets.conv import check_layers
from vaezoo.nets.mlp import activation_function, apply_layers, check_widths, init_glorot
from vaezoo.types import Shape


def strided_lengths(length: int, stride: int, times: int) -> list[int]:
    """Return the length of a signal before and after each of several convolutions with this stride, rounding up.

    >>> strided_lengths(1000, 4, 3)
    [1000, 250, 63, 16]
    """
    lengths = [length]
    for _ in range(times):
        lengths.append(-(-lengths[-1] // stride))
    return lengths


def check_signal(shape: Shape, role: str) -> tuple[int, int]:
    """Return the number of channels and the length of a signal; all dimensions before the last one are channels.

    Raises:
        ValueError: it is a vector.
    """
    if len(shape) < 2:
        raise ValueError(f"a convolutional {role} needs signals (..., T), got {tuple(shape)}: use model/{role}=mlp")
    return prod(shape[:-1]), shape[-1]


def check_stride(kernel: int, stride: int) -> None:
    """Raise a ValueError if a kernel does not cover its stride, or is even."""
    if kernel % 2 == 0 or not 1 <= stride <= kernel:
        raise ValueError(
            f"kernel must be odd and at least as large as the stride, got kernel={kernel}, stride={stride}"
        )


def init_convs(convs: nn.ModuleList) -> None:
    """Initialize one-dimensional convolutions as ``init_glorot`` does other layers."""
    for conv in convs:
        assert isinstance(conv, nn.Conv1d | nn.ConvTranspose1d)
        assert conv.bias is not None
        nn.init.xavier_uniform_(conv.weight)
        nn.init.zeros_(conv.bias)


class Conv1dEncoder(nn.Module):
    """An encoder of signals: convolutions over the last dimension, then a fully connected layer.

    A spectrogram (1, bands, steps) has a channel for each band.

    >>> import torch
    >>> Conv1dEncoder((1, 1024), (20,))(torch.zeros(5, 1, 1024)).shape
    torch.Size([5, 20])

    Args:
        in_shape: shape of one signal, (..., T).
        out_shape: shape of one output.
        channels: number of output channels of each convolution.
        kernel: size of the kernel of each convolution; odd.
        stride: stride of each convolution: each divides the length by it, rounding up.
        hidden: width of the fully connected layer before the output, or a list of widths of several layers.
        activation: name of a function in ``torch.nn.functional``.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: Sequence[int] = (32, 64, 128),
        kernel: int = 9,
        stride: int = 4,
        hidden: int | Sequence[int] = 256,
        activation: str = "silu",
    ):
        super().__init__()
        in_channels, length = check_signal(in_shape, "encoder")
        check_stride(kernel, stride)
        self.out_shape = tuple(out_shape)
        widths = [in_channels, *check_widths("channels", channels)]
        layers = check_layers(hidden, kernel)
        self.convs = nn.ModuleList(nn.Conv1d(a, b, kernel, stride, kernel // 2) for a, b in pairwise(widths))
        sizes = [widths[-1] * strided_lengths(length, stride, len(channels))[-1], *layers, prod(out_shape)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.activation = activation_function(activation)
        init_convs(self.convs)
        init_glorot(self)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the network: (N, ..., T) -> (N, *out_shape)."""
        h = inputs.flatten(1, -2)
        for conv in self.convs:
            h = self.activation(conv(h))
        return apply_layers(self.layers, self.activation, h.flatten(1)).unflatten(1, self.out_shape)


class Conv1dDecoder(nn.Module):
    """A decoder of signals, the mirror image of ``Conv1dEncoder``.

    >>> import torch
    >>> Conv1dDecoder((20,), (1, 1000))(torch.zeros(5, 20)).shape
    torch.Size([5, 1, 1000])

    Args:
        in_shape: shape of one input.
        out_shape: shape of one signal, (..., T).
        channels: as in the encoder; used in reverse order.
        kernel: size of the kernel of each convolution; odd.
        stride: stride of each convolution.
        hidden: as in the encoder; used in reverse order.
        activation: name of a function in ``torch.nn.functional``.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: Sequence[int] = (32, 64, 128),
        kernel: int = 9,
        stride: int = 4,
        hidden: int | Sequence[int] = 256,
        activation: str = "silu",
    ):
        super().__init__()
        out_channels, length = check_signal(out_shape, "decoder")
        check_stride(kernel, stride)
        self.out_shape = tuple(out_shape)
        widths = [*reversed(check_widths("channels", channels)), out_channels]
        lengths = strided_lengths(length, stride, len(channels))[::-1]
        self.first_shape = (widths[0], lengths[0])
        sizes = [prod(in_shape), *check_layers(hidden, kernel)[::-1], prod(self.first_shape)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        # From n steps, a transposed convolution makes (n - 1) stride + 1, and the rest is added at the end.
        self.convs = nn.ModuleList(
            nn.ConvTranspose1d(a, b, kernel, stride, kernel // 2, output_padding=long - (short - 1) * stride - 1)
            for (a, b), (short, long) in zip(pairwise(widths), pairwise(lengths), strict=True)
        )
        self.activation = activation_function(activation)
        init_convs(self.convs)
        init_glorot(self)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the network: (N, *in_shape) -> (N, ..., T)."""
        h = apply_layers(self.layers, self.activation, inputs.flatten(1)).unflatten(1, self.first_shape)
        for conv in self.convs:
            h = conv(self.activation(h))
        return h.unflatten(1, self.out_shape[:-1])
