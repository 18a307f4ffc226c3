"""Images in memory or made on demand, with their labels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class LazyImages:
    """Images made when they are asked for, where a tensor (N, C, H, W) of them all would be too large.

    Args:
        make: uint8 images (B, C, H, W) from their numbers (B,).
        index: numbers of the images that are here, (N,).
    """

    def __init__(self, make: Callable[[Tensor], Tensor], index: Tensor):
        self.make, self.index = make, index
        self.shape = torch.Size([len(index), *make(index[:1]).shape[1:]])

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        return self.make(self.index[which])

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """The images ``index`` (B,), made; ``dim`` is 0."""
        return self.make(self.index.index_select(dim, index))

    def select(self, which: Tensor) -> "LazyImages":
        """Some of the images, not made yet."""
        return LazyImages(self.make, self.index[which])


class Split(NamedTuple):
    """Images (N, C, H, W) as uint8, and their labels (N,), or factors (N, F)."""

    images: Tensor | LazyImages
    labels: Tensor

    def select(self, which: Tensor) -> "Split":
        """Some of the examples."""
        images = self.images
        return Split(images.select(which) if isinstance(images, LazyImages) else images[which], self.labels[which])


def describe_value(value: Any) -> str:
    """Return the type of a value for messages, with its size if it has one."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    size = f" of {len(value)}" if isinstance(value, list | tuple) else ""
    return f"a {type(value).__name__}{size}"


def check_split(split: Any, where: str) -> Split:
    """The split, if its images and labels are what ``ImageData`` takes.

    Args:
        split: what ``read`` returned: a ``Split``, or any pair of images and labels.
        where: names it in messages.
    """
    if not isinstance(split, tuple | list) or len(split) != 2:
        raise ValueError(f"{where} is {describe_value(split)}: return Split(images, labels)")
    images, labels = split
    sample = images[:1] if isinstance(images, LazyImages) else images
    if not isinstance(sample, Tensor):
        raise ValueError(
            f"the images of {where} are {describe_value(sample)}: give a uint8 tensor, as by torch.from_numpy"
        )
    if len(images.shape) != 4:
        raise ValueError(f"the images of {where} have the shape {tuple(images.shape)}: give (N, C, H, W)")
    if min(images.shape) == 0:
        raise ValueError(f"{where} holds no images, its shape is {tuple(images.shape)}: give at least one")
    if sample.dtype != torch.uint8:
        raise ValueError(f"the images of {where} {describe_pixels(sample)}")
    if not isinstance(labels, Tensor):
        raise ValueError(
            f"the labels of {where} are {describe_value(labels)}: give a tensor with a row for each image, "
            f"torch.zeros({len(images)}) if there are none"
        )
    if labels.shape[:1] != (len(images),):
        raise ValueError(
            f"the labels of {where} have the shape {tuple(labels.shape)}, but there are {len(images)} images: "
            f"give one row for each image"
        )
    return Split(images, labels)


def describe_pixels(images: Tensor) -> str:
    """Say what is wrong with images that are not uint8, and how to convert them."""
    if not (finite := images.isfinite()).all():
        row = int((~finite).flatten(1).any(1).nonzero()[0])
        return f"hold NaN or infinity in row {row}: repair or leave out that image"
    low, high = images.min().item(), images.max().item()
    if low >= 0 and high <= 1:
        advice = "multiply by 255 and convert to uint8, (255 * images).round().to(torch.uint8)"
    elif low >= 0 and high <= 255:
        advice = "convert to uint8, images.round().to(torch.uint8)"
    else:
        advice = "scale to 0 ... 255 and convert to uint8"
    return f"are {images.dtype} in [{low:g}, {high:g}]: {advice}"


def pixel_sum(images: Tensor | LazyImages) -> Tensor:
    """The exact sum of the images, int64 (C, H, W)."""
    # Whole numbers below 2^24 add up in float32 without rounding, and ten times faster than in int64.
    parts = [images[i : i + 1000].float().sum(0).long() for i in range(0, len(images), 1000)]
    return torch.stack(parts).sum(0)
