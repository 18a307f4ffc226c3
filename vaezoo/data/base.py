"""The data module that all kinds of data share."""

import csv
import itertools
import math
import os
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import seeding
from vaezoo.data.batching import Batches, BatchLoader, ChunkLoader
from vaezoo.data.splits import Split, check_split, check_values, describe_value, keep_labels
from vaezoo.errors import ConfigError
from vaezoo.instantiate import Recorded
from vaezoo.missing import fill_missing, is_observed
from vaezoo.training.trainer_info import TrainerInfo
from vaezoo.types import Batch, Shape

NO_TRAINER = TrainerInfo()
LABELLED_SHARE = 0.1  # of an epoch, if there are few labels: nearly every batch then has some
# The default likelihood of each kind of data (``vaezoo.families``). Tokens, categories and mixed data need sizes: the
# classes of such data define ``likelihood_config``.
DEFAULT_LIKELIHOODS = {
    "binary": "Bernoulli",
    "byte": "MixtureOfDiscretizedLogistics",
    "unit": "ContinuousBernoulli",
    "real": "SharedScaleNormal",
    "count": "NegativeBinomial",
}


class DataModule(Recorded, pl.LightningDataModule):
    """Provide training, validation and test examples of any shape. A subclass defines ``read`` and ``data_kind``.

    The test split is the published one if there is one. The validation split is ``val_size`` examples of the training
    set that depend on ``split_seed`` only, so runs with different seeds stay comparable.

    Attributes:
        train, val, test: the sets; None before ``setup``.
        all: all examples, in their order; None before ``setup_new``.
        noun: the word for one example in messages; its plural has an s.
        data_kind: kind of data in the batches (``vaezoo.families``).
        shows_draws: whether ``task=sample`` draws x from p(x | z), because its mean is not like an example.
        class_names: the names of the classes; None if they have none.
        label_place: how the user gives labels, for messages.
        has_missing: whether entries of the examples are missing (``vaezoo.missing``); known after ``setup``.
        is_standardized: whether the data module has divided real numbers by their scales. Only a likelihood that is
            ``Rescaled`` then reports log p(x) in the user's units.
        test_set: name of the test set, if this class may have several. Numbers on different ones do not compare.
        known_shape: shape of one example; None before the data are read, if it was neither given nor is published.
        file_suffixes: suffixes of the files of one example that ``read_example`` reads; empty if there are none.
        eval_batch_size: examples per batch in evaluation. It is no option: the noise of a batch is drawn together, so
            another size would give other numbers. A class of larger examples may set its own.

    Args:
        shape: shape of one example, checked when the data are read. None: the shape of the examples that are read.
        root: folder of the data set's files.
        batch_size: examples per training batch and process. A smaller training set is one batch.
        val_size: number of validation examples; or their share of the training set, in (0, 1).
        split_seed: seed of the validation split and of everything that is drawn once.
        seed: seed of the order of examples and of everything that is drawn in each epoch.
        batches_per_step: training batches per Lightning step. Lightning's callbacks and checkpoints happen between
            steps. It is 1 if the trainer counts steps (``limit_train_batches``, ``val_check_interval``, ``max_steps``).
        num_workers: processes that make training batches ahead. None: up to 4 if a GPU trains and the examples are not
            on it, else 0.
        on_device: whether the training examples are copied to the GPU that trains; without effect on a CPU or with
            workers. None: they are if they take less than half of its free memory; the choice is printed.
        num_labels: number of training labels that are kept, as many of each class as possible, drawn by ``split_seed``;
            the others are missing (-1). An epoch then repeats the examples with a label, so that at least
            ``LABELLED_SHARE`` of it have one. None: all are kept, and nothing is repeated.

    Raises:
        ValueError: a number is too small.
    """

    noun = "example"
    data_kind: str
    shows_draws = False
    class_names: list[str] | None = None
    label_place = "give the labels as in the training"
    has_missing = False
    is_standardized = False
    test_set = ""
    known_shape: tuple[int, ...] | None = None
    file_suffixes: Collection[str] = ()
    not_recorded = ("seed",)  # it is that of the run
    eval_batch_size = 100

    def __init__(
        self,
        shape: Shape | None = None,
        root: str = "data",
        batch_size: int = 128,
        val_size: int | float = 1000,
        split_seed: int = 0,
        seed: int = 0,
        batches_per_step: int = 1,
        num_workers: int | None = None,
        on_device: bool | None = None,
        num_labels: int | None = None,
    ):
        super().__init__()
        least = {"batch_size": 1, "val_size": 1, "batches_per_step": 1, "num_workers": 0}
        given = (batch_size, val_size, batches_per_step, num_workers or 0)
        for (name, bound), value in zip(least.items(), given, strict=True):
            if value < bound and not (name == "val_size" and value > 0):
                raise ValueError(f"data.{name} must be >= {bound}, got {value}")
        self.known_shape = self.known_shape if shape is None else tuple(shape)
        self.root, self.batch_size = root, batch_size
        self.val_size, self.split_seed, self.seed = val_size, split_seed, seed
        self.batches_per_step, self.num_workers, self.on_device = batches_per_step, num_workers, on_device
        if num_labels is not None and num_labels < 1:
            raise ValueError(f"data.num_labels must be >= 1, got {num_labels}: leave it out to keep all labels")
        self.num_labels = num_labels
        self.train: Split | None = None
        self.all: Split | None = None
        self.splits_as_read: list[Split] = []  # between ``inspect`` and ``setup``
        self.is_reading = False

    # What a subclass defines.

    @abstractmethod
    def read(self) -> tuple[Split, ...]:
        """Return the training set and the test set, or the training, validation and test sets.

        With two sets, ``val_size`` examples of the training set become the validation set.
        """

    def to_model(self, x: Tensor, draw: Callable[[], torch.Generator], train: bool = False) -> Tensor:
        """Return examples as the model sees them.

        Args:
            x: examples as they are stored, (B, *shape).
            draw: makes the random generator of the batch.
            train: whether they are training examples.
        """
        return x

    def prepare_split(self, split: Split, name: str) -> Split:
        """Return a split as it is kept in memory. ``name`` is "train", "val" or "test"."""
        return split

    def pair(self, split: Split) -> Split:
        """Return a split that was read with what a model is given besides x in the place of its labels."""
        return split

    def likelihood_config(self) -> dict[str, Any]:
        """Return the config node of the default likelihood for this kind of data."""
        are_colors = self.data_kind == "byte" and self.shape is not None and len(self.shape) == self.shape[0] == 3
        name = "CoupledMixtureOfLogistics" if are_colors else DEFAULT_LIKELIHOODS[self.data_kind]
        return {"_target_": f"vaezoo.families.{name}"}

    def in_user_units(self, likelihood: dict[str, Any]) -> dict[str, Any]:
        """Return the config node of a likelihood of real numbers that reports log p(x) in the user's units.

        Only a data module that ``is_standardized`` has something to do.

        Args:
            likelihood: the config node of a family of x.
        """
        return likelihood

    def input_config(self) -> dict[str, Any] | None:
        """Return the config node of a network around the encoder, without its ``net``; None if none is needed.

        If entries are missing, it is ``MaskedInput``.
        """
        return {"_target_": "vaezoo.nets.MaskedInput"} if self.has_missing else None

    def describe(self) -> dict[str, Any]:
        """Return what a trained model must know about its data, as plain values. Checkpoints carry it."""
        return {"noun": self.noun, "kind": self.data_kind, "shape": list(self.shape or ())}

    def encoding(self, description: Mapping[str, Any]) -> Any:
        """Return the part of a description that says what the numbers in x mean, such as scales or a vocabulary.

        Other data can be given to a trained model only if they agree in it.

        Args:
            description: what ``describe`` returned for the data of a training, or for the present data.
        """
        return {}

    def report(self) -> dict[str, Any]:
        """Return what ``task=check`` prints about this class of data only, as plain values by name."""
        return {}

    def represent(self, px: Distribution) -> Tensor:
        """Return the examples that represent p(x | z): its means; the modes of tokens and categories."""
        return px.mode if self.data_kind in ("token", "categorical") else px.mean

    def to_images(self, x: Tensor) -> Tensor | None:
        """Return examples (N, *shape), as the model sees them, as images (N, C, H, W) in [0, 1], to be looked at.

        None: examples of this shape cannot be drawn.
        """
        return x if x.dim() == 4 else None

    def with_context(self, images: Tensor, context: Tensor) -> Tensor:
        """Return images of examples, as ``to_images`` gives them, with what else people should see of each.

        Args:
            images: (N, C, H, W).
            context: labels or other conditions of the examples, (N, ...).
        """
        return images

    def save_examples(self, x: Tensor, path: Path) -> list[Path]:
        """Write examples (N, *shape), as the model sees them, in a form for people, and return the files.

        Args:
            x: the examples.
            path: file without suffix.
        """
        return []

    def save_labelled(self, x: Tensor, y: Tensor, path: Path) -> list[Path]:
        """Write examples with their labels in a form for people, and return the files.

        By default the labels are a table of their own, ``NAME-labels.csv``.

        Args:
            x: the examples, as the model sees them, (N, *shape).
            y: their labels, (N,).
            path: file without suffix.
        """
        columns = {"index": np.arange(len(y))} | self.label_columns(y)
        file = path.with_name(f"{path.name}-labels.csv")
        with file.open("w", encoding="utf-8", newline="") as table:
            writer = csv.writer(table)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        return [*self.save_examples(x, path), file]

    def to_columns(self, x: Tensor) -> dict[str, np.ndarray]:
        """Return the columns of a table that show examples (N, *shape) to people, (N, ...) each, or none."""
        return {}

    def label_columns(self, y: Tensor) -> dict[str, np.ndarray]:
        """Return labels (N,) or factors (N, F) as columns: ``label`` and, if classes have names, ``class``."""
        labels = y.cpu().numpy()
        if (labels < 0).all():
            return {}
        names = np.array([*self.class_names, ""], dtype=object)[labels] if self.class_names else None
        return {"label": labels} | ({} if names is None else {"class": names})

    @property
    def is_category(self) -> Tensor:
        """Return which entries of an example are categories, whose mean has no meaning, (*shape)."""
        return torch.full(self.shape or (), self.data_kind in ("binary", "token", "categorical"))

    @property
    def entry_names(self) -> list[str] | None:
        """The names of the entries of a vector x, such as words; None if they have none."""
        return None

    @property
    def grouped_entries(self) -> list[Tensor]:
        """Return groups of entries of an example that are one value together, such as the tokens of a sentence.

        Each is bool, (*shape). Of several draws of such a value, the most frequent one represents them.
        """
        return []

    def count_holes(self, holes: Tensor) -> str:
        """Return how much is missing, for people.

        Args:
            holes: which entries of examples are missing, bool (N, *shape).
        """
        return f"{int(holes.sum()):,} missing entries"

    def save_filled(self, x: Tensor, name: str, which: Tensor, path: Path) -> list[Path]:
        """Write examples of a set whose missing entries were filled in, in a form for people, and return the files.

        Args:
            x: the examples, (N, *shape).
            name: "train", "val", "test" or "all".
            which: their places in the set, int64 (N,).
            path: file without suffix.
        """
        return self.save_examples(x, path)

    def to_arrays(self, x: Tensor) -> dict[str, Tensor]:
        """Return the parts of examples (N, *shape), as the model sees them, by name."""
        return {f"{self.noun}s": x}

    def imputation_errors(self, x: Tensor, name: str, which: Tensor) -> dict[str, dict[str, Any]]:
        """Return the errors of entries that were hidden and filled in, by column; empty if none was hidden.

        Each has the ``kind`` of the error, its value for the ``model`` and for a ``baseline``, and the number ``num``
        of the entries.

        Args:
            x: the examples, (N, *shape).
            name: "train", "val", "test" or "all".
            which: their places in the set, int64 (N,).
        """
        return {}

    def read_example(self, path: Path) -> Tensor:
        """Return the example in a file, (1, *shape), prepared as those of the training and stored as ``read`` does.

        Raises:
            ConfigError: the file is broken, of another kind or too small.
        """
        raise ConfigError(f"a file cannot be read as one {self.noun} of {type(self).__name__}")

    def keys(self, name: str) -> dict[str, np.ndarray]:
        """Return the columns that say which example each one of a set is, each (N,), by their heads.

        Args:
            name: "train", "val", "test" or "all".
        """
        return {"index": np.arange(len(getattr(self, name).x))}

    # Splits.

    def setup_new(self, description: Mapping[str, Any]) -> None:
        """Read all examples as ``all``, prepared as those of a training were, for its model.

        Args:
            description: what ``describe`` returned for the data of the training.

        Raises:
            ConfigError: the data have a published division, or do not fit the description.
        """
        raise ConfigError(f"{type(self).__name__} has a published test set: use split=train, val or test, not all")

    def check_options(self) -> None:
        """Raise a ValueError if options contradict each other, before the data are read."""

    def check_examples(self, split: Split, name: str) -> None:
        """Raise a ValueError if the examples of a split that was read are not of the kind that this class states."""
        self.has_missing |= check_values(split.x, self.data_kind, f"the {self.noun}s of {name}")

    def setup(self, stage: str | None = None) -> None:
        """Read, check and split the data, once.

        Raises:
            ValueError: the data and the options contradict each other.
        """
        if self.train is not None:
            return
        self.check_options()
        self.inspect()
        train, *val, test = self.splits_as_read
        self.splits_as_read = []
        nouns = f"{self.noun}s"
        if not val:
            full, num = train, len(train.x)
            num_val = self.val_size if isinstance(self.val_size, int) else max(1, round(self.val_size * num))
            if num_val >= num:
                raise ValueError(f"data.val_size={self.val_size} leaves nothing of {num} training {nouns}")
            order = torch.randperm(num, generator=seeding.generator(self.split_seed, "split"))
            val = [full.select(order[:num_val].sort().values)]
            train = full.select(order[num_val:].sort().values)
        if stage == "fit" and self.batch_size > len(train.x):
            rank_zero_only(print)(f"batch_size={self.batch_size}: the {len(train.x)} training {nouns} are one batch")
        if self.num_labels is not None:
            train = Split(train.x, keep_labels(self.check_classes(train.y), self.num_labels, self.split_seed))
        self.train = self.prepare_split(train, "train")
        self.val = self.prepare_split(val[0], "val")
        self.test = self.prepare_split(test, "test")

    def check_classes(self, y: Tensor) -> Tensor:
        """Return the labels of the training examples if each is one class, and say which ``num_labels`` are too few.

        Raises:
            ValueError: there are no labels, fewer than ``num_labels``, or they are factors.
        """
        if y.dim() != 1 or y.is_floating_point() or bool((y < 0).all()):
            what = "have no labels" if y.dim() == 1 else f"have labels of shape {tuple(y.shape[1:])}"
            raise ValueError(
                f"data.num_labels={self.num_labels} keeps some class labels, but the {self.noun}s of "
                f"{type(self).__name__} {what}: leave it out"
            )
        assert self.num_labels is not None
        num, num_classes = int((y >= 0).sum()), len(y[y >= 0].unique())
        if self.num_labels > num:
            raise ValueError(
                f"data.num_labels={self.num_labels} is more than the {num:,} labels of the training {self.noun}s: use "
                f"a smaller number, or leave it out to keep all labels"
            )
        if self.num_labels < num_classes:
            rank_zero_only(print)(
                f"data.num_labels={self.num_labels} is less than the number of classes, {num_classes}: some have "
                f"no label"
            )
        return y

    def inspect(self) -> None:
        """Read and check the data, once, so that shape, kind and missing entries are known before ``setup``.

        Raises:
            ValueError: the data are not what this class can use.
        """
        if self.splits_as_read or self.train is not None:
            return
        self.is_reading = True
        try:
            self.splits_as_read = self.check_splits(self.read())
        except FileNotFoundError as error:
            error.add_note("call prepare_data() first, which downloads files of published data, as a Trainer does")
            raise
        finally:
            self.is_reading = False
        shape = tuple(self.splits_as_read[0].x.shape[1:])
        if self.known_shape is not None and self.known_shape != shape:
            raise ValueError(
                f"data.shape is {self.known_shape}, but the {self.noun}s of {type(self).__name__} are {shape}: "
                f"use data.shape={list(shape)}"
            )
        self.known_shape = shape

    def check_splits(self, splits: Any) -> list[Split]:
        """Return the sets if this class can use what ``read`` returned.

        Raises:
            ValueError: ``splits`` is not two or three pairs of examples and labels that fit each other.
        """
        owner, nouns = f"{type(self).__name__}.read()", f"{self.noun}s"
        if not isinstance(splits, tuple | list) or len(splits) not in (2, 3):
            raise ValueError(
                f"{owner} returned {describe_value(splits)}: return two Split({nouns}, labels), training and test"
            )
        names = ["training", *["validation"] * (len(splits) - 2), "test"]
        checked = []
        for split, name in zip(splits, names, strict=True):
            checked.append(check_split(split, f"the {name} set of {owner}", self.noun))
            self.check_examples(checked[-1], f"the {name} set of {owner}")
            checked[-1] = self.pair(checked[-1])
        shapes = [tuple(split.x.shape[1:]) for split in checked]
        for shape, name in zip(shapes, names, strict=True):
            if shape != shapes[0]:
                raise ValueError(
                    f"{owner} returned training {nouns} of shape {shapes[0]} and {name} {nouns} of shape {shape}: "
                    f"give all {nouns} one shape"
                )
        return checked

    # What a model reads.

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of one example. The data are read if it is not known yet; None while they are."""
        if self.known_shape is None and not self.is_reading:
            self.inspect()
        return self.known_shape

    @property
    def context_shape(self) -> tuple[int, ...]:
        """Shape of the label, or of another condition, of one example; the data are read if they were not yet."""
        self.inspect()
        return tuple((self.train or self.splits_as_read[0]).y.shape[1:])

    @property
    def mean(self) -> Tensor:
        """Mean over the observed entries of the training examples, as the model sees them, (*shape).

        Entries that are never observed have the mean 0.
        """
        total, count = torch.zeros(self.shape or (), dtype=torch.float64), torch.zeros(self.shape or ())
        for batch in self.batches(self.training_split, 1000, train=True):
            total += fill_missing(batch.x).double().sum(0)
            count += is_observed(batch.x).sum(0)
        return (total / count.clamp(min=1)).float()

    @property
    def training_split(self) -> Split:
        """The training split.

        Raises:
            ConfigError: the data were not read.
        """
        if self.train is None:
            raise ConfigError(f"the {self.noun}s of {type(self).__name__} were not read: call setup() first")
        return self.train

    @property
    def num_train(self) -> int:
        """Number of training examples."""
        return len(self.training_split.x)

    @property
    def epoch_index(self) -> Tensor | None:
        """Indices of the training examples in an epoch, before they are shuffled; None: each one once."""
        y = self.training_split.y
        labelled = (y >= 0).nonzero()[:, 0] if self.num_labels is not None else y.new_empty(0)
        if len(labelled) in (0, len(y)):
            return None
        odds = LABELLED_SHARE / (1 - LABELLED_SHARE)
        times = math.ceil(odds * (len(y) - len(labelled)) / len(labelled))
        return torch.cat([torch.arange(len(y)), labelled.cpu().repeat(times - 1)])

    @property
    def examples_per_epoch(self) -> int:
        """Number of training examples in an epoch, of which some may be repeated (``num_labels``)."""
        index = self.epoch_index
        return self.num_train if index is None else len(index)

    def examples(self, num: int) -> Batch:
        """Return ``num`` training examples, or all if there are fewer, as the model sees them: always the same ones."""
        return next(iter(self.batches(self.training_split, num, train=True, shuffle=True)))

    # Batches.

    def batches(
        self,
        split: Split,
        batch_size: int,
        train: bool = False,
        shuffle: bool = False,
        info: TrainerInfo = NO_TRAINER,
        index: Tensor | None = None,
    ) -> Batches:
        """Return an iterable over a split.

        Args:
            split: training, validation or test split, or examples of it.
            batch_size: examples per batch and process.
            train: whether it is the training split, of which a part may be drawn anew in each epoch.
            shuffle: whether each epoch has a new order.
            info: epoch and process.
            index: indices of the examples in an epoch; None: each one once.
        """
        return Batches(
            split,
            batch_size=batch_size,
            to_model=partial(self.to_model, train=train),
            seed=self.seed,
            shuffle=shuffle,
            epoch=lambda: info.epoch,
            rank=info.rank,
            world_size=info.world_size,
            index=index,
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
        """Return a loader of ``Batch(x, y)``; for our own training loop, of chunks of batches.

        Without a trainer, each pass over the loader is the next epoch.
        """
        self.setup()
        info = self.trainer_info
        split, workers = self.to_training_device(self.training_split), self.num_workers
        if workers is None:
            copies = info.device.type == "cuda" and split is self.train  # each batch is copied to the GPU
            workers = min(4, (os.cpu_count() or 1) - 1) if copies else 0
        batches = self.batches(split, self.batch_size, train=True, shuffle=True, info=info, index=self.epoch_index)
        if info.takes_chunks:
            return ChunkLoader(batches, self.effective_batches_per_step, lambda: info.next_step, workers)
        if self.trainer is None:
            batches.epoch = itertools.count().__next__
        return BatchLoader(batches, 1, lambda: info.next_step, workers)

    def val_dataloader(self) -> Batches:
        self.setup()
        return self.evaluation_batches(self.val)

    def test_dataloader(self) -> Batches:
        self.setup()
        return self.evaluation_batches(self.test)

    def predict_dataloader(self) -> Batches:
        """Return the test set: ``Trainer.predict`` returns its codes."""
        return self.test_dataloader()

    def evaluation_batches(self, split: Split) -> Batches:
        """Return an iterable over a split for evaluation: smaller batches if a process would have none otherwise."""
        info, num, size = self.trainer_info, len(split.x), self.eval_batch_size
        if math.ceil(num / size) < info.world_size:
            size = max(1, num // info.world_size)
        return self.batches(split, size, info=info)

    def to_training_device(self, split: Split) -> Split:
        """Return the split on the GPU that trains, if ``on_device`` says so."""
        device = self.trainer_info.device
        if device.type != "cuda" or not isinstance(split.x, Tensor) or self.num_workers or self.on_device is False:
            return split
        size, free = split.x.nbytes, torch.cuda.mem_get_info(device)[0]
        where = f"the training {self.noun}s ({size / 1e6:,.0f} MB)"
        if self.on_device is None and size > free / 2:
            print(f"{where} stay in memory: {device} has {free / 1e6:,.0f} MB free")
            return split
        print(f"{where} are on {device}")
        return Split(split.x.to(device), split.y.to(device))
