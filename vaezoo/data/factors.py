"""Images on a full grid of known factors, for data sets that judge disentanglement."""

from abc import abstractmethod
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from vaezoo import seeding
from vaezoo.data.images import ImageData
from vaezoo.data.splits import LazyImages, Split, pixel_sum


class FactorData(ImageData):
    """Every combination of some factors once, the last factor fastest; the images are 0 and 255 alone.

    Labels are (N, F): the class of each factor, counted from 0. No such grid has a published split:
    ``test_size`` images are drawn from it once and for all, whatever the seeds. Their neighbours on
    the grid stay in training, so that the test set measures the fit and no more.

    A data set defines ``make``, calls ``set_factors`` and sets ``grid_total``.

    Attributes:
        factor_names: F names.
        factor_sizes: number of classes of each factor.
        factor_values: what each class stands for: F tensors (size,).
        grid_total: the sum of all images, int64 (C, H, W).

    Args:
        test_size: number of test images.
        **kwargs: those of ``ImageData``.
    """

    binary = True
    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]
    factor_values: tuple[Tensor, ...]
    grid_sum: Tensor

    def __init__(self, test_size: int = 10_000, **kwargs):
        super().__init__(**kwargs)
        if test_size < 1:
            raise ValueError(f"data.test_size must be >= 1, got {test_size}")
        self.test_size = test_size

    def set_factors(self, names: Sequence[str], values: Sequence[Tensor]) -> None:
        """Name the factors and what their classes stand for, the slowest first."""
        self.factor_names, self.factor_values = tuple(names), tuple(values)
        self.factor_sizes = tuple(len(value) for value in values)

    @abstractmethod
    def make(self, index: Tensor) -> Tensor:
        """The images at places ``index`` (B,) of the grid: uint8 (B, C, H, W), 0 or 255."""

    def render(self, factors: Tensor) -> Tensor:
        """The images of given factors, as the model sees them.

        Args:
            factors: the class of each factor, (B, F).

        Returns:
            float (B, C, H, W), 0 or 1.
        """
        sizes = torch.tensor(self.factor_sizes)
        if factors.dim() != 2 or factors.shape[1] != len(sizes) or not ((factors >= 0) & (factors < sizes)).all():
            raise ValueError(
                f"factors must be (B, {len(sizes)}) with classes below {self.factor_sizes} of {self.factor_names}"
            )
        strides = torch.tensor([prod(self.factor_sizes[i + 1 :]) for i in range(len(sizes))])
        return self.make((factors * strides).sum(1)).float().div_(255)

    def grid(self) -> Split:
        """All images, made when asked for, and their factors."""
        index = torch.arange(prod(self.factor_sizes))
        return Split(LazyImages(self.make, index), torch.stack(torch.unravel_index(index, self.factor_sizes), 1))

    @property
    def mean(self) -> Tensor:
        # What is not held out: making all training images would take many seconds.
        held_out = pixel_sum(self.val.images) + pixel_sum(self.test.images)
        return ((self.grid_sum - held_out) / (self.num_train * 255)).float()

    def read(self) -> tuple[Split, Split]:
        whole = self.grid()
        num = len(whole.images)
        if self.test_size >= num:
            raise ValueError(f"data.test_size={self.test_size} leaves nothing of {num} images")
        order = torch.randperm(num, generator=seeding.generator(0, "factors"))
        # Left in this order: the first few of a split, as in pictures, show all classes.
        return whole.select(order[self.test_size :]), whole.select(order[: self.test_size])
