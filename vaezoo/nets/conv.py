"""Convolutional encoder and decoder for images of any size, odd and non-square ones included."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from vaezoo.conditional import Shape
from vaezoo.nets.mlp import activation_function, check_widths, glorot


def halved(height: int, width: int, times: int) -> list[tuple[int, int]]:
    """A size and its halvings, rounded up: what 3x3 convolutions with stride 2 make of it.

    >>> halved(33, 17, 2)
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


class ConvEncoder(nn.Module):
    """3x3 convolutions with stride 2, then a fully connected layer: image -> vector.

    Args:
        in_shape: (C, H, W).
        out_shape: shape of one output.
        channels: output channels of each convolution; each halves the image, rounding up.
        hidden: width of the fully connected layer before the output.
        activation: name of a function in ``torch.nn.functional``.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: Sequence[int] = (32, 64, 128),
        hidden: int = 256,
        activation: str = "silu",
    ):
        super().__init__()
        planes, height, width = check_image(in_shape, "encoder")
        self.out_shape = tuple(out_shape)
        widths = [planes, *check_widths("channels", channels)]
        check_widths("hidden", [hidden])
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.hidden = nn.Linear(widths[-1] * prod(halved(height, width, len(channels))[-1]), hidden)
        self.out = nn.Linear(hidden, prod(out_shape))
        self.activation = activation_function(activation)
        glorot(self)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> (N, *out_shape)."""
        h = inputs
        for conv in self.convs:
            h = self.activation(conv(h))
        h = self.activation(self.hidden(h.flatten(1)))
        return self.out(h).unflatten(1, self.out_shape)


class ConvDecoder(nn.Module):
    """The encoder's mirror: fully connected layers, then transposed convolutions: vector -> image.

    Args:
        in_shape: shape of one input.
        out_shape: (C, H, W).
        channels: the encoder's channels; used from last to first.
        hidden: width of the first fully connected layer.
        activation: name of a function in ``torch.nn.functional``.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: Sequence[int] = (32, 64, 128),
        hidden: int = 256,
        activation: str = "silu",
    ):
        super().__init__()
        planes, height, width = check_image(out_shape, "decoder")
        sizes = halved(height, width, len(channels))[::-1]  # small to large
        widths = [*reversed(check_widths("channels", channels)), planes]
        check_widths("hidden", [hidden])
        self.start = (widths[0], *sizes[0])
        self.hidden = nn.Linear(prod(in_shape), hidden)
        self.unfold = nn.Linear(hidden, prod(self.start))
        self.convs = nn.ModuleList()
        for (a, b), ((h, w), (big_h, big_w)) in zip(pairwise(widths), pairwise(sizes), strict=True):
            # n -> 2 n - 1 + output_padding: either size that halves to n, so no crop and no fixed number.
            padding = (big_h - (2 * h - 1), big_w - (2 * w - 1))
            self.convs.append(nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=padding))
        self.activation = activation_function(activation)
        glorot(self)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """(N, *in_shape) -> (N, C, H, W)."""
        h = self.activation(self.hidden(inputs.flatten(1)))
        h = self.unfold(h).unflatten(1, self.start)
        for conv in self.convs:
            h = conv(self.activation(h))
        return h
