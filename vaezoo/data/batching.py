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
    """One pass over a split for each epoch: an iterable of ``Batch``.

    The order of epoch e is a function of (seed, e) and a binarisation drawn afresh is one of
    (seed, e, batch, process); nothing else is remembered, so any epoch can be had again.

    In training each process takes every ``world_size``-th example of the order, which is filled up from its
    start until all have equally many. In evaluation they take whole batches in turn, the same ones as a single
    process, and every example is seen once.

    Args:
        split: the data, uint8.
        white: what a pixel is divided by: 255 for bytes, 1 for bits.
        batch_size: examples per batch and process; the last batch may be smaller.
        seed: names the order and the draws.
        shuffle: a new order each epoch, else that of the split.
        binarize: draw each pixel as a bit with probability pixel / 255, afresh each time.
        epoch: tells the epoch when a pass begins.
        rank: this process.
        world_size: number of processes.
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
        """This process's example indices in this epoch."""
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
        return (self.make(epoch, i, index) for i, index in enumerate(self.order(epoch).split(self.batch_size)))

    def make(self, epoch: int, number: int, index: Tensor) -> Batch:
        """Batch ``number`` of an epoch, which holds the examples ``index``."""
        images = self.split.images.index_select(0, index)  # twice as fast as images[index]
        if self.binarize:
            draw = seeding.generator(self.seed, "binarize", epoch, number, self.rank, device=images.device)
            x = bernoulli(images, draw).float()
        else:
            x = images.float() if self.max_value == 1 else images.float().div_(self.max_value)
        return Batch(x, self.split.labels.index_select(0, index))


class EpochBatches(Dataset[IndexedBatch]):
    """The batches of one epoch by their numbers: a data set whose examples are batches, for loader workers."""

    def __init__(self, batches: Batches, epoch: int):
        self.batches, self.epoch = batches, epoch
        order = batches.order(epoch).to(batches.split.labels.device)
        self.index = order.split(batches.batch_size)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> IndexedBatch:
        return IndexedBatch(number, self.index[number], self.batches.make(self.epoch, number, self.index[number]))


class BatchChunks:
    """Training batches, several at a time: what the trainer does between two batches is done once for all of them.

    A pass begins at the chunk that ``first_chunk`` tells, so a resumed epoch sees just the rest of its examples.

    Args:
        batches: the pass over the split.
        size: batches in a chunk; the last one of an epoch may have fewer.
        first_chunk: tells the chunk to begin with when a pass begins.
        num_workers: processes that make the batches ahead; with 0 they are made when they are asked for.
    """

    def __init__(self, batches: Batches, size: int, first_chunk: Callable[[], int] = lambda: 0, num_workers: int = 0):
        self.batches, self.size, self.first_chunk, self.num_workers = batches, size, first_chunk, num_workers

    def __len__(self) -> int:
        return -(-len(self.batches) // self.size)

    def num_batches(self, chunks: int) -> int:
        """Batches in the first ``chunks`` chunks of an epoch."""
        return min(chunks * self.size, len(self.batches))

    def __iter__(self) -> Iterator[BatchChunk]:
        epoch = EpochBatches(self.batches, self.batches.epoch())
        numbers = range(self.first_chunk() * self.size, len(epoch))
        parts = iter(
            DataLoader(epoch, batch_size=None, sampler=numbers, num_workers=self.num_workers)
            if self.num_workers
            else (epoch[number] for number in numbers)
        )
        for _ in range(0, len(numbers), self.size):
            yield BatchChunk(islice(parts, self.size))

    def state_dict(self) -> dict:
        """Nothing: the position is the trainer's. (Lightning warns of loaders without one.)"""
        return {}

    def load_state_dict(self, state_dict: dict) -> None:
        """Nothing to load."""


def bernoulli(images: Tensor, generator: torch.Generator) -> Tensor:
    """Bits that are 1 with probability pixel / 255, exactly: bool, of the images' shape."""
    # 255 equally likely levels 0 ... 254, of which `pixel` lie below the pixel.
    return images > torch.empty_like(images).random_(0, 255, generator=generator)
