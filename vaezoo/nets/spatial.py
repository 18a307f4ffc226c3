"""Convolutional encoder and decoder of images without fully connected layers: the latent is a map (C, h, w)."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from vaezoo.nets.conv import Downsample, Upsample, check_image, downsampled_sizes
from vaezoo.nets.mlp import activation_function, check_widths, init_glorot
from vaezoo.types import Shape


def check_map(latent: Shape, image: Shape, times: int, role: str) -> tuple[list[tuple[int, int]], int]:
    """Return the sizes of the image before and after each halving, and the number of channels of the latent side.

    Args:
        latent: shape on the side of the latent, (C, h, w).
        image: shape of one image, (C, H, W).
        times: how often the image is halved.
        role: "encoder" or "decoder".

    Raises:
        ValueError: the latent is not a map of the size of the image after all halvings.
    """
    _, height, width = check_image(image, role)
    sizes = downsampled_sizes(height, width, times)
    if len(latent) != 3 or tuple(latent[1:]) != sizes[-1]:
        h, w = sizes[-1]
        raise ValueError(
            f"a spatial {role} with {times} convolutions halves images of {height} x {width} pixels to {h} x {w}, but "
            f"the latent side has the shape {tuple(latent)}: use model.latent_dim=[CHANNELS,{h},{w}]"
        )
    return sizes, latent[0]


def check_kernel(kernel: int) -> None:
    """Raise a ValueError if the size of a kernel is below 1."""
    if kernel < 1:
        raise ValueError(f"kernel must be >= 1, got {kernel}")


class SpatialEncoder(nn.Module):
    """An encoder of images to maps: convolutions with stride 2, then a 3x3 convolution to the output.

    It is ``ConvEncoder`` without fully connected layers, so each place of the latent depends on a part of the image,
    as in the autoencoders of latent diffusion (Rombach et al. 2022, https://arxiv.org/abs/2112.10752).

    >>> SpatialEncoder((3, 32, 32), (8, 4, 4)).out.out_channels
    8

    Args:
        in_shape: shape of one image, (C, H, W).
        out_shape: shape of one output, (C, h, w), with the size of the image after all convolutions.
        channels: number of output channels of each convolution. Each convolution halves the image, rounding up.
        activation: name of a function in ``torch.nn.functional``.
        kernel: size of the kernel of each convolution with stride 2.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: Sequence[int] = (32, 64, 128),
        activation: str = "silu",
        kernel: int = 3,
    ):
        super().__init__()
        widths = [in_shape[0], *check_widths("channels", channels)]
        check_kernel(kernel)
        _, out_channels = check_map(out_shape, in_shape, len(channels), "encoder")
        self.convs = nn.ModuleList(Downsample(a, b, kernel) for a, b in pairwise(widths))
        self.out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)
        self.activation = activation_function(activation)
        init_glorot(self)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the network: (N, C, H, W) -> (N, *out_shape)."""
        h = inputs
        for conv in self.convs:
            h = self.activation(conv(h))
        return self.out(h)


class SpatialDecoder(nn.Module):
    """A decoder from maps to images, ``SpatialEncoder`` in reverse: a 3x3 convolution, then transposed convolutions.

    Args:
        in_shape: shape of one input, (C, h, w), with the size of the image after all convolutions of the encoder.
        out_shape: shape of one image, (C, H, W).
        channels: the same list as for the encoder; used in reverse order.
        activation: name of a function in ``torch.nn.functional``.
        kernel: size of the kernel of each transposed convolution.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: Sequence[int] = (32, 64, 128),
        activation: str = "silu",
        kernel: int = 3,
    ):
        super().__init__()
        widths = [*reversed(check_widths("channels", channels)), out_shape[0]]
        check_kernel(kernel)
        sizes, in_channels = check_map(in_shape, out_shape, len(channels), "decoder")
        self.first = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        steps = zip(pairwise(widths), pairwise(sizes[::-1]), strict=True)
        self.convs = nn.ModuleList(Upsample(a, b, kernel, small, large) for (a, b), (small, large) in steps)
        self.activation = activation_function(activation)
        init_glorot(self)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the network: (N, *in_shape) -> (N, C, H, W)."""
        h = self.first(inputs)
        for conv in self.convs:
            h = conv(self.activation(h))
        return h
