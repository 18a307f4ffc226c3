"""Sequences of vectors of your own, of unequal lengths: an .npz file of frames and lengths, or arrays in memory."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaezoo import seeding
from vaezoo.data.array_files import read_array_file
from vaezoo.data.array_values import convert_labels
from vaezoo.data.own import OwnData
from vaezoo.data.splits import Split, count_labels, digest_rows
from vaezoo.errors import ConfigError
from vaezoo.missing import is_observed

PICTURE_SIZE = 256  # largest longer side of a picture of a short sequence, in pixels
PICTURE_RANGE = 3.0  # standard deviations from black to gray, and from gray to white


class Sequences(NamedTuple):
    """Sequences of one or several sets, in their order.

    Args:
        frames: the frames of all sequences, one after the other, (sum of lengths, D), float64.
        lengths: number of frames of each sequence, (N,).
        labels: labels (N,), or None.
        num_train: number of training sequences, which are the first ones; None: there is no published test set.
    """

    frames: NDArray[np.float64]
    lengths: NDArray[np.int64]
    labels: NDArray | None
    num_train: int | None


def stored_names(path: str) -> list[str]:
    """Return the names of the arrays in an .npz file; empty if it is none, which ``read_array_file`` explains."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return []


class SequenceData(OwnData):
    """Provide sequences of vectors (T, D) as real numbers, with frames of NaN after the end of shorter ones.

    A file .npz holds the frames of all sequences one after the other, (sum of lengths, D), the number of frames of each
    one, (N,), and perhaps a label for each. If its keys begin with ``train_`` and ``test_``, this division is kept, and
    ``val_size`` of the training sequences are for validation; otherwise the sets are a function of the content.

    Each number of a frame is standardized by the training frames, and log p(x) is reported in the user's units.

    Attributes:
        content: sequences (T, D) in memory, which take the place of the file.
        content_labels: their labels, or None.

    Args:
        path: the file.
        frames: key of the frames.
        lengths: key of the lengths.
        labels: key of the labels; None: there are none.
        max_length: T; None: the length of the longest sequence. Longer ones are cut.
        **kwargs: arguments of ``OwnData`` and ``DataModule``.

    Raises:
        ConfigError: an option has no possible value.
    """

    noun = "sequence"
    data_kind = "real"
    shows_draws = True  # the means are smoother than any sequence
    is_standardized = True
    content: Sequence[NDArray] | None = None
    content_labels: NDArray | None = None

    def __init__(
        self,
        path: str = "",
        frames: str = "frames",
        lengths: str = "lengths",
        labels: str | None = None,
        max_length: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if max_length is not None and max_length < 1:
            raise ConfigError(f"data.max_length={max_length} should be an integer >= 1")
        self.path, self.max_length = path, max_length
        self.frames_key, self.lengths_key, self.labels_key = frames, lengths, labels
        self.loc: NDArray[np.float64] = np.zeros(0)
        self.scale: NDArray[np.float64] = np.zeros(0)
        self.num_train_published: int | None = None
        self.found: dict[str, Any] = {}

    # Reading.

    def read_sequences(self) -> Sequences:
        """Read the frames, the lengths and the labels of all sequences."""
        if self.content is not None:
            parts = [np.asarray(sequence, np.float64) for sequence in self.content]
            wrong = [part.shape for part in parts if part.ndim != 2 or part.shape[1:] != parts[0].shape[1:]]
            if wrong or not parts:
                raise ConfigError(f"sequences are arrays (T, D) of one D, got {wrong[0] if wrong else 'none'}")
            return Sequences(np.concatenate(parts), np.array([len(p) for p in parts]), self.content_labels, None)
        if not self.path:
            raise ConfigError("data.path is missing: name the file of the sequences, data.path=FILE.npz")
        names = stored_names(self.path)
        published = f"train_{self.frames_key}" in names
        sets = [self.read_set(prefix, names) for prefix in (("train_", "test_") if published else ("",))]
        if len({frames.shape[1] for frames, _, _ in sets}) > 1:
            raise ConfigError(f"the training and test frames of {self.path} have unequal sizes: give them one size")
        frames, lengths = (np.concatenate([part[i] for part in sets]) for i in range(2))
        labels = None if sets[0][2] is None else np.concatenate([part[2] for part in sets])
        return Sequences(frames, lengths, labels, len(sets[0][1]) if published else None)

    def read_set(self, prefix: str, names: list[str]) -> tuple[NDArray, NDArray, NDArray | None]:
        """Return frames, lengths and labels of one set.

        Args:
            prefix: the beginning of its keys.
            names: the keys of the file; empty if it cannot be read.

        Raises:
            ConfigError: an array is missing, or they do not belong together.
        """
        keys = {"frames": self.frames_key, "lengths": self.lengths_key, "labels": self.labels_key}
        for option, key in keys.items():
            if names and key is not None and f"{prefix}{key}" not in names:
                found = ", ".join(names[:20])
                raise ConfigError(
                    f"{self.path} has no {prefix}{key}, but {found}: choose a key with data.{option}=NAME"
                )
        arrays = {
            option: read_array_file(self.path, f"{prefix}{key}") for option, key in keys.items() if key is not None
        }
        frames, lengths = arrays["frames"].x, arrays["lengths"].x
        if frames.ndim != 2 or frames.dtype.kind not in "iuf":
            raise ConfigError(
                f"{arrays['frames'].name} has the shape {frames.shape} and the type {frames.dtype}: give numbers of "
                f"the shape (frames, D)"
            )
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or lengths.min(initial=1) < 1:
            raise ConfigError(f"{arrays['lengths'].name} should hold a whole number >= 1 for each sequence")
        if lengths.sum() != len(frames):
            raise ConfigError(
                f"{arrays['frames'].name} has {len(frames):,} frames, but the lengths add up to {lengths.sum():,}: "
                f"give the number of frames of each sequence"
            )
        return frames.astype(np.float64), lengths.astype(np.int64), arrays["labels"].x if "labels" in arrays else None

    def read_all(self) -> tuple[Split, np.ndarray]:
        sequences = self.read_sequences()
        frames, lengths = sequences.frames, sequences.lengths
        if not np.isfinite(frames[~np.isnan(frames)]).all():
            raise ConfigError(f"the frames of {self.path or 'the sequences'} hold infinite values: repair them")
        y, self.class_names = convert_labels(sequences.labels, len(lengths), f"{self.labels_key} of {self.path}")
        self.num_train_published = sequences.num_train
        starts = np.cumsum(lengths) - lengths
        parts = [frames[start : start + number] for start, number in zip(starts, lengths, strict=True)]
        longest = int(lengths.max()) if self.max_length is None else self.max_length
        x = np.full((len(parts), longest, frames.shape[1]), np.nan)
        for row, part in zip(x, parts, strict=True):
            row[: len(part)] = part[:longest]
        self.found = {
            "sequences": len(parts),
            "frames": len(frames),
            "frames of a sequence": [int(lengths.min()), float(np.median(lengths)), int(lengths.max())],
            "sequences that are cut": int((lengths > longest).sum()),
            "published test set": sequences.num_train is not None,
            "missing values": int(np.isnan(frames).sum()),
            "classes": count_labels(y, self.class_names),
        }
        # Not of the rows of x, whose length depends on the longest sequence.
        digests = [digest_rows(part[None, :longest]) for part in parts]
        return Split(torch.from_numpy(x), y), np.concatenate(digests)

    def divide(self, digests: np.ndarray) -> dict[str, Tensor]:
        if self.num_train_published is None:
            return super().divide(digests)
        num = self.num_train_published
        num_val = self.val_size if isinstance(self.val_size, int) else max(1, round(self.val_size * num))
        if num_val >= num:
            raise ConfigError(f"data.val_size={self.val_size} leaves nothing of {num} training sequences")
        order = torch.randperm(num, generator=seeding.generator(self.split_seed, "split"))
        sets = order[num_val:].sort().values, order[:num_val].sort().values, torch.arange(num, len(digests))
        self.rows, self.digests = dict(zip(("train", "val", "test"), sets, strict=True)), digests
        return self.rows

    def read(self) -> tuple[Split, ...]:
        split, digests = self.read_all()
        rows = self.divide(digests)
        assert isinstance(split.x, Tensor)
        train = split.x[rows["train"]].flatten(0, 1).numpy()
        self.loc, self.scale = np.nanmean(train, 0), np.nanstd(train, 0)
        self.scale[self.scale == 0] = 1
        x = self.standardize(split.x)
        return tuple(Split(x[row], split.y[row]) for row in rows.values())

    def fits(self, description: Mapping[str, Any]) -> bool:
        return "frame_loc" in description

    def read_new(self, description: Mapping[str, Any]) -> tuple[Split, np.ndarray]:
        self.loc, self.scale = np.array(description["frame_loc"]), np.array(description["frame_scale"])
        self.max_length = description["shape"][0]
        split, digests = self.read_all()
        assert isinstance(split.x, Tensor)
        if split.x.shape[2] != len(self.loc):
            raise ConfigError(
                f"the frames have {split.x.shape[2]} numbers, but those of the training {len(self.loc)}: use sequences "
                f"of the same kind"
            )
        return Split(self.standardize(split.x), split.y), digests

    def standardize(self, x: Tensor) -> Tensor:
        """Return sequences (N, T, D) in the user's units as the model sees them, float32."""
        return ((x - torch.from_numpy(self.loc)) / torch.from_numpy(self.scale)).float()

    def in_file_units(self, x: Tensor) -> Tensor:
        """Return sequences as the model sees them in the user's units, float64."""
        return x.cpu().double() * torch.from_numpy(self.scale) + torch.from_numpy(self.loc)

    # What the model and the user get.

    def likelihood_config(self) -> dict[str, Any]:
        """Return the default likelihood: a normal whose scales the network gives, in the user's units."""
        return self.in_user_units({"_target_": "vaezoo.families.Normal"})

    def in_user_units(self, likelihood: dict[str, Any]) -> dict[str, Any]:
        self.inspect()
        return {"_target_": "vaezoo.families.Rescaled", "family": likelihood, "scale": self.scale.tolist()}

    def describe(self) -> dict[str, Any]:
        scales = {"frame_loc": self.loc.tolist(), "frame_scale": self.scale.tolist()}
        return super().describe() | scales | {"class_names": self.class_names}

    def encoding(self, description: Mapping[str, Any]) -> Any:
        return {key: description.get(key) for key in ("frame_loc", "frame_scale")}

    def report(self) -> dict[str, Any]:
        return self.found

    def to_images(self, x: Tensor) -> Tensor:
        """Return sequences as pictures (N, 1, D, T), time to the right; gray is the mean of a number in the training.

        Black is 3 standard deviations below it and white 3 above. Frames after the end are white. Each number is a
        square of pixels.
        """
        levels = ((x.float() / PICTURE_RANGE + 1) / 2).clamp(0, 1).nan_to_num(nan=1.0).transpose(1, 2).unsqueeze(1)
        size = max(1, PICTURE_SIZE // max(x.shape[1:]))
        return levels.repeat_interleave(size, 2).repeat_interleave(size, 3)

    def save_examples(self, x: Tensor, path: Path) -> list[Path]:
        """Write sequences as .csv in the user's units: a row for each frame, with the numbers of sequence and frame."""
        file = path.with_name(f"{path.name}-frames.csv")  # ``task=reconstruct`` writes NAME.csv itself
        values = self.in_file_units(x).numpy()
        here = is_observed(x).any(-1).cpu().numpy()
        number, frame = np.nonzero(here)
        head = ",".join(["sequence", "frame", *(f"x{i}" for i in range(values.shape[2]))])
        table = np.column_stack([number, frame, values[here]])
        formats = ["%d", "%d", *["%.6g"] * values.shape[2]]
        np.savetxt(file, table, delimiter=",", fmt=formats, header=head, comments="")
        return [file]
