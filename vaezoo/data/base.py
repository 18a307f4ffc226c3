"""Images held as one uint8 tensor, or made by the batch; batches with no work per example."""

import math
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vaezoo import seeding
from vaezoo.conditional import Shape
from vaezoo.models.training import Batch, Chunk, Numbered

BINARIZE = ("dynamic", "static", "threshold", "none")


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
        white: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        binarize: bool = False,
        epoch: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.split, self.white, self.batch_size, self.seed = split, white, batch_size, seed
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
            x = images.float() if self.white == 1 else images.float().div_(self.white)
        return Batch(x, self.split.labels.index_select(0, index))


class Epoch(Dataset[Numbered]):
    """The batches of one epoch by their numbers: a data set whose examples are batches, for loader workers."""

    def __init__(self, batches: Batches, epoch: int):
        self.batches, self.epoch = batches, epoch
        order = batches.order(epoch).to(batches.split.labels.device)
        self.index = order.split(batches.batch_size)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Numbered:
        return Numbered(number, self.index[number], self.batches.make(self.epoch, number, self.index[number]))


class Chunks:
    """Training batches, several at a time: what the trainer does between two batches is done once for all of them.

    A pass begins at the chunk that ``first`` tells, so a resumed epoch sees just the rest of its examples.

    Args:
        batches: the pass over the split.
        size: batches in a chunk; the last one of an epoch may have fewer.
        first: tells the chunk to begin with when a pass begins.
        num_workers: processes that make the batches ahead; with 0 they are made when they are asked for.
    """

    def __init__(self, batches: Batches, size: int, first: Callable[[], int] = lambda: 0, num_workers: int = 0):
        self.batches, self.size, self.first, self.num_workers = batches, size, first, num_workers

    def __len__(self) -> int:
        return -(-len(self.batches) // self.size)

    def num_batches(self, chunks: int) -> int:
        """Batches in the first ``chunks`` chunks of an epoch."""
        return min(chunks * self.size, len(self.batches))

    def __iter__(self) -> Iterator[Chunk]:
        epoch = Epoch(self.batches, self.batches.epoch())
        numbers = range(self.first() * self.size, len(epoch))
        parts = iter(
            DataLoader(epoch, batch_size=None, sampler=numbers, num_workers=self.num_workers)
            if self.num_workers
            else (epoch[number] for number in numbers)
        )
        for _ in range(0, len(numbers), self.size):
            yield Chunk(islice(parts, self.size))

    def state_dict(self) -> dict:
        """Nothing: the position is the trainer's. (Lightning warns of loaders without one.)"""
        return {}

    def load_state_dict(self, state_dict: dict) -> None:
        """Nothing to load."""


def bernoulli(images: Tensor, generator: torch.Generator) -> Tensor:
    """Bits that are 1 with probability pixel / 255, exactly: bool, of the images' shape."""
    # 255 equally likely levels 0 ... 254, of which `pixel` lie below the pixel.
    return images > torch.empty_like(images).random_(0, 255, generator=generator)


def total(images: Tensor | LazyImages) -> Tensor:
    """The exact sum of the images, int64 (C, H, W)."""
    # Whole numbers below 2^24 add up in float32 without rounding, and ten times faster than in int64.
    parts = [images[i : i + 1000].float().sum(0).long() for i in range(0, len(images), 1000)]
    return torch.stack(parts).sum(0)


class ImageData(pl.LightningDataModule):
    """Train, validation and test images; a data set defines ``read`` and no more.

    The test split is the published one where there is one. Validation is ``val_size`` examples of
    the training set, chosen by ``split_seed`` alone, so that runs with other seeds stay comparable.

    Binarisation: ``dynamic`` draws each training pixel afresh whenever it is seen (Salakhutdinov &
    Murray 2008) and once for validation and test, by ``split_seed``; ``static`` draws once for all;
    ``threshold`` is pixel > 127; ``none`` leaves bytes, as k / 255.

    Attributes:
        binary: the images are 0 and 255 alone, so that all four give the same and nothing is drawn.
        eval_batch_size: examples in a pass of evaluation. It is no option: a pass draws its noise together, so that
            another size would give other numbers. A class of larger images may set its own.

    Args:
        shape: (C, H, W) of the images; checked when they are read. None: whatever is read.
        root: folder of the files.
        batch_size: examples per training step and process.
        binarize: ``dynamic``, ``static``, ``threshold`` or ``none``.
        val_size: number of validation examples.
        split_seed: names the validation split and the fixed binarisation.
        seed: names the order of the examples and the fresh binarisation.
        chunk: training batches that are handed to the trainer at a time: hooks of callbacks are called, and
            checkpoints written, between chunks, so that Lightning's own callbacks see every chunk-th step. It is 1
            where the trainer counts batches or steps (``limit_train_batches``, ``val_check_interval``, ``max_steps``).
        num_workers: processes that make the training batches ahead. None: none, but up to 4 for a GPU that does not
            hold the images.
        on_device: hold the training images on the GPU that trains, if it is one and there are no workers. None:
            where they take less than half of its free memory, which is printed.
    """

    binary = False
    eval_batch_size = 100

    def __init__(
        self,
        shape: Shape | None = None,
        root: str = "data",
        batch_size: int = 128,
        binarize: str = "dynamic",
        val_size: int = 1000,
        split_seed: int = 0,
        seed: int = 0,
        chunk: int = 1,
        num_workers: int | None = None,
        on_device: bool | None = None,
    ):
        super().__init__()
        if binarize not in BINARIZE:
            raise ValueError(f"data.binarize={binarize} is not one of {', '.join(BINARIZE)}")
        least = {"batch_size": 1, "val_size": 1, "chunk": 1, "num_workers": 0}
        given = (batch_size, val_size, chunk, num_workers or 0)
        for (name, bound), value in zip(least.items(), given, strict=True):
            if value < bound:
                raise ValueError(f"data.{name} must be >= {bound}, got {value}")
        self.shape = None if shape is None else tuple(shape)
        self.root, self.batch_size = root, batch_size
        self.binarize, self.val_size, self.split_seed, self.seed = binarize, val_size, split_seed, seed
        self.chunk, self.num_workers, self.on_device = chunk, num_workers, on_device
        self.train: Split | None = None

    @property
    def support(self) -> str:
        """The kind of data in the batches (``vaezoo.families``)."""
        return "byte" if self.binarize == "none" else "binary"

    @property
    def as_read(self) -> bool:
        """Whether the splits hold the images as they were read."""
        return self.binary or self.binarize == "none"

    @property
    def mean(self) -> Tensor:
        """The mean training image as the model sees it, (C, H, W)."""
        assert self.train is not None
        images = self.train.images
        bits = self.binarize in ("static", "threshold") and not self.binary
        return (total(images) / (len(images) * (1 if bits else 255))).float()

    @property
    def num_train(self) -> int:
        """Number of training images."""
        assert self.train is not None
        return len(self.train.images)

    def examples(self, num: int) -> Batch:
        """``num`` training examples, or all there are, as the model sees them; always the same ones."""
        assert self.train is not None
        batches = self.batches(self.train, training=True, batch_size=num)
        batches.epoch, batches.rank, batches.world_size = lambda: 0, 0, 1  # the same in every process
        return next(iter(batches))

    @abstractmethod
    def read(self) -> tuple[Split, Split]:
        """The training set (validation included) and the test set."""

    def setup(self, stage: str | None = None) -> None:
        """Read, check, split and binarise the data, once."""
        if self.train is not None:
            return
        full, test = self.check_splits(self.read())
        shape = tuple(full.images.shape[1:])
        if self.shape is not None and self.shape != shape:
            raise ValueError(f"data.shape is {self.shape}, but the images of {type(self).__name__} are {shape}")
        self.shape = shape
        num = len(full.images)
        if self.val_size >= num:
            raise ValueError(f"data.val_size={self.val_size} leaves nothing of {num} training images")
        order = torch.randperm(num, generator=seeding.generator(self.split_seed, "split"))
        val, train = order[: self.val_size].sort().values, order[self.val_size :].sort().values
        if self.batch_size > len(train):
            raise ValueError(
                f"data.batch_size={self.batch_size} is larger than the {len(train)} training images of "
                f"{type(self).__name__}: use data.batch_size={len(train)} or less"
            )
        self.train = full.select(train)
        if self.binarize != "dynamic":
            self.train = self.fixed(self.train, "train")
        self.val = self.fixed(full.select(val), "val")
        self.test = self.fixed(test, "test")

    def check_splits(self, splits: Any) -> tuple[Split, Split]:
        """Return the training and the test set that ``read`` returned, if they are what this class can use.

        Raises:
            ValueError: they are not two pairs of images and labels that fit each other.
        """
        owner = f"{type(self).__name__}.read()"
        if not isinstance(splits, tuple | list) or len(splits) != 2:
            raise ValueError(
                f"{owner} returned {describe_value(splits)}: return two Split(images, labels), training and test"
            )
        train, test = (
            check_split(split, f"the {name} set of {owner}")
            for name, split in zip(("training", "test"), splits, strict=True)
        )
        if train.images.shape[1:] != test.images.shape[1:]:
            raise ValueError(
                f"{owner} returned training images of shape {tuple(train.images.shape[1:])} and test images of shape "
                f"{tuple(test.images.shape[1:])}: give all images one shape (C, H, W)"
            )
        return train, test

    def fixed(self, split: Split, name: str) -> Split:
        """The split as it is seen every time: bytes, thresholded bits, or bits drawn once."""
        if self.as_read:
            return split
        assert isinstance(split.images, Tensor)
        if self.binarize == "threshold":
            return Split((split.images > 127).to(torch.uint8), split.labels)
        draw = seeding.generator(self.split_seed, "binarize", name)
        bits = torch.empty_like(split.images)
        for images, part in zip(split.images.split(1000), bits.split(1000), strict=True):  # to spare memory
            part.copy_(bernoulli(images, draw))
        return Split(bits, split.labels)

    @property
    def device(self) -> torch.device:
        """Where the trainer that this module is attached to trains."""
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def held(self, split: Split) -> Split:
        """The split where its batches are made: on the GPU that trains, if ``on_device`` says so."""
        device = self.device
        if device.type != "cuda" or not isinstance(split.images, Tensor) or self.num_workers or self.on_device is False:
            return split
        size, free = split.images.nbytes, torch.cuda.mem_get_info(device)[0]
        if self.on_device is None and size > free / 2:
            print(f"the training images ({size / 1e6:,.0f} MB) stay in memory: {device} has {free / 1e6:,.0f} MB free")
            return split
        print(f"the training images ({size / 1e6:,.0f} MB) are held on {device}")
        return Split(split.images.to(device), split.labels.to(device))

    def batches(self, split: Split, training: bool, batch_size: int) -> Batches:
        """An iterable over a split, for the trainer that this module is attached to, if any."""
        trainer = self.trainer
        fresh = training and self.binarize == "dynamic" and not self.as_read
        return Batches(
            split,
            white=255 if self.as_read else 1,
            batch_size=batch_size,
            seed=self.seed,
            shuffle=training,
            binarize=fresh,
            epoch=lambda: trainer.current_epoch if trainer and training else 0,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )

    @property
    def chunk_size(self) -> int:
        """Training batches that are handed at a time to the trainer that this module is attached to."""
        trainer = self.trainer
        if trainer is None:
            return self.chunk
        # Where the trainer counts batches (limit_train_batches=10, where 1 is one and 1.0 all), a chunk is one.
        limits = (trainer.limit_train_batches, trainer.val_check_interval)
        counted = any(type(limit) is not float or limit != 1.0 for limit in limits)
        return 1 if counted or trainer.max_steps >= 0 else self.chunk  # else the last step would be amid a chunk

    def train_dataloader(self) -> Chunks:
        assert self.train is not None
        split, workers = self.held(self.train), self.num_workers
        if workers is None:
            streams = self.device.type == "cuda" and split is self.train
            workers = min(4, (os.cpu_count() or 1) - 1) if streams else 0
        batches = self.batches(split, training=True, batch_size=self.batch_size)
        if (trainer := self.trainer) is None:
            return Chunks(batches, self.chunk, num_workers=workers)
        def first() -> int:
            done = trainer.fit_loop.batch_idx + 1
            return done if done < trainer.num_training_batches else 0  # an epoch that is over begins anew

        return Chunks(batches, self.chunk_size, first, workers)

    def val_dataloader(self) -> Batches:
        return self.evaluation(self.val)

    def test_dataloader(self) -> Batches:
        return self.evaluation(self.test)

    def evaluation(self, split: Split) -> Batches:
        """An iterable over a split for evaluation, in smaller batches where a process would have none."""
        batches = self.batches(split, training=False, batch_size=self.eval_batch_size)
        if math.ceil(len(split.images) / batches.batch_size) < batches.world_size:
            batches.batch_size = max(1, len(split.images) // batches.world_size)
        return batches
