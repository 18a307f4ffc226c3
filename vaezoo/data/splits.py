"""Images, in memory or made on demand, with their labels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class LazyImages:
    """Hold images that are made when they are indexed, for sets too large for one tensor (N, C, H, W).

    Args:
        make: returns uint8 images (B, C, H, W) for their numbers (B,).
        index: numbers of the N images in this set, (N,).
    """

    def __init__(self, make: Callable[[Tensor], Tensor], index: Tensor):
        self.make, self.index = make, index
        self.shape = torch.Size([len(index), *make(index[:1]).shape[1:]])

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        return self.make(self.index[which])

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Make the images at positions ``index`` (B,); ``dim`` must be 0, as in ``Tensor.index_select``."""
        return self.make(self.index.index_select(dim, index))

    def select(self, which: Tensor) -> "LazyImages":
        """Return a subset whose images are not made yet."""
        return LazyImages(self.make, self.index[which])


class Split(NamedTuple):
    """Images and their labels: one of the training, validation and test sets.

    Args:
        images: uint8, (N, C, H, W).
        labels: labels (N,), or factors (N, F).
    """

    images: Tensor | LazyImages
    labels: Tensor

    def select(self, which: Tensor) -> "Split":
        """Return a subset of the examples."""
        images = self.images
        return Split(images.select(which) if isinstance(images, LazyImages) else images[which], self.labels[which])


def describe_value(value: Any) -> str:
    """Describe a value for an error message: its type and, if it has one, its size."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    size = f" of {len(value)}" if isinstance(value, list | tuple) else ""
    return f"a {type(value).__name__}{size}"


def check_split(split: Any, name: str) -> Split:
    """Return the split if ``ImageData`` can use it.

    Args:
        split: a ``Split``, or any pair of images and labels.
        name: name of the split in error messages.

    Raises:
        ValueError: the images are not uint8 (N, C, H, W) with N >= 1, or the labels are not a tensor of N rows.
    """
    if not isinstance(split, tuple | list) or len(split) != 2:
        raise ValueError(f"{name} is {describe_value(split)}: return Split(images, labels)")
    images, labels = split
    sample = images[:1] if isinstance(images, LazyImages) else images
    if not isinstance(sample, Tensor):
        raise ValueError(
            f"the images of {name} are {describe_value(sample)}: give a uint8 tensor, for example torch.from_numpy(...)"
        )
    if len(images.shape) != 4:
        raise ValueError(f"the images of {name} have the shape {tuple(images.shape)}: give (N, C, H, W)")
    if min(images.shape) == 0:
        raise ValueError(f"{name} holds no images, its shape is {tuple(images.shape)}: give at least one")
    if sample.dtype != torch.uint8:
        raise ValueError(f"the images of {name} {describe_pixels(sample)}")
    if not isinstance(labels, Tensor):
        raise ValueError(
            f"the labels of {name} are {describe_value(labels)}: give a tensor with a row for each image, "
            f"torch.zeros({len(images)}) if there are no labels"
        )
    if labels.shape[:1] != (len(images),):
        raise ValueError(
            f"the labels of {name} have the shape {tuple(labels.shape)}, but there are {len(images)} images: "
            f"give one row for each image"
        )
    return Split(images, labels)


def describe_pixels(images: Tensor) -> str:
    """Say what is wrong with images that are not uint8, and how to convert them."""
    if not (finite := images.isfinite()).all():
        row = int((~finite).flatten(1).any(1).nonzero()[0])
        return f"hold NaN or infinity in row {row}: repair or remove that image"
    low, high = images.min().item(), images.max().item()
    if low >= 0 and high <= 1:
        advice = "multiply by 255 and convert to uint8, (255 * images).round().to(torch.uint8)"
    elif low >= 0 and high <= 255:
        advice = "convert to uint8, images.round().to(torch.uint8)"
    else:
        advice = "scale to 0 ... 255 and convert to uint8"
    return f"are {images.dtype} in [{low:g}, {high:g}]: {advice}"


def pixel_sum(images: Tensor | LazyImages) -> Tensor:
    """Return the exact sum over the images, int64 (C, H, W)."""
    # Sums below 2^24 of whole numbers are exact in float32, and ten times faster than in int64.
    parts = [images[i : i + 1000].float().sum(0).long() for i in range(0, len(images), 1000)]
    return torch.stack(parts).sum(0)
