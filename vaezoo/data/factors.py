"""Images on a full grid of known factors, which disentanglement metrics need."""

from abc import abstractmethod
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from vaezoo import seeding
from vaezoo.data.images import ImageData
from vaezoo.data.splits import LazyExamples, Split, pixel_sum


class FactorData(ImageData):
    """Provide the images of a full grid: each combination of F factors once, the last factor fastest.

    All pixels are 0 or 255. Labels are (N, F): the class of each factor, counted from 0. Such a grid has no published
    split: ``test_size`` images are drawn once, the same for all seeds. Their neighbors on the grid are training
    images, so the test set measures the fit, not generalization to new values of a factor.

    A subclass defines ``make``, calls ``set_factors`` and sets ``grid_sum``.

    Attributes:
        factor_names: F names.
        factor_sizes: number of classes of each of the F factors.
        factor_values: the value of each class, for example an angle: F tensors (size,).
        grid_sum: sum of all images of the grid, int64 (C, H, W).

    Args:
        test_size: number of test images.
        **kwargs: arguments of ``ImageData``.

    Raises:
        ValueError: ``test_size`` is below 1.
    """

    binary = True
    default_binarize = "dynamic"
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
        """Set the names of the factors and the values of their classes, the slowest factor first."""
        self.factor_names, self.factor_values = tuple(names), tuple(values)
        self.factor_sizes = tuple(len(value) for value in values)

    @abstractmethod
    def make(self, index: Tensor) -> Tensor:
        """Return the images at positions ``index`` (B,) of the grid: uint8 (B, C, H, W), 0 or 255."""

    def render(self, factors: Tensor) -> Tensor:
        """Return the images of given factors, as the model sees them.

        Args:
            factors: the class of each factor, (B, F).

        Returns:
            Images, float (B, C, H, W), 0 or 1.

        Raises:
            ValueError: a class is out of range, or there are not F of them.
        """
        sizes = torch.tensor(self.factor_sizes)
        if factors.dim() != 2 or factors.shape[1] != len(sizes) or not ((factors >= 0) & (factors < sizes)).all():
            raise ValueError(
                f"factors must be a tensor (B, {len(sizes)}) of classes >= 0 and < {self.factor_sizes}, the sizes of "
                f"{self.factor_names}"
            )
        strides = torch.tensor([prod(self.factor_sizes[i + 1 :]) for i in range(len(sizes))])
        return self.make((factors * strides).sum(1)).float().div_(255)

    def grid(self) -> Split:
        """Return all images, which are made when they are indexed, and their factors."""
        index = torch.arange(prod(self.factor_sizes))
        return Split(LazyExamples(self.make, index), torch.stack(torch.unravel_index(index, self.factor_sizes), 1))

    @property
    def mean(self) -> Tensor:
        # The sum over the grid minus the other splits: making all training images would take many seconds.
        held_out = pixel_sum(self.val.x) + pixel_sum(self.test.x)
        return ((self.grid_sum - held_out) / (self.num_train * 255)).float()

    def read(self) -> tuple[Split, Split]:
        split = self.grid()
        num = len(split.x)
        if self.test_size >= num:
            raise ValueError(f"data.test_size={self.test_size} leaves nothing of {num} images")
        order = torch.randperm(num, generator=seeding.generator(0, "factors"))
        # Not sorted, so that the first images of a split, which pictures show, have all classes.
        return split.select(order[self.test_size :]), split.select(order[: self.test_size])
