"""Batches of a split: one pass per epoch, several batches per Lightning step."""

import math
from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vaezoo import seeding
from vaezoo.data.splits import Split
from vaezoo.types import Batch, BatchChunk, IndexedBatch


class Batches:
    """Iterate over a split once per epoch, in ready-made batches.

    The order of epoch e is a function of (seed, e), and the bits of a fresh binarization are a function of
    (seed, e, batch, process). There is no other state, so any epoch can be repeated.

    With several processes and ``shuffle``, each process takes every ``world_size``-th example of the order; the first
    examples are repeated at the end so that all processes have equally many. Without ``shuffle``, the processes take
    whole batches in turn: the batches are those of a single process, and each example occurs once.

    Args:
        split: N images, uint8, and their labels.
        max_value: largest pixel value: 255 for bytes, 1 for bits. Pixels are divided by it.
        batch_size: examples per batch and process; the last batch may be smaller.
        seed: seed of the order and of fresh bits.
        shuffle: whether each epoch has a new order; if False, examples keep the order of the split.
        binarize: whether each pixel is drawn as a bit, 1 with probability pixel / 255, anew in each epoch.
        epoch: returns the epoch; called when a pass begins.
        rank: number of this process.
        world_size: number of processes.

    >>> images, labels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1), torch.tensor([7, 8, 9])
    >>> for x, y in Batches(Split(images, labels), max_value=255, batch_size=2):
    ...     print(x.flatten(), y)
    tensor([0.0000, 0.2000]) tensor([7, 8])
    tensor([1.]) tensor([9])
    """

    def __init__(
        self,
        split: Split,
        max_value: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        binarize: bool = False,
        epoch: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.split, self.max_value, self.batch_size, self.seed = split, max_value, batch_size, seed
        self.shuffle, self.binarize, self.epoch = shuffle, binarize, epoch
        self.rank, self.world_size = rank, world_size

    def order(self, epoch: int) -> Tensor:
        """Return the indices of this process's examples in an epoch, in order."""
        num = len(self.split.images)
        if not self.shuffle:
            return torch.cat(torch.arange(num).split(self.batch_size)[self.rank :: self.world_size])
        order = torch.randperm(num, generator=seeding.generator(self.seed, "order", epoch))
        missing = -num % self.world_size
        return torch.cat([order, order[:missing]])[self.rank :: self.world_size]

    def __len__(self) -> int:
        num, size = len(self.split.images), self.batch_size
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
        images = self.split.images.index_select(0, index)  # twice as fast as images[index]
        if self.binarize:
            draw = seeding.generator(self.seed, "binarize", epoch, batch_idx, self.rank, device=images.device)
            x = bernoulli(images, draw).float()
        else:
            x = images.float() if self.max_value == 1 else images.float().div_(self.max_value)
        return Batch(x, self.split.labels.index_select(0, index))


class EpochBatches(Dataset[IndexedBatch]):
    """Hold the batches of one epoch: a data set whose examples are batches, for loader workers."""

    def __init__(self, batches: Batches, epoch: int):
        self.batches, self.epoch = batches, epoch
        order = batches.order(epoch).to(batches.split.labels.device)
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


def bernoulli(images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw bits that are 1 with probability pixel / 255, exactly: bool, of the images' shape."""
    # A draw is uniform over the 255 values 0 ... 254, of which exactly `pixel` are below the pixel.
    return images > torch.empty_like(images).random_(0, 255, generator=generator)
