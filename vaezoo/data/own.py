"""The data module of the user's own data, which have no published split."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaezoo.data.base import DataModule
from vaezoo.data.splits import Split, check_split, content_split
from vaezoo.errors import ConfigError, count_noun, name_some


class OwnData(DataModule):
    """Provide data without a published split: the sets are a function of the content. A subclass defines ``read_all``.

    An example stays in its set when others are added, and equal examples are always in one set (``content_split``).
    A trained model can also be applied to all examples of new data (``setup_new``).

    Attributes:
        rows: numbers of the examples of the sets "train", "val" and "test", or of "all", among all examples, counted
            from 0.
        digests: a hash of the content of each example, uint64 (N,).

    Args:
        val_size: expected share of validation examples, in (0, 1).
        test_size: expected share of test examples, in (0, 1).
        **kwargs: arguments of ``DataModule``.
    """

    def __init__(self, val_size: float = 0.1, test_size: float = 0.1, **kwargs: Any):
        super().__init__(val_size=val_size, **kwargs)
        self.test_size = test_size
        self.rows: dict[str, Tensor] = {}
        self.digests = np.empty(0, dtype=np.uint64)

    @abstractmethod
    def read_all(self) -> tuple[Split, np.ndarray]:
        """Return all examples, and a digest of the content of each one, uint64 (N,)."""

    def all_keys(self) -> dict[str, np.ndarray]:
        """Return the columns that say which example each one of the data is, each (N,), by their heads."""
        return {"index": np.arange(len(self.digests))}

    def keys(self, name: str) -> dict[str, np.ndarray]:
        return {head: column[self.rows[name].numpy()] for head, column in self.all_keys().items()}

    def fits(self, description: Mapping[str, Any]) -> bool:
        """Return whether data of this class can be prepared as those of a training, which a description tells of."""
        return True

    def use_description(self, description: Mapping[str, Any]) -> None:
        """Take over the options from the data of a training that would otherwise be found in the new data."""

    def read_new(self, description: Mapping[str, Any]) -> tuple[Split, np.ndarray]:
        """Return all examples, prepared as those of a training were, and their digests, uint64 (N,)."""
        self.use_description(description)
        return self.read_all()

    def setup_new(self, description: Mapping[str, Any]) -> None:
        if not self.fits(description):
            raise ConfigError(
                f"the model was trained on {description.get('noun', 'example')}s of shape {description['shape']}, and "
                f"{type(self).__name__} has other data: use data of the same kind"
            )
        self.is_reading = True  # so that nothing asks for the shape of data that are not divided
        try:
            split, self.digests = self.read_new(description)
        finally:
            self.is_reading = False
        split = check_split(split, f"the new {self.noun}s", self.noun)
        self.check_examples(split, "the new data")
        split = self.pair(split)
        self.rows = {"all": torch.arange(len(split.y))}
        self.known_shape = tuple(split.x.shape[1:])
        if known := description.get("class_names"):
            names = self.class_names or known
            y = match_classes(split.y, names, known)
            self.report_unknown_classes(split.y[(y < 0) & (split.y >= 0)], names)
            split, self.class_names = Split(split.x, y), known
        self.all = self.prepare_split(split, "all")

    def report_unknown_classes(self, y: Tensor, names: Sequence[str]) -> None:
        """Print how many new examples have classes that the training did not have; their label is -1.

        Args:
            y: the labels of these examples, numbers among ``names``.
            names: the classes of the new data.
        """
        if len(y):
            classes = name_some(names[i] if i < len(names) else i for i in y.unique().tolist())
            print(f"{count_noun(len(y), self.noun)} of classes that the training did not have: {classes}")

    def read(self) -> tuple[Split, ...]:
        split, digests = self.read_all()
        return tuple(split.select(rows) for rows in self.divide(digests).values())

    @property
    def place(self) -> str:
        """The file or folder of the data as the user names it; empty for data in memory."""
        key = "path" if hasattr(self, "path") else "root"
        is_in_memory = getattr(self, "content", None) is not None or not getattr(self, key)
        return "" if is_in_memory else f"data.{key}={getattr(self, key)}"

    def divide(self, digests: np.ndarray) -> dict[str, Tensor]:
        """Divide examples by their digests, uint64 (N,); set ``digests`` and ``rows``, and return ``rows``."""
        try:
            sets = content_split(digests, self.val_size, self.test_size, self.split_seed)
        except ConfigError as error:
            raise ConfigError(f"{self.place}: {error}" if self.place else str(error)) from error
        self.rows = dict(zip(("train", "val", "test"), sets, strict=True))
        self.digests = digests
        return self.rows

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"content_hash": hash_content(self.digests)}

    @property
    def test_set(self) -> str:  # type: ignore[override]  # it depends on the data
        """A hash of the test examples and of what the numbers in x mean, 16 hexadecimal digits."""
        encoding = json.dumps(self.encoding(self.describe()), sort_keys=True)
        return hash_content(self.digests[self.rows["test"].numpy()], encoding)[:16]


def match_classes(y: Tensor, names: Sequence[str], known: Sequence[str]) -> Tensor:
    """Return labels as numbers among the classes of a training; -1 for a class that it does not have.

    Args:
        y: labels (N,), which are numbers among ``names``, or -1. Other numbers are no class.
        names: the classes of the new data.
        known: the classes of the training.
    """
    numbers = {name: number for number, name in enumerate(known)}
    table = torch.tensor([*(numbers.get(name, -1) for name in names), -1])
    return table[torch.where(y < len(names), y, -1)]


def hash_content(digests: np.ndarray, text: str = "") -> str:
    """Return a hash of digests in their order and of a text, 32 hexadecimal digits."""
    return hashlib.blake2b(digests.astype("<u8").tobytes() + text.encode(), digest_size=16).hexdigest()
