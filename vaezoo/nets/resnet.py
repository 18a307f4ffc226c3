"""Residual encoder and decoder for images of any size."""

from collections.abc import Sequence
from math import gcd

from torch import Tensor, nn

from vaezoo.nets.conv import ConvDecoder, ConvEncoder
from vaezoo.nets.mlp import activation_function, init_glorot
from vaezoo.types import Shape


class ResidualBlock(nn.Module):
    """A residual block x + f(x), where f is twice: normalization, activation, 3x3 convolution.

    The normalization is over groups of channels of one image (Wu & He 2018, Group Normalization,
    https://arxiv.org/abs/1803.08494). Batch normalization would make the output for one example depend on the other
    examples of its batch, and the ELBO of evaluation would differ from that of training.

    Reference: He et al. 2016, Identity Mappings in Deep Residual Networks, https://arxiv.org/abs/1603.05027.

    Args:
        width: number of channels.
        activation: name of a function in ``torch.nn.functional``.
    """

    def __init__(self, width: int, activation: str):
        super().__init__()
        groups = gcd(width, max(1, width // 16))  # of 16 channels each, if 16 divides the width
        self.norms = nn.ModuleList(nn.GroupNorm(groups, width) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.activation = activation_function(activation)
        init_glorot(self)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: (N, width, H, W) -> (N, width, H, W)."""
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(self.activation(norm(h)))
        return x + h


def residual_blocks(num: int, width: int, activation: str) -> list[ResidualBlock]:
    """Return ``num`` residual blocks of the same width."""
    if num < 1:
        raise ValueError(f"blocks must be >= 1, got {num}: without residual blocks, use the conv network")
    return [ResidualBlock(width, activation) for _ in range(num)]


class ResNetEncoder(ConvEncoder):
    """An encoder of images: ``ConvEncoder`` with residual blocks after each convolution.

    Args:
        in_shape: shape of one image, (C, H, W).
        out_shape: shape of one output.
        channels: number of output channels of each convolution. Each convolution halves the image, rounding up.
        blocks: number of residual blocks after each convolution; >= 1.
        activation: name of a function in ``torch.nn.functional``.
        **kwargs: other arguments of ``ConvEncoder``.
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
    """A decoder of images: ``ConvDecoder`` with residual blocks before each transposed convolution.

    Args:
        in_shape: shape of one input.
        out_shape: shape of one image, (C, H, W).
        channels: the same list as for the encoder; used in reverse order.
        blocks: number of residual blocks before each transposed convolution; >= 1.
        activation: name of a function in ``torch.nn.functional``.
        **kwargs: other arguments of ``ConvDecoder``.
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
