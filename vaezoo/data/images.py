"""The data module of images."""

import math
import os
from abc import abstractmethod
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from vaezoo import seeding
from vaezoo.data.batching import BatchChunks, Batches, bernoulli
from vaezoo.data.splits import Split, check_split, describe_value, pixel_sum
from vaezoo.types import Batch, Shape

BINARIZE_MODES = ("dynamic", "static", "threshold", "none")


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
        batches_per_step: training batches that are handed to the trainer at a time: hooks of callbacks are called, and
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
        batches_per_step: int = 1,
        num_workers: int | None = None,
        on_device: bool | None = None,
    ):
        super().__init__()
        if binarize not in BINARIZE_MODES:
            raise ValueError(f"data.binarize={binarize} is not one of {', '.join(BINARIZE_MODES)}")
        least = {"batch_size": 1, "val_size": 1, "batches_per_step": 1, "num_workers": 0}
        given = (batch_size, val_size, batches_per_step, num_workers or 0)
        for (name, bound), value in zip(least.items(), given, strict=True):
            if value < bound:
                raise ValueError(f"data.{name} must be >= {bound}, got {value}")
        self.shape = None if shape is None else tuple(shape)
        self.root, self.batch_size = root, batch_size
        self.binarize, self.val_size, self.split_seed, self.seed = binarize, val_size, split_seed, seed
        self.batches_per_step, self.num_workers, self.on_device = batches_per_step, num_workers, on_device
        self.train: Split | None = None

    @property
    def data_kind(self) -> str:
        """The kind of data in the batches (``vaezoo.families``)."""
        return "byte" if self.binarize == "none" else "binary"

    @property
    def is_unbinarized(self) -> bool:
        """Whether the splits hold the images as they were read."""
        return self.binary or self.binarize == "none"

    @property
    def mean(self) -> Tensor:
        """The mean training image as the model sees it, (C, H, W)."""
        assert self.train is not None
        images = self.train.images
        bits = self.binarize in ("static", "threshold") and not self.binary
        return (pixel_sum(images) / (len(images) * (1 if bits else 255))).float()

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
            self.train = self.binarize_once(self.train, "train")
        self.val = self.binarize_once(full.select(val), "val")
        self.test = self.binarize_once(test, "test")

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

    def binarize_once(self, split: Split, name: str) -> Split:
        """The split as it is seen every time: bytes, thresholded bits, or bits drawn once."""
        if self.is_unbinarized:
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

    def to_training_device(self, split: Split) -> Split:
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
        fresh = training and self.binarize == "dynamic" and not self.is_unbinarized
        return Batches(
            split,
            max_value=255 if self.is_unbinarized else 1,
            batch_size=batch_size,
            seed=self.seed,
            shuffle=training,
            binarize=fresh,
            epoch=lambda: trainer.current_epoch if trainer and training else 0,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )

    @property
    def effective_batches_per_step(self) -> int:
        """Training batches that are handed at a time to the trainer that this module is attached to."""
        trainer = self.trainer
        if trainer is None:
            return self.batches_per_step
        # Where the trainer counts batches (limit_train_batches=10, where 1 is one and 1.0 all), a chunk is one.
        limits = (trainer.limit_train_batches, trainer.val_check_interval)
        counted = any(type(limit) is not float or limit != 1.0 for limit in limits)
        # With max_steps, the last step could otherwise fall inside a chunk.
        return 1 if counted or trainer.max_steps >= 0 else self.batches_per_step

    def train_dataloader(self) -> BatchChunks:
        assert self.train is not None
        split, workers = self.to_training_device(self.train), self.num_workers
        if workers is None:
            streams = self.device.type == "cuda" and split is self.train
            workers = min(4, (os.cpu_count() or 1) - 1) if streams else 0
        batches = self.batches(split, training=True, batch_size=self.batch_size)
        if (trainer := self.trainer) is None:
            return BatchChunks(batches, self.batches_per_step, num_workers=workers)

        def first() -> int:
            done = trainer.fit_loop.batch_idx + 1
            return done if done < trainer.num_training_batches else 0  # an epoch that is over begins anew

        return BatchChunks(batches, self.effective_batches_per_step, first, workers)

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
