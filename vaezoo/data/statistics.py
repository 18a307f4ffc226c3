"""Numbers that describe a data set: sizes, ranges, missing entries, duplicates and classes."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaezoo.data.base import DataModule
from vaezoo.data.splits import Split, digest_rows
from vaezoo.missing import is_observed

# Of each split, at most so many examples and so many values are looked at. They are evenly spaced.
MOST_EXAMPLES = 20_000
MOST_VALUES = 50_000_000
SPLITS = ("train", "val", "test")


def sample_split(split: Split, num: int) -> Split:
    """Return at most ``num`` examples of a split, evenly spaced."""
    size = len(split.x)
    return split if size <= num else split.select(torch.arange(num) * size // num)


def describe_data(data: DataModule, most: int = MOST_EXAMPLES) -> dict[str, Any]:
    """Return what can be said of a data set, as plain values by name.

    Args:
        data: the data module, after its ``setup``.
        most: largest number of examples of each split whose values are looked at.

    Returns:
        ``class``, ``noun``, ``kind``, ``shape`` and ``numbers`` (examples of each split); ``looked_at`` (examples whose
        values are counted in the entries that follow); ``range``, ``mean`` and ``std`` of the observed entries as the
        model sees them; ``missing`` (share of the entries) and ``missing_examples`` (share of the examples with missing
        entries); ``constant_entries`` (entries that are equal in all examples in which they are observed);
        ``duplicates`` (examples that equal an earlier one) and ``shared`` (test examples that equal a training
        example), both of the stored values; ``classes`` (number of training examples by class), empty without labels;
        and ``bytes`` of the stored training examples.
    """
    splits = {name: getattr(data, name) for name in SPLITS}
    most = max(1, min(most, MOST_VALUES // prod(data.shape or ())))
    parts = {name: sample_split(split, most) for name, split in splits.items()}
    digests = {name: digest_rows(stored_rows(part)) for name, part in parts.items()}
    every = np.concatenate(list(digests.values()))
    x = torch.cat([model_rows(data, parts[name], name) for name in SPLITS])
    observed = is_observed(x)
    values = x[observed].float()
    rows, noun = x.flatten(1), data.noun
    first = observed.flatten(1).to(torch.uint8).argmax(0, keepdim=True)  # the first row in which an entry is observed
    constant = ((rows == rows.gather(0, first)) | ~is_observed(rows)).all(0)
    train = splits["train"]
    row_bytes = stored_rows(sample_split(train, 1)).nbytes
    return {
        "class": type(data).__name__,
        "noun": noun,
        "kind": data.data_kind,
        "shape": list(data.shape or ()),
        "numbers": {name: len(split.x) for name, split in splits.items()},
        "looked_at": len(x),
        "range": [float(values.min()), float(values.max())] if len(values) else [],
        "mean": float(values.mean(dtype=torch.float64)) if len(values) else None,
        "std": float(values.std()) if len(values) > 1 else None,
        "missing": float((~observed).double().mean()),
        "missing_examples": float((~observed).flatten(1).any(1).double().mean()),
        "constant_entries": int(constant.sum()),
        "duplicates": len(every) - len(np.unique(every)),
        "shared": int(np.isin(digests["test"], digests["train"]).sum()),
        "classes": count_classes(train.y, data.describe().get("class_names") or []),
        "bytes": row_bytes * len(train.x),
    }


def stored_rows(split: Split) -> np.ndarray:
    """Return the examples of a split as they are stored."""
    rows: np.ndarray = split.x[:].cpu().numpy()
    return rows


def model_rows(data: DataModule, split: Split, name: str) -> Tensor:
    """Return the examples of a split as the model sees them."""
    return torch.cat([batch.x for batch in data.batches(split, 1000, train=name == "train")])


def count_classes(labels: Tensor, names: Sequence[str] = ()) -> dict[str, int]:
    """Return the number of examples of each class; empty if the labels are factors, floats or all missing.

    Args:
        labels: labels (N,); -1 if missing.
        names: the names of the classes; without them, the labels are the names.
    """
    if labels.dim() != 1 or labels.is_floating_point() or bool((labels < 0).all()):
        return {}
    classes, counts = labels.unique(return_counts=True)
    numbers = zip(classes.tolist(), counts.tolist(), strict=True)
    return {"no label" if i < 0 else names[i] if names else str(i): num for i, num in numbers}
