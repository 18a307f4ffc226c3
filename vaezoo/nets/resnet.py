"""Residual encoder and decoder for images of any size."""

from collections.abc import Sequence
from math import gcd

from torch import Tensor, nn

from vaezoo.nets.conv import ConvDecoder, ConvEncoder
from vaezoo.nets.mlp import activation_function, init_glorot
from vaezoo.types import Shape


class ResidualBlock(nn.Module):
    """x + f(x), with two normalised, activated 3x3 convolutions for f: He et al. 2016, https://arxiv.org/abs/1603.05027.

    Normalisation is by groups of channels within an image (Wu & He 2018, https://arxiv.org/abs/1803.08494).
    Batch normalisation would couple the examples, and give evaluation another ELBO than training.

    Args:
        width: channels.
        activation: name of a function in ``torch.nn.functional``.
    """

    def __init__(self, width: int, activation: str):
        super().__init__()
        groups = gcd(width, max(1, width // 16))  # of 16 channels, where they divide
        self.norms = nn.ModuleList(nn.GroupNorm(groups, width) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.activation = activation_function(activation)
        init_glorot(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> the same shape."""
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(self.activation(norm(h)))
        return x + h


def residual_blocks(num: int, width: int, activation: str) -> list[ResidualBlock]:
    """``num`` blocks of one width."""
    if num < 1:
        raise ValueError(f"blocks must be >= 1, got {num}: without any it is the conv network")
    return [ResidualBlock(width, activation) for _ in range(num)]


class ResNetEncoder(ConvEncoder):
    """``ConvEncoder`` with residual blocks after each halving: image -> vector.

    Args:
        in_shape: (C, H, W).
        out_shape: shape of one output.
        channels: channels after each halving.
        blocks: residual blocks after each halving; >= 1.
        activation, **kwargs: as in ``ConvEncoder``.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: Sequence[int] = (32, 64, 128),
        blocks: int = 2,
        activation: str = "silu",
        **kwargs,
    ):
        super().__init__(in_shape, out_shape, channels, activation=activation, **kwargs)
        for i, width in enumerate(channels):
            self.convs[i] = nn.Sequential(self.convs[i], *residual_blocks(blocks, width, activation))


class ResNetDecoder(ConvDecoder):
    """The encoder's mirror, with residual blocks before each doubling: vector -> image.

    Args:
        in_shape: shape of one input.
        out_shape: (C, H, W).
        channels: the encoder's channels; used from last to first.
        blocks: residual blocks before each doubling; >= 1.
        activation, **kwargs: as in ``ConvDecoder``.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: Sequence[int] = (32, 64, 128),
        blocks: int = 2,
        activation: str = "silu",
        **kwargs,
    ):
        super().__init__(in_shape, out_shape, channels, activation=activation, **kwargs)
        for i, width in enumerate(reversed(channels)):
            self.convs[i] = nn.Sequential(*residual_blocks(blocks, width, activation), self.convs[i])
