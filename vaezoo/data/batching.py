"""Batches of a split: one pass per epoch, several batches per Lightning step."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vaezoo import seeding
from vaezoo.data.splits import Split
from vaezoo.types import Batch, BatchChunk, IndexedBatch

ToModel = Callable[[Tensor, Callable[[], torch.Generator]], Tensor]


class Batches:
    """Iterate over a split once per epoch, in ready-made batches.

    The order of epoch e is a function of (seed, e), and the random numbers of a batch, such as the bits of a fresh
    binarization, are a function of (seed, e, batch, process). There is no other state, so any epoch can be repeated.

    With several processes and ``shuffle``, each process takes every ``world_size``-th example of the order; the first
    examples are repeated at the end so that all processes have equally many. Without ``shuffle``, the processes take
    whole batches in turn: the batches are those of a single process, and each example occurs once.

    Args:
        split: N examples as they are stored, and their labels.
        batch_size: examples per batch and process; the last batch may be smaller.
        to_model: returns the examples of a batch as the model sees them, from the stored ones and a function that makes
            the batch's random generator.
        seed: seed of the order and of the batches' random numbers.
        shuffle: whether each epoch has a new order; if False, examples keep the order of the split.
        epoch: returns the epoch; called when a pass begins.
        rank: number of this process.
        world_size: number of processes.
        index: indices of the examples in an epoch, in which some may be repeated; None: each example once.

    >>> for x, y in Batches(Split(torch.tensor([[0.5], [1.5], [2.5]]), torch.tensor([7, 8, 9])), batch_size=2):
    ...     print(x.flatten(), y)
    tensor([0.5000, 1.5000]) tensor([7, 8])
    tensor([2.5000]) tensor([9])
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        to_model: ToModel = lambda x, draw: x,
        seed: int = 0,
        shuffle: bool = False,
        epoch: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
        index: Tensor | None = None,
    ):
        self.split, self.batch_size, self.to_model, self.seed = split, batch_size, to_model, seed
        self.shuffle, self.epoch = shuffle, epoch
        self.rank, self.world_size, self.index = rank, world_size, index

    @property
    def num(self) -> int:
        """Number of examples in an epoch."""
        return len(self.split.x) if self.index is None else len(self.index)

    def order(self, epoch: int) -> Tensor:
        """Return the indices of this process's examples in an epoch, in order."""
        num = self.num
        if not self.shuffle:
            places = torch.cat(torch.arange(num).split(self.batch_size)[self.rank :: self.world_size])
        else:
            order = torch.randperm(num, generator=seeding.generator(self.seed, "order", epoch))
            missing = -num % self.world_size
            places = torch.cat([order, order[:missing]])[self.rank :: self.world_size]
        return places if self.index is None else self.index[places]

    def __len__(self) -> int:
        num, size = self.num, self.batch_size
        if self.shuffle:
            return math.ceil(math.ceil(num / self.world_size) / size)
        return len(range(self.rank, math.ceil(num / size), self.world_size))

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch()
        indices = self.order(epoch).split(self.batch_size)
        return (self.make(epoch, batch_idx, index) for batch_idx, index in enumerate(indices))

    def make(self, epoch: int, batch_idx: int, index: Tensor) -> Batch:
        """Make a batch.

        Args:
            epoch: epoch, counted from 0.
            batch_idx: number of the batch in the epoch, counted from 0.
            index: indices of its examples, (B,).
        """
        x = self.split.x.index_select(0, index)  # twice as fast as x[index]
        draw = partial(seeding.generator, self.seed, "binarize", epoch, batch_idx, self.rank, device=x.device)
        return Batch(self.to_model(x, draw), self.split.y.index_select(0, index))


class EpochBatches(Dataset[IndexedBatch]):
    """Hold the batches of one epoch: a data set whose examples are batches, for loader workers."""

    def __init__(self, batches: Batches, epoch: int):
        self.batches, self.epoch = batches, epoch
        order = batches.order(epoch).to(batches.split.y.device)
        self.index = order.split(batches.batch_size)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, batch_idx: int) -> IndexedBatch:
        index = self.index[batch_idx]
        return IndexedBatch(batch_idx, index, self.batches.make(self.epoch, batch_idx, index))


class ChunkLoader:
    """Iterate over training batches in chunks: Lightning's work between two steps is then done once per chunk.

    A pass begins at the chunk ``first_chunk()``, so a resumed epoch sees only the examples that are left.

    Args:
        batches: batches of the epoch.
        size: batches in a chunk; the last chunk of an epoch may have fewer.
        first_chunk: returns the number of the chunk to begin with; called when a pass begins.
        num_workers: processes that make batches ahead. 0: this process makes each batch when it is needed.
    """

    def __init__(self, batches: Batches, size: int, first_chunk: Callable[[], int] = lambda: 0, num_workers: int = 0):
        self.batches, self.size, self.first_chunk, self.num_workers = batches, size, first_chunk, num_workers

    def __len__(self) -> int:
        return -(-len(self.batches) // self.size)

    def num_batches(self, chunks: int) -> int:
        """Return the number of batches in the first ``chunks`` chunks of an epoch."""
        return min(chunks * self.size, len(self.batches))

    def __iter__(self) -> Iterator[BatchChunk]:
        epoch = EpochBatches(self.batches, self.batches.epoch())
        indices = range(self.first_chunk() * self.size, len(epoch))
        batches = iter(
            DataLoader(epoch, batch_size=None, sampler=indices, num_workers=self.num_workers)
            if self.num_workers
            else (epoch[batch_idx] for batch_idx in indices)
        )
        for _ in range(0, len(indices), self.size):
            yield BatchChunk(islice(batches, self.size))

    def state_dict(self) -> dict:
        """Return nothing: the trainer knows the position. Lightning warns about loaders without this method."""
        return {}

    def load_state_dict(self, state_dict: dict) -> None:
        """Load nothing."""


class BatchLoader(ChunkLoader):
    """Iterate over training batches one by one, for other loops than our own; ``size`` is 1."""

    def __iter__(self) -> Iterator[Any]:  # of Batch
        for chunk in super().__iter__():
            for item in chunk:
                yield item.batch
