"""The data module of the user's own data, which have no published split."""

import hashlib
from abc import abstractmethod
from typing import Any

import numpy as np
from torch import Tensor

from vaezoo.data.base import DataModule
from vaezoo.data.splits import Split, content_split


class OwnData(DataModule):
    """Provide data without a published split: the sets are a function of the content. A subclass defines ``read_all``.

    An example stays in its set when others are added, and equal examples are always in one set (``content_split``).

    Attributes:
        rows: numbers of the examples of the sets "train", "val" and "test" among all examples, counted from 0.
        content_hash: hash of all examples in their order, by which a resumed run notices that the data have changed.

    Args:
        val_size: expected share of validation examples, in (0, 1).
        test_size: expected share of test examples, in (0, 1).
        **kwargs: arguments of ``DataModule``.
    """

    def __init__(self, val_size: float = 0.1, test_size: float = 0.1, **kwargs: Any):
        super().__init__(val_size=val_size, **kwargs)
        self.test_size = test_size
        self.rows: dict[str, Tensor] = {}
        self.content_hash = ""

    @abstractmethod
    def read_all(self) -> tuple[Split, np.ndarray]:
        """Return all examples, and a digest of the content of each one, uint64 (N,)."""

    def read(self) -> tuple[Split, ...]:
        split, digests = self.read_all()
        return tuple(split.select(rows) for rows in self.divide(digests).values())

    def divide(self, digests: np.ndarray) -> dict[str, Tensor]:
        """Divide examples by their digests, uint64 (N,); set ``rows`` and ``content_hash``, and return ``rows``."""
        sets = content_split(digests, self.val_size, self.test_size, self.split_seed)
        self.rows = dict(zip(("train", "val", "test"), sets, strict=True))
        self.content_hash = hashlib.blake2b(digests.astype("<u8").tobytes(), digest_size=16).hexdigest()
        return self.rows

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"content_hash": self.content_hash}
