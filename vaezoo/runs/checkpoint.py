"""Read and write checkpoints: tensors and plain values, verified both ways; nothing in a checkpoint is executed."""

import errno
import io
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import io as lightning_io
from lightning.pytorch.utilities import rank_zero_only

from vaezoo.archive import find_unreadable, leaves, read_archive
from vaezoo.old_names import update_config
from vaezoo.runs.checkpoint_file import open_verified, remove_verified, replace_verified

CONFIG_KEY = "vaezoo_config"
DATA_KEY = "vaezoo_data"
NEEDED_TO_RESUME = ("global_step", "loops", "optimizer_states")
# The parts that must be finite. With weight averaging, the average is in state_dict.
FINITE_PARTS = ("state_dict", "current_model_state", "optimizer_states")
DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ForeignCheckpoint(ValueError):
    """A checkpoint that vaezoo did not write."""


@rank_zero_only
def print_once(text: str) -> None:
    """Print a line on stderr; of several processes, only the first one prints."""
    print(text, file=sys.stderr)


def find_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint that a path names: the file itself, or the best, last or previous one of a run folder.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    path = Path(path)
    if path.is_file():
        return path
    for name in ("best", "last", "previous"):
        checkpoint = path / "checkpoints" / f"{name}.ckpt"
        if checkpoint.is_file():
            return checkpoint
    reason = "has no checkpoints/best.ckpt or checkpoints/last.ckpt" if path.is_dir() else "does not exist"
    raise FileNotFoundError(f"{path} {reason}: give a run folder such as outputs/DATE/TIME, or a .ckpt file")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint: plain values, and tensors on the CPU.

    The file is compared with the SHA-256 beside it, if there is one, and with the checksums inside it.

    Args:
        path: a checkpoint or a run folder.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the file cannot be read, is not what was written, holds numbers that are not finite, or vaezoo did
            not write it.
    """
    try:
        return read_intact(find_checkpoint(path))
    except ForeignCheckpoint:
        raise
    except ValueError as error:
        raise ValueError(f"{error}: use another checkpoint of the run, or train again") from error


def newest_checkpoint(folder: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the checkpoint from which a run is resumed: of last, previous and best, the intact one with most steps.

    Damaged checkpoints are skipped with a warning on stderr.

    Args:
        folder: the folder of the checkpoints.

    Returns:
        The file and its content; None if there is no checkpoint.

    Raises:
        ValueError: there are checkpoints, but none is intact.
    """
    paths = [Path(folder, f"{name}.ckpt") for name in ("last", "previous", "best")]
    existing = [path for path in paths if path.exists()]
    intact = []
    for path in existing:
        try:
            checkpoint = read_intact(path)
            if missing := [key for key in NEEDED_TO_RESUME if key not in checkpoint]:
                raise ValueError(f"{path} cannot be resumed (it has no {missing[0]})")
            intact.append((path, checkpoint))
        except ValueError as error:
            print_once(f"{error}: skipped")
    if existing and not intact:
        names = ", ".join(path.name for path in existing)
        raise ValueError(f"{folder} has no intact checkpoint ({names}): delete them to start again")
    return max(intact, key=lambda pair: pair[1]["global_step"], default=None)


def write_checkpoint(checkpoint: dict[str, Any], path: str | Path, previous: str | Path | None = None) -> None:
    """Write a checkpoint, and its SHA-256 beside it as ``NAME.sha256``, which ``sha256sum -c`` reads.

    The file at ``path`` is replaced only after the new one was written beside it and read back. If the process is
    killed at any moment, ``path`` or ``previous`` is intact and has its SHA-256 beside it.

    Args:
        checkpoint: a dict with a state_dict and the run's config; tensors and plain values in dicts, lists and tuples.
        path: the file. Its folder is created if it does not exist.
        previous: what the present file at ``path`` is renamed to, in the same folder; None: it is replaced.

    Raises:
        ValueError: the checkpoint is one that ``read_checkpoint`` would refuse.
        OSError: the disk is full or cannot be written; the old files are still there.
    """
    path = Path(path)
    if fault := find_fault(checkpoint):
        raise ValueError(f"{path} is left as it was: the checkpoint to write {fault}")
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    data = buffer.getbuffer()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_verified(data, path, Path(previous) if previous else None)
    except OSError as error:
        message = f"cannot save {path}: {error.strerror or error}"
        if error.errno in DISK_IS_FULL:
            disk = next(folder for folder in path.absolute().parents if folder.exists())  # the folder may not exist yet
            free = shutil.disk_usage(disk).free
            message = f"{message} ({len(data):,} bytes needed, {free:,} bytes free); make room and resume"
        raise OSError(message) from error


class CheckpointIO(lightning_io.CheckpointIO):
    """Lets Lightning read and write checkpoints with this module: ``Trainer(plugins=[CheckpointIO()])``.

    When ``last.ckpt`` is replaced, the old one becomes ``previous.ckpt``.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint with ``write_checkpoint``; storage options have no effect."""
        path = Path(path)
        write_checkpoint(checkpoint, path, path.with_name("previous.ckpt") if path.name == "last.ckpt" else None)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint with ``read_checkpoint``; the other arguments have no effect."""
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint and its SHA-256."""
        remove_verified(Path(path))


def read_intact(path: Path) -> dict[str, Any]:
    """Return the verified content of a checkpoint file, with the present names in its config.

    Raises:
        ValueError: the file is damaged, or vaezoo did not write it; the message names the file and the reason.
    """
    try:
        with open_verified(path) as file:
            checkpoint = read_archive(file)
    except Exception as error:  # torch raises errors of any class: pickle, zip, runtime, end of file
        text = error.strerror if isinstance(error, OSError) else str(error).strip()  # strerror has no path in it
        reason = (text or type(error).__name__).splitlines()[0].split(". ")[0]
        raise ValueError(f"{path} is not a readable checkpoint ({reason})") from error
    if fault := find_fault(checkpoint):
        if isinstance(checkpoint, dict) and CONFIG_KEY not in checkpoint:
            raise ForeignCheckpoint(
                f"{path} {fault}: if a Trainer of your own saved it, build the model and give it the weights with "
                f"model.load_state_dict(torch.load(FILE, weights_only=True)['state_dict'])"
            )
        raise ValueError(f"{path} {fault}")
    if isinstance(checkpoint[CONFIG_KEY], dict):
        checkpoint[CONFIG_KEY] = update_config(checkpoint[CONFIG_KEY])
    return checkpoint


def find_fault(checkpoint: Any) -> str | None:
    """Describe why a content is no valid checkpoint, before it is written and after it is read; None if it is valid."""
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        return "is not a checkpoint of a vaezoo run (it has no state_dict)"
    if CONFIG_KEY not in checkpoint:
        return f"is not a checkpoint of a vaezoo run (it has no {CONFIG_KEY})"
    if unreadable := find_unreadable(checkpoint):
        return f"holds {unreadable}, but only dense tensors and plain values can be read back"
    for name, value in leaves(checkpoint):
        if isinstance(value, torch.Tensor) and name.partition(".")[0] in FINITE_PARTS and not value.isfinite().all():
            return f"holds numbers that are not finite, in {name}"
    return None
