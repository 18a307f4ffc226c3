"""Pairs of a condition c and an image x, made from images: what a model is given, and what it makes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vaezoo.data.splits import LazyExamples, Split
from vaezoo.errors import ConfigError

CONDITIONS = ("upper", "edges", "grey", "small")
SCALE = 4  # of a small image: each of its pixels is the mean of 4 x 4 pixels
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


def make_pairs(split: Split, condition: str, noun: str) -> Split:
    """Return images x and, in the place of their labels, conditions c in [0, 1], float32 (N, C, H, W).

    * ``upper``: c is the upper half, x the lower half, and a row in the middle is in x: no pixel is in both;
    * ``edges``: c is the strength of the edges (Sobel), x the image;
    * ``grey``: c is the luminance of a picture with 3 channels, x the picture;
    * ``small``: c is the image, smaller by ``SCALE`` in height and width, x the image.

    Args:
        split: images as bytes, (N, C, H, W).
        condition: what c is.
        noun: the word for one example.

    Raises:
        ConfigError: the images are not in memory, no images of bytes, or have no such condition.
    """
    x = split.x
    if isinstance(x, LazyExamples):
        raise ConfigError(f"data.condition={condition} needs the {noun}s in memory: use data.in_memory=true")
    if x.dim() != 4 or x.dtype != torch.uint8:
        raise ConfigError(
            f"data.condition={condition} is for images of bytes, but the {noun}s are {x.dtype} {tuple(x.shape[1:])}"
        )
    if (condition == "upper" and x.shape[2] < 2) or (condition == "grey" and x.shape[1] != 3):
        needs = "at least 2 rows" if condition == "upper" else "3 channels"
        raise ConfigError(f"data.condition={condition} needs images of {needs}, but they are {tuple(x.shape[1:])}")
    if condition == "upper":
        half = x.shape[2] // 2
        return Split(x[:, :, half:].contiguous(), x[:, :, :half].float() / 255)
    make = {"edges": edges, "grey": luminance, "small": reduce}[condition]
    return Split(x, torch.cat([make(part.float() / 255) for part in x.split(1000)]))


def luminance(images: Tensor) -> Tensor:
    """Return the brightness of images (N, C, H, W), (N, 1, H, W): the mean of the channels if they are not RGB."""
    weights = LUMINANCE if images.shape[1] == 3 else [1 / images.shape[1]] * images.shape[1]
    return torch.einsum("nchw,c->nhw", images, torch.tensor(weights)).unsqueeze(1)


def edges(images: Tensor) -> Tensor:
    """Return the strength of the edges of images (N, C, H, W), in [0, 1], (N, 1, H, W).

    It is the length of the Sobel gradient of the brightness, divided by 4, the value at an edge from black to white.

    >>> edges(torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4))[0, 0, 1]
    tensor([0., 1., 1., 0.])
    """
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([kernel, kernel.T]).unsqueeze(1)
    gradient = F.conv2d(F.pad(luminance(images), (1, 1, 1, 1), mode="replicate"), kernels)
    return (gradient.square().sum(1, keepdim=True).sqrt() / 4).clamp(max=1)


def reduce(images: Tensor) -> Tensor:
    """Return images that are smaller by ``SCALE``, rounded up; each pixel is the mean of those that it covers."""
    return F.avg_pool2d(images, SCALE, ceil_mode=True, count_include_pad=False)


def join(x: Tensor, c: Tensor, condition: str) -> Tensor:
    """Return images that show x (N, C, H, W) with its condition: c above its lower half, otherwise c at the left."""
    c = c.to(x).expand(-1, x.shape[1], -1, -1)
    if condition == "upper":
        return torch.cat([c, x], 2)
    return torch.cat([F.interpolate(c, x.shape[2:]), x], 3)
