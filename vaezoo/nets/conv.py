"""Convolutional encoder and decoder for images of any size, odd and non-square ones included."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.nets.mlp import activation_function, check_widths, init_glorot
from vaezoo.types import Shape


def downsampled_sizes(height: int, width: int, times: int) -> list[tuple[int, int]]:
    """A size and its halvings, rounded up: what ``Downsample`` makes of it.

    >>> downsampled_sizes(33, 17, 2)
    [(33, 17), (17, 9), (9, 5)]
    """
    sizes = [(height, width)]
    for _ in range(times):
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width))
    return sizes


def check_image(shape: Shape, role: str) -> tuple[int, int, int]:
    """``shape`` as (channels, height, width), or a ValueError that names the other networks."""
    if len(shape) != 3:
        raise ValueError(f"a convolutional {role} needs images (C, H, W), got shape {tuple(shape)}: use mlp")
    channels, height, width = shape
    return channels, height, width


class Downsample(nn.Conv2d):
    """A convolution with stride 2 that halves an image of any size, rounding up.

    Args:
        in_channels: input channels.
        out_channels: output channels.
        kernel: side of the kernel. An even one sees a further row or column of zeros where the size is odd.
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
    """The mirror of ``Downsample``: from ``size`` back to the size that was halved.

    Args:
        in_channels: input channels.
        out_channels: output channels.
        kernel: side of the kernel.
        in_size: (height, width) of the input.
        out_size: (height, width) of the output, of which ``size`` is the half, rounded up.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, in_size: tuple[int, int], out_size: tuple[int, int]
    ):
        # An odd kernel makes 2 n - 1 of n, and lacks a row where the size was even; an even one makes
        # 2 n, and has one too many where it was odd.
        down, right = (kernel % 2 * (b - (2 * n - 1)) for n, b in zip(in_size, out_size, strict=True))
        padding = (kernel - 1) // 2
        super().__init__(in_channels, out_channels, kernel, stride=2, padding=padding, output_padding=(down, right))
        self.out_size = out_size

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        height, width = self.out_size
        return super().forward(input)[..., :height, :width]


def check_layers(hidden: int | Sequence[int], kernel: int) -> list[int]:
    """The widths of one or several fully connected layers, or a ValueError for these or the kernel."""
    widths = check_widths("hidden", [hidden] if isinstance(hidden, int) else hidden)
    if len(widths) == 0:
        raise ValueError("hidden must be the width of at least one fully connected layer, got []")
    if kernel < 1:
        raise ValueError(f"kernel must be >= 1, got {kernel}")
    return list(widths)


class ConvEncoder(nn.Module):
    """Convolutions with stride 2, then fully connected layers: image -> vector.

    Args:
        in_shape: (C, H, W).
        out_shape: shape of one output.
        channels: output channels of each convolution; each halves the image, rounding up.
        hidden: width of the fully connected layer before the output, or of each of them.
        activation: name of a function in ``torch.nn.functional``.
        kernel: side of the convolutions' kernels.
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
        """(N, C, H, W) -> (N, *out_shape)."""
        h = inputs
        for conv in self.convs:
            h = self.activation(conv(h))
        h = self.activation(self.hidden(h.flatten(1)))
        for layer in self.others:
            h = self.activation(layer(h))
        return self.out(h).unflatten(1, self.out_shape)


class ConvDecoder(nn.Module):
    """The encoder's mirror: fully connected layers, then transposed convolutions: vector -> image.

    Args:
        in_shape: shape of one input.
        out_shape: (C, H, W).
        channels: the encoder's channels; used from last to first.
        hidden: the encoder's fully connected layers; used from last to first.
        activation: name of a function in ``torch.nn.functional``.
        kernel: side of the convolutions' kernels.
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
        """(N, *in_shape) -> (N, C, H, W)."""
        h = self.activation(self.hidden(inputs.flatten(1)))
        for layer in self.others:
            h = self.activation(layer(h))
        h = self.unfold(h).unflatten(1, self.first_shape)
        for conv in self.convs:
            h = conv(self.activation(h))
        return h
