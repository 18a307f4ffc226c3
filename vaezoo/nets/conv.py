"""Convolutional encoder and decoder for images of any size, also odd sizes and images that are not square."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.nets.mlp import activation_function, check_widths, init_glorot
from vaezoo.types import Shape


def downsampled_sizes(height: int, width: int, times: int) -> list[tuple[int, int]]:
    """Return the size of an image before and after each of several ``Downsample`` layers.

    Each layer halves the height and the width, rounding up.

    >>> downsampled_sizes(33, 17, 2)
    [(33, 17), (17, 9), (9, 5)]
    """
    sizes = [(height, width)]
    for _ in range(times):
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width))
    return sizes


def check_image(shape: Shape, role: str) -> tuple[int, int, int]:
    """Return ``shape`` as (channels, height, width).

    Raises:
        ValueError: it is not the shape of an image.
    """
    if len(shape) != 3:
        raise ValueError(f"a convolutional {role} needs images (C, H, W), got {tuple(shape)}: use model/{role}=mlp")
    channels, height, width = shape
    return channels, height, width


class Downsample(nn.Conv2d):
    """A convolution with stride 2 that halves an image of any size, rounding up.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        kernel: size of the kernel. With an even kernel, images of an odd size are padded by one more row or column.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int):
        super().__init__(in_channels, out_channels, kernel, stride=2, padding=(kernel - 1) // 2)
        self.even = kernel % 2 == 0

    def forward(self, input: Tensor) -> Tensor:
        height, width = input.shape[-2:]
        if self.even and (height % 2 or width % 2):
            input = F.pad(input, (0, width % 2, 0, height % 2))
        return super().forward(input)


class Upsample(nn.ConvTranspose2d):
    """A transposed convolution with stride 2 that undoes the halving of ``Downsample``.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        kernel: size of the kernel.
        in_size: (height, width) of the input: half of ``out_size``, rounded up.
        out_size: (height, width) of the output.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, in_size: tuple[int, int], out_size: tuple[int, int]
    ):
        # From n rows, an odd kernel makes 2 n - 1: one row is missing if the output size is even. An even kernel makes
        # 2 n: one row is too many if the output size is odd, and ``forward`` cuts it off.
        down, right = (kernel % 2 * (b - (2 * n - 1)) for n, b in zip(in_size, out_size, strict=True))
        padding = (kernel - 1) // 2
        super().__init__(in_channels, out_channels, kernel, stride=2, padding=padding, output_padding=(down, right))
        self.out_size = out_size

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        height, width = self.out_size
        return super().forward(input)[..., :height, :width]


def check_layers(hidden: int | Sequence[int], kernel: int) -> list[int]:
    """Return the widths of one or several fully connected layers as a list.

    Raises:
        ValueError: there is no layer, a width is not an integer >= 1, or the kernel is smaller than 1.
    """
    widths = check_widths("hidden", [hidden] if isinstance(hidden, int) else hidden)
    if len(widths) == 0:
        raise ValueError("hidden must have the width of at least one fully connected layer, got []")
    if kernel < 1:
        raise ValueError(f"kernel must be >= 1, got {kernel}")
    return list(widths)


class ConvEncoder(nn.Module):
    """An encoder of images: convolutions with stride 2, then fully connected layers.

    Args:
        in_shape: shape of one image, (C, H, W).
        out_shape: shape of one output.
        channels: number of output channels of each convolution. Each convolution halves the image, rounding up.
        hidden: width of the fully connected layer before the output, or a list of widths of several layers.
        activation: name of a function in ``torch.nn.functional``.
        kernel: size of the kernel of each convolution.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: Sequence[int] = (32, 64, 128),
        hidden: int | Sequence[int] = 256,
        activation: str = "silu",
        kernel: int = 3,
    ):
        super().__init__()
        image_channels, height, width = check_image(in_shape, "encoder")
        self.out_shape = tuple(out_shape)
        widths = [image_channels, *check_widths("channels", channels)]
        layers = check_layers(hidden, kernel)
        self.convs = nn.ModuleList(Downsample(a, b, kernel) for a, b in pairwise(widths))
        self.hidden = nn.Linear(widths[-1] * prod(downsampled_sizes(height, width, len(channels))[-1]), layers[0])
        self.others = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(layers))
        self.out = nn.Linear(layers[-1], prod(out_shape))
        self.activation = activation_function(activation)
        init_glorot(self)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the network: (N, C, H, W) -> (N, *out_shape)."""
        h = inputs
        for conv in self.convs:
            h = self.activation(conv(h))
        h = self.activation(self.hidden(h.flatten(1)))
        for layer in self.others:
            h = self.activation(layer(h))
        return self.out(h).unflatten(1, self.out_shape)


class ConvDecoder(nn.Module):
    """A decoder of images, ``ConvEncoder`` in reverse: fully connected layers, then transposed convolutions.

    Args:
        in_shape: shape of one input.
        out_shape: shape of one image, (C, H, W).
        channels: the same list as for the encoder; used in reverse order.
        hidden: the same width or list of widths as for the encoder; used in reverse order.
        activation: name of a function in ``torch.nn.functional``.
        kernel: size of the kernel of each convolution.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: Sequence[int] = (32, 64, 128),
        hidden: int | Sequence[int] = 256,
        activation: str = "silu",
        kernel: int = 3,
    ):
        super().__init__()
        image_channels, height, width = check_image(out_shape, "decoder")
        widths = [*reversed(check_widths("channels", channels)), image_channels]
        sizes = downsampled_sizes(height, width, len(channels))[::-1]  # small to large
        layers = check_layers(hidden, kernel)[::-1]
        self.first_shape = (widths[0], *sizes[0])
        self.hidden = nn.Linear(prod(in_shape), layers[0])
        self.others = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(layers))
        self.unfold = nn.Linear(layers[-1], prod(self.first_shape))
        steps = zip(pairwise(widths), pairwise(sizes), strict=True)
        self.convs = nn.ModuleList(Upsample(a, b, kernel, small, large) for (a, b), (small, large) in steps)
        self.activation = activation_function(activation)
        init_glorot(self)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the network: (N, *in_shape) -> (N, C, H, W)."""
        h = self.activation(self.hidden(inputs.flatten(1)))
        for layer in self.others:
            h = self.activation(layer(h))
        h = self.unfold(h).unflatten(1, self.first_shape)
        for conv in self.convs:
            h = conv(self.activation(h))
        return h
