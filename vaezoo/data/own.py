"""The data module of the user's own data, which have no published split."""

from abc import abstractmethod
from typing import Any

import numpy as np

from vaezoo.data.base import DataModule
from vaezoo.data.splits import Split, split_by_content


class OwnData(DataModule):
    """Provide data without a published split: the sets are a function of the content. A subclass defines ``read_all``.

    An example stays in its set when others are added, and equal examples are always in one set (``content_split``).

    Args:
        val_size: expected share of validation examples, in (0, 1).
        test_size: expected share of test examples, in (0, 1).
        **kwargs: arguments of ``DataModule``.
    """

    def __init__(self, val_size: float = 0.1, test_size: float = 0.1, **kwargs: Any):
        super().__init__(val_size=val_size, **kwargs)
        self.test_size = test_size

    @abstractmethod
    def read_all(self) -> tuple[Split, np.ndarray]:
        """Return all examples, and a digest of the content of each one, uint64 (N,)."""

    def read(self) -> tuple[Split, ...]:
        split, digests = self.read_all()
        return split_by_content(split, digests, self.val_size, self.test_size, self.split_seed)
