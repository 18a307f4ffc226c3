"""The difference between an exported file and the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from vaezoo.export.files import describe_failure, open_file
from vaezoo.export.functions import ExportedFunction

LIMIT = 1e-5  # the largest difference that is allowed
DEFINITION = "largest |file - torch| / max(1, |torch|) over all numbers of all outputs"


@dataclass(frozen=True)
class FileReport:
    """The comparison of a file with the model.

    Args:
        path: the file.
        differences: the largest difference of each output by name; empty if the file could not be written or run.
        reason: why it could not be written or run; None if it was.
    """

    path: Path
    differences: Mapping[str, float]
    reason: str | None = None

    @property
    def difference(self) -> float:
        """The largest difference; infinity if the file could not be written or run."""
        return max(self.differences.values(), default=float("inf"))

    @property
    def works(self) -> bool:
        """Return whether the file gives the numbers of the model."""
        return self.difference <= LIMIT

    def describe(self) -> dict:
        """Return the report as plain values."""
        found = {"works": self.works, "difference": self.difference if self.differences else None}
        size = self.path.stat().st_size if self.path.exists() else None
        return found | {"differences": dict(self.differences), "reason": self.reason, "bytes": size}


def measure_difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest |found - expected| / max(1, |expected|).

    It is an absolute difference for numbers up to 1, and a relative one for larger numbers. Two numbers that are both
    NaN, or the same infinity, do not differ; the difference to any other number is infinite.

    Raises:
        ValueError: shape or type differ.
    """
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise ValueError(
            f"the file gives {tuple(found.shape)} numbers of type {found.dtype}, the model {tuple(expected.shape)} of "
            f"{expected.dtype}"
        )
    a, b = found.double(), expected.double()
    difference = (a - b).abs() / b.abs().clamp(min=1)
    difference = torch.where((a == b) | (a.isnan() & b.isnan()), 0, difference)
    return float(difference.nan_to_num(nan=torch.inf, posinf=torch.inf).max())


def compare_file(
    path: Path, function: ExportedFunction, batches: Sequence[tuple[Tensor, Tensor]], reason: str | None = None
) -> FileReport:
    """Compare a file with the function that was exported, and with the model's own methods.

    Args:
        path: the file.
        function: the function that was exported.
        batches: examples and their labels, of several batch sizes.
        reason: why the file could not be written; None if it was.
    """
    if reason is not None:
        return FileReport(path, {}, reason)
    differences: dict[str, float] = {}
    size = 0
    try:
        run = open_file(path)
        for x, labels in batches:
            size = len(x)
            with torch.no_grad():
                inputs = function.example_inputs(x, labels)
                expected = [function(**inputs), function.reference(x, labels)]
            found = run(**inputs)
            for name, value in chain.from_iterable(part.items() for part in expected):
                differences[name] = max(differences.get(name, 0.0), measure_difference(found[name], value))
    except Exception as error:  # onnxruntime and torch raise errors of many classes
        return FileReport(path, {}, f"{size} examples: {describe_failure(error)}")
    return FileReport(path, differences)
