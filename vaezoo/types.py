"""Types that several packages share: shapes, batches and what makes a network."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn

Shape = Sequence[int]
NetFactory = Callable[[Shape, Shape], nn.Module]


class Batch(NamedTuple):
    """What a data module hands over: images (B, C, H, W) as floats, and labels (B,) or factors (B, F)."""

    x: Tensor
    y: Tensor


class IndexedBatch(NamedTuple):
    """A training batch and where it stands: its number in the epoch, and the examples in it, (B,), where known."""

    batch_idx: int
    example_ids: Tensor | None
    batch: Batch


class BatchChunk:
    """Consecutive training batches, each made when it is asked for: an iterable that Lightning leaves as it is."""

    def __init__(self, batches: Iterator[IndexedBatch]):
        self.batches = batches

    def __iter__(self) -> Iterator[IndexedBatch]:
        return self.batches
