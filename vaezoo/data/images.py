"""The data module of images."""

import math
import os
from abc import abstractmethod
from collections.abc import Set
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from vaezoo import seeding
from vaezoo.data.batching import Batches, ChunkLoader, bernoulli
from vaezoo.data.splits import Split, check_split, describe_value, pixel_sum
from vaezoo.training.trainer_info import TrainerInfo
from vaezoo.types import Batch, Shape

BINARIZE_MODES = ("auto", "dynamic", "static", "threshold", "none")
NO_TRAINER = TrainerInfo()


class ImageData(pl.LightningDataModule):
    """Provide training, validation and test images. A subclass defines ``read`` only.

    The test split is the published one if there is one. The validation split is ``val_size`` examples of the training
    set that depend on ``split_seed`` only, so runs with different seeds stay comparable.

    Modes of binarization:

    * ``dynamic``: each training pixel is drawn as a bit, 1 with probability pixel / 255, anew in each epoch
      (Salakhutdinov & Murray 2008, On the Quantitative Analysis of Deep Belief Networks,
      https://dl.acm.org/doi/10.1145/1390156.1390266); validation and test are drawn once, by ``split_seed``;
    * ``static``: all splits are drawn once, by ``split_seed``;
    * ``threshold``: a bit is 1 if pixel > 127;
    * ``none``: pixels stay bytes, given to the model as pixel / 255;
    * ``auto``: ``dynamic`` for a likelihood of bits only, else ``none`` (``resolve_binarize``).

    Attributes:
        binary: whether all pixels are 0 or 255, so that all modes agree and nothing is drawn.
        eval_batch_size: examples per batch in evaluation. It is no option: the noise of a batch is drawn together, so
            another size would give other numbers. A class of larger images may set its own.

    Args:
        shape: (C, H, W) of the images, checked when they are read. None: the shape of the images that are read.
        root: folder of the data set's files.
        batch_size: examples per training batch and process.
        binarize: mode of binarization: ``auto``, ``dynamic``, ``static``, ``threshold`` or ``none``.
        val_size: number of validation examples.
        split_seed: seed of the validation split and of bits that are drawn once.
        seed: seed of the order of examples and of bits that are drawn in each epoch.
        batches_per_step: training batches per Lightning step. Lightning's callbacks and checkpoints happen between
            steps. It is 1 if the trainer counts steps (``limit_train_batches``, ``val_check_interval``, ``max_steps``).
        num_workers: processes that make training batches ahead. None: up to 4 if a GPU trains and the images are not
            on it, else 0.
        on_device: whether the training images are copied to the GPU that trains; without effect on a CPU or with
            workers. None: they are if they take less than half of its free memory; the choice is printed.

    Raises:
        ValueError: ``binarize`` is unknown or a number is too small.
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

    # What a subclass defines.

    @abstractmethod
    def read(self) -> tuple[Split, Split]:
        """Return the training set, validation included, and the test set."""

    # Splits.

    def resolve_binarize(self, supported_data: Set[str]) -> str:
        """Replace ``binarize="auto"`` by the mode that suits a likelihood, and return the mode.

        Args:
            supported_data: kinds of data that the likelihood can score (``vaezoo.families``).
        """
        if self.binarize == "auto":
            self.binarize = "dynamic" if supported_data == {"binary"} else "none"
        return self.binarize

    def setup(self, stage: str | None = None) -> None:
        """Read, check, split and binarize the data, once.

        Raises:
            ValueError: the data and the options contradict each other.
        """
        if self.train is not None:
            return
        if self.binarize == "auto":
            raise ValueError(
                "data.binarize=auto depends on the likelihood: call resolve_binarize first, or choose one of "
                f"{', '.join(BINARIZE_MODES[1:])}"
            )
        full, test = self.check_splits(self.read())
        shape = tuple(full.images.shape[1:])
        if self.shape is not None and self.shape != shape:
            raise ValueError(
                f"data.shape is {self.shape}, but the images of {type(self).__name__} are {shape}: "
                f"use data.shape={list(shape)}"
            )
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
        """Return the training and the test set if this class can use what ``read`` returned.

        Raises:
            ValueError: ``splits`` is not two pairs of images and labels that fit each other.
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
        """Return the split with pixels that stay the same in every epoch: bytes, thresholded bits or bits drawn once.

        Args:
            split: images as they were read.
            name: name of the split, a part of the seed of its bits.
        """
        if self.is_unbinarized:
            return split
        assert isinstance(split.images, Tensor)
        if self.binarize == "threshold":
            return Split((split.images > 127).to(torch.uint8), split.labels)
        draw = seeding.generator(self.split_seed, "binarize", name)
        bits = torch.empty_like(split.images)
        for images, part in zip(split.images.split(1000), bits.split(1000), strict=True):  # to save memory
            part.copy_(bernoulli(images, draw))
        return Split(bits, split.labels)

    # What a model reads.

    @property
    def data_kind(self) -> str:
        """Kind of data in the batches: ``binary`` or ``byte`` (``vaezoo.families``)."""
        return "byte" if self.binarize == "none" else "binary"

    @property
    def is_unbinarized(self) -> bool:
        """Return whether the splits hold the images as they were read."""
        return self.binary or self.binarize == "none"

    @property
    def mean(self) -> Tensor:
        """Mean training image as the model sees it, (C, H, W)."""
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
        """Return ``num`` training examples, or all if there are fewer, as the model sees them: always the same ones."""
        assert self.train is not None
        return next(iter(self.batches(self.train, num, train=True, shuffle=True)))

    # Batches.

    def batches(
        self, split: Split, batch_size: int, train: bool = False, shuffle: bool = False, info: TrainerInfo = NO_TRAINER
    ) -> Batches:
        """Return an iterable over a split.

        Args:
            split: training, validation or test split, or examples of it.
            batch_size: examples per batch and process.
            train: whether it is the training split, whose bits ``dynamic`` draws anew in each epoch.
            shuffle: whether each epoch has a new order.
            info: epoch and process.
        """
        return Batches(
            split,
            max_value=255 if self.is_unbinarized else 1,
            batch_size=batch_size,
            seed=self.seed,
            shuffle=shuffle,
            binarize=train and self.binarize == "dynamic" and not self.is_unbinarized,
            epoch=lambda: info.epoch,
            rank=info.rank,
            world_size=info.world_size,
        )

    @property
    def trainer_info(self) -> TrainerInfo:
        """Epoch, process and device of the trainer that this module is attached to, if any."""
        return TrainerInfo(self.trainer)

    @property
    def effective_batches_per_step(self) -> int:
        """Training batches per Lightning step: ``batches_per_step``, or 1 if the trainer counts steps."""
        return 1 if self.trainer_info.counts_steps else self.batches_per_step

    def train_dataloader(self) -> ChunkLoader:
        assert self.train is not None
        info = self.trainer_info
        split, workers = self.to_training_device(self.train), self.num_workers
        if workers is None:
            copies = info.device.type == "cuda" and split is self.train  # each batch is copied to the GPU
            workers = min(4, (os.cpu_count() or 1) - 1) if copies else 0
        batches = self.batches(split, self.batch_size, train=True, shuffle=True, info=info)
        return ChunkLoader(batches, self.effective_batches_per_step, lambda: info.next_step, workers)

    def val_dataloader(self) -> Batches:
        return self.evaluation_batches(self.val)

    def test_dataloader(self) -> Batches:
        return self.evaluation_batches(self.test)

    def evaluation_batches(self, split: Split) -> Batches:
        """Return an iterable over a split for evaluation: smaller batches if a process would have none otherwise."""
        info, num, size = self.trainer_info, len(split.images), self.eval_batch_size
        if math.ceil(num / size) < info.world_size:
            size = max(1, num // info.world_size)
        return self.batches(split, size, info=info)

    def to_training_device(self, split: Split) -> Split:
        """Return the split on the GPU that trains, if ``on_device`` says so."""
        device = self.trainer_info.device
        if device.type != "cuda" or not isinstance(split.images, Tensor) or self.num_workers or self.on_device is False:
            return split
        size, free = split.images.nbytes, torch.cuda.mem_get_info(device)[0]
        if self.on_device is None and size > free / 2:
            print(f"the training images ({size / 1e6:,.0f} MB) stay in memory: {device} has {free / 1e6:,.0f} MB free")
            return split
        print(f"the training images ({size / 1e6:,.0f} MB) are on {device}")
        return Split(split.images.to(device), split.labels.to(device))
