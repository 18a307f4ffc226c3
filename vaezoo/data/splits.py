"""Examples, in memory or made on demand, with their labels; and how they are divided into three sets."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaezoo import seeding
from vaezoo.errors import ConfigError, count_noun
from vaezoo.missing import is_observed


class LazyExamples:
    """Hold examples that are made when they are indexed, for sets too large for one tensor (N, *shape).

    Args:
        make: returns the examples (B, *shape), as they are stored, for their numbers (B,).
        index: numbers of the N examples in this set, (N,).
    """

    def __init__(self, make: Callable[[Tensor], Tensor], index: Tensor):
        self.make, self.index = make, index
        self.shape = torch.Size([len(index), *make(index[:1]).shape[1:]])

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        return self.make(self.index[which])

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Make the examples at positions ``index`` (B,); ``dim`` must be 0, as in ``Tensor.index_select``."""
        return self.make(self.index.index_select(dim, index))

    def select(self, which: Tensor) -> "LazyExamples":
        """Return a subset whose examples are not made yet."""
        return LazyExamples(self.make, self.index[which])


class Split(NamedTuple):
    """Examples and their labels: one of the training, validation and test sets.

    Args:
        x: the examples as they are stored, (N, *shape): images as uint8, tokens and counts as int64, others as float32.
        y: labels (N,), or factors (N, F). A missing label is -1.
    """

    x: Tensor | LazyExamples
    y: Tensor

    def select(self, which: Tensor) -> "Split":
        """Return a subset of the examples."""
        return Split(self.x.select(which) if isinstance(self.x, LazyExamples) else self.x[which], self.y[which])


def describe_value(value: Any) -> str:
    """Describe a value for an error message: its type and, if it has one, its size."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    size = f" of {len(value)}" if isinstance(value, list | tuple) else ""
    return f"a {type(value).__name__}{size}"


def check_split(split: Any, name: str, noun: str) -> Split:
    """Return the split if a data module can use it.

    Args:
        split: a ``Split``, or any pair of examples and labels.
        name: name of the split in error messages.
        noun: the word for one example, such as "image".

    Raises:
        ValueError: the examples are not a tensor (N, ...) with N >= 1, or the labels are not a tensor of N rows.
    """
    if not isinstance(split, tuple | list) or len(split) != 2:
        raise ValueError(f"{name} is {describe_value(split)}: return Split({noun}s, labels)")
    x, y = split
    sample = x[:1] if isinstance(x, LazyExamples) else x
    if not isinstance(sample, Tensor):
        raise ValueError(
            f"the {noun}s of {name} are {describe_value(sample)}: give a tensor, for example torch.from_numpy(...)"
        )
    if sample.dim() < 2:
        raise ValueError(f"the {noun}s of {name} have the shape {tuple(x.shape)}: give (N, ...), all of one shape")
    if min(x.shape) == 0:
        raise ValueError(f"{name} holds no {noun}s, its shape is {tuple(x.shape)}: give at least one")
    if not isinstance(y, Tensor):
        raise ValueError(
            f"the labels of {name} are {describe_value(y)}: give a tensor with a row for each {noun}, "
            f"torch.zeros({len(x)}) if there are no labels"
        )
    if y.shape[:1] != (len(x),):
        raise ValueError(
            f"the labels of {name} have the shape {tuple(y.shape)}, but there are {len(x)} {noun}s: "
            f"give one row for each {noun}"
        )
    return Split(x, y)


def check_values(x: Tensor | LazyExamples, kind: str, name: str) -> bool:
    """Check that all stored examples are of the stated kind, and return whether entries are missing.

    Args:
        x: the examples, (N, *shape).
        kind: kind of data (``vaezoo.families``).
        name: what the examples are, for error messages.

    Raises:
        ValueError: the message names the first wrong example.
    """
    if kind == "byte" or isinstance(x, LazyExamples):  # uint8; examples that are made on demand come from our own code
        return False
    missing = False
    for start in range(0, len(x), 10_000):
        part = x[start : start + 10_000]
        observed = is_observed(part)
        missing = missing or not bool(observed.all())
        wrong, wanted = torch.zeros_like(observed), ""
        if kind in ("count", "token", "categorical"):
            if part.is_floating_point() or part.dtype == torch.bool:
                raise ValueError(f"{name} are {part.dtype}, but {kind} data are integers: convert them with x.long()")
            wrong, wanted = part < -1, "whole numbers >= 0 (-1 if missing)"
        elif not part.is_floating_point() and part.dtype != torch.uint8:
            raise ValueError(f"{name} are {part.dtype}, but {kind} data are floats: convert them with x.float()")
        elif kind == "binary":
            wrong, wanted = observed & (part != 0) & (part != 1), "0 or 1"
        elif kind == "unit":
            wrong, wanted = observed & ~((part >= 0) & (part <= 1)), "in [0, 1]"
        else:
            wrong, wanted = part.isinf(), "finite (NaN if missing)"
        if wrong.any():
            row = int(wrong.flatten(1).any(1).nonzero()[0])
            value = part[row][wrong[row]].flatten()[0].item()
            raise ValueError(
                f"{name} hold {value:g} in row {start + row}, but {kind} data are {wanted}: repair the data, or give "
                f"them another kind"
            )
    return missing


def content_split(
    digests: np.ndarray, val_size: float, test_size: float, split_seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Divide examples by their content: return the indices of the training, validation and test examples, ascending.

    Each example goes to a set by a number in [0, 1) that is a function of its digest and of ``split_seed`` only. So an
    example stays in its set when others are added or removed, and equal examples are always in one set. If validation
    or test would be empty, it gets the examples with the next number.

    >>> import numpy as np
    >>> train, val, test = content_split(np.arange(1000, dtype=np.uint64), 0.1, 0.2)
    >>> len(train), len(val), len(test)
    (697, 114, 189)

    Args:
        digests: a hash of the content of each example, uint64 (N,).
        val_size: expected share of validation examples, in (0, 1).
        test_size: expected share of test examples, in (0, 1).
        split_seed: another seed gives another division.

    Raises:
        ConfigError: the shares are out of range, or there are fewer than 3 different examples.
    """
    if not (val_size > 0 and test_size > 0 and val_size + test_size < 1):
        raise ConfigError(
            f"data.val_size={val_size} and data.test_size={test_size} are shares of all examples here: give numbers "
            f"above 0 that are together below 1, as in data.val_size=0.1"
        )
    key = np.uint64(seeding.derive(split_seed, "content") % 2**64)
    place = mix_bits(digests.astype(np.uint64) ^ key)
    places = np.unique(place)  # of the different examples, ascending
    if len(places) < 3:
        raise ConfigError(
            f"there {'is' if len(digests) == 1 else 'are'} {count_noun(len(digests), 'example')} and {len(places)} "
            f"different ones: give at least 3 different ones, for training, validation and test"
        )
    number = places / 2.0**64
    test_end = max(1, int((number < test_size).sum()))
    val_end = max(test_end + 1, int((number < test_size + val_size).sum()))
    val_end = min(val_end, len(places) - 1)  # the training set is not empty either
    test_end = min(test_end, val_end - 1)
    rank = np.searchsorted(places, place)
    sets = (rank >= val_end, (test_end <= rank) & (rank < val_end), rank < test_end)
    train, val, test = (torch.from_numpy(np.flatnonzero(chosen)) for chosen in sets)
    return train, val, test


def mix_bits(values: np.ndarray) -> np.ndarray:
    """Return a one-to-one function of uint64 values whose results look random.

    Reference: the finalizer of SplitMix64, Steele et al. 2014, Fast splittable pseudorandom number generators,
    https://doi.org/10.1145/2660193.2660195.
    """
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


def keep_labels(y: Tensor, num: int, seed: int) -> Tensor:
    """Return labels of which ``num`` are kept, as many of each class as possible, and the others are missing (-1).

    >>> keep_labels(torch.tensor([0, 0, 0, 1, 1, 1]), 2, seed=0)
    tensor([-1, -1,  0, -1, -1,  1])

    Args:
        y: labels (N,), -1 if missing.
        num: number of labels that are kept; all if there are fewer.
        seed: which ones they are is a function of it.
    """
    order = torch.randperm(len(y), generator=seeding.generator(seed, "labels"))
    by_class = [order[y[order] == label] for label in y.unique().tolist() if label >= 0]
    ranks = torch.cat([torch.arange(len(part)) for part in by_class] or [order[:0]])
    kept = torch.cat([*by_class, order[:0]])[ranks.argsort(stable=True)[:num]]  # the first of each class, the second...
    few = torch.full_like(y, -1)
    few[kept] = y[kept]
    return few


def digest_rows(rows: np.ndarray) -> np.ndarray:
    """Return a digest of the content of each row of an array (N, ...): uint64 (N,)."""
    import hashlib

    rows = np.ascontiguousarray(rows).reshape(len(rows), -1)
    digests = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def pixel_sum(images: Tensor | LazyExamples) -> Tensor:
    """Return the exact sum over the images, int64 (C, H, W)."""
    # Sums below 2^24 of whole numbers are exact in float32, and ten times faster than in int64.
    rows = max(1, min(1000, 2**26 // images.shape[1:].numel()))  # at most 256 MB
    parts = [images[i : i + rows].float().sum(0).long() for i in range(0, len(images), rows)]
    return torch.stack(parts).sum(0)


def count_labels(y: Tensor, names: Sequence[str] | None, most: int = 20) -> dict[str, int]:
    """Return the number of examples of each class, the most frequent ones first; missing labels are not counted."""
    if y.ndim > 1:
        return {}
    counts = Counter(y[y >= 0].tolist())
    return {names[label] if names else str(label): count for label, count in counts.most_common(most)}
