"""Types that several packages share: shapes, factories of networks, and batches."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Shape = Sequence[int]
NetFactory = Callable[[Shape, Shape], nn.Module]  # from (in_shape, out_shape)


class Batch(NamedTuple):
    """A batch of a data module.

    Args:
        x: data as floats; images are (B, C, H, W).
        y: labels (B,), or factors (B, F).
    """

    x: Tensor
    y: Tensor


class Cells(NamedTuple):
    """The cells of N rows of a table with D columns, to be drawn.

    Args:
        names: names of the columns.
        levels: (N, D); numbers in standard deviations from the mean, categories as codes 0, 1, ...; NaN is missing.
        texts: the value of each cell in the user's units.
        is_category: whether a column holds categories.
        note: what else the picture says of numbers.
    """

    names: list[str]
    levels: NDArray[np.float64]
    texts: list[list[str]]
    is_category: list[bool]
    note: str = ""


def to_batch(batch: Any) -> Batch:
    """Return what a loader gives as a ``Batch``. Data without labels get the label -1, which marks a missing one.

    >>> to_batch([torch.zeros(2, 3)]).y
    tensor([-1, -1])

    Args:
        batch: a ``Batch``, a pair (x, y), or x alone.

    Raises:
        ValueError: the loader gives something else.
    """
    if isinstance(batch, Batch):
        return batch
    parts = batch if isinstance(batch, tuple | list) else [batch]
    if len(parts) == 2:
        return Batch(*parts)
    if len(parts) == 1 and isinstance(parts[0], Tensor) and parts[0].dim() > 0:
        return Batch(parts[0], torch.full((len(parts[0]),), -1, device=parts[0].device))
    size = f" of {len(parts)}" if isinstance(batch, tuple | list) else ""
    raise ValueError(
        f"the loader gives a {type(batch).__name__}{size}, but a model takes a pair of tensors (x, y), or x alone: let "
        f"its data set or its collate_fn return one of them"
    )


class IndexedBatch(NamedTuple):
    """A training batch and its place in the epoch.

    Args:
        batch_idx: index of the batch in the epoch.
        example_ids: indices of its examples in the training set, (B,); None if unknown.
        batch: the batch itself.
    """

    batch_idx: int
    example_ids: Tensor | None
    batch: Batch


class BatchChunk:
    """Several consecutive training batches, for one step of Lightning.

    It can be iterated once, and each batch is made when it is asked for. It is not a list, so that Lightning does not
    move its batches to the device.

    Args:
        batches: the batches.
    """

    def __init__(self, batches: Iterator[IndexedBatch]):
        self.batches = batches

    def __iter__(self) -> Iterator[IndexedBatch]:
        return self.batches
