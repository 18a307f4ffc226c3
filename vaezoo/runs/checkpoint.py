"""Checkpoints on disk: written whole or not at all, never read unverified; no Hydra, no pickled code."""

import errno
import hashlib
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import io as lightning_io
from lightning.pytorch.utilities import rank_zero_only
from torch.nn.modules.module import register_module_parameter_registration_hook

from vaezoo.instantiate import build
from vaezoo.models import LatentVariableModel
from vaezoo.runs.archive import find_unreadable, leaves, read_archive

CONFIG_KEY = "vaezoo_config"
RESUMABLE = ("global_step", "loops", "optimizer_states")  # what training again needs beside the weights
# Where a number that is not finite makes a checkpoint worthless. Weight averaging has its average in state_dict.
TRAINED = ("state_dict", "current_model_state", "optimizer_states")
LARGE = 10**7  # a whole number in a model's config may be as large, or as large as the checkpoint
LARGEST_CONFIG = 100_000
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ForeignCheckpoint(ValueError):
    """A checkpoint that vaezoo did not write."""


@rank_zero_only
def print_once(text: str) -> None:
    """A line on stderr; of several processes, by the first alone."""
    print(text, file=sys.stderr)


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a path names: itself, or a run folder's best, last or previous one."""
    path = Path(path)
    if path.is_file():
        return path
    for name in ("best", "last", "previous"):
        checkpoint = path / "checkpoints" / f"{name}.ckpt"
        if checkpoint.is_file():
            return checkpoint
    what = "has no checkpoints/best.ckpt or checkpoints/last.ckpt" if path.is_dir() else "does not exist"
    raise FileNotFoundError(f"{path} {what}: give a run folder such as outputs/DATE/TIME, or a .ckpt file")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint: tensors, on the CPU, and plain values alone.

    Its bytes are compared with the SHA-256 beside it, where there is one, and with the checksums inside it.

    Raises:
        FileNotFoundError: no checkpoint there.
        ValueError: it cannot be read, is not what was written, holds numbers that are not finite, or
            vaezoo did not write it.
    """
    try:
        return _read(find_checkpoint(path))
    except ForeignCheckpoint:
        raise
    except ValueError as error:
        raise ValueError(f"{error}: use another checkpoint of the run, or train again") from error


def newest_checkpoint(folder: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to go on from, of last, previous and best in a folder: the sound one with the most steps.

    Each that is not sound is passed over, with a sentence on stderr. None where there is no checkpoint at all.

    Raises:
        ValueError: there are checkpoints, but no sound one.
    """
    paths = [Path(folder, f"{name}.ckpt") for name in ("last", "previous", "best")]
    found = [path for path in paths if path.exists()]
    sound = []
    for path in found:
        try:
            checkpoint = _read(path)
            if missing := [key for key in RESUMABLE if key not in checkpoint]:
                raise ValueError(f"{path} is not a checkpoint to go on from (it has no {missing[0]})")
            sound.append((path, checkpoint))
        except ValueError as error:
            print_once(f"{error}: passed over")
    if found and not sound:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder} has no sound checkpoint to go on from ({names}): delete them to start anew")
    return max(sound, key=lambda pair: pair[1]["global_step"], default=None)


def write_checkpoint(checkpoint: dict[str, Any], path: str | Path, previous: str | Path | None = None) -> None:
    """Write a checkpoint, and its SHA-256 beside it as ``NAME.sha256``, which ``sha256sum -c`` reads.

    The file at ``path`` is replaced only when the new one lies beside it on the disk and has been read
    back. Whenever the process is killed, ``path`` or ``previous`` is whole and has its SHA-256 beside it.

    Args:
        checkpoint: with a state_dict and the run's config; tensors and plain values in dicts, lists and tuples.
        path: the file, in a folder that is made if need be.
        previous: what the file that was at ``path`` is renamed to, in the same folder. It is replaced if not given.

    Raises:
        ValueError: the checkpoint is one that reading would refuse.
        OSError: the disk is full or cannot be written; whatever was there before still is.
    """
    path = Path(path)
    if fault := _fault(checkpoint):
        raise ValueError(f"{path} is left as it was: the checkpoint to write {fault}")
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    data = buffer.getbuffer()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(data, path, Path(previous) if previous else None)
    except OSError as error:
        what = f"cannot save {path}: {error.strerror or error}"
        if error.errno in NO_ROOM:
            disk = next(folder for folder in path.absolute().parents if folder.exists())  # it may yet have to be made
            free = shutil.disk_usage(disk).free
            what = f"{what} ({len(data):,} bytes needed, {free:,} bytes free); make room and resume"
        raise OSError(what) from error


def remove_leftovers(folder: str | Path) -> None:
    """Tidy up after processes that were killed while they wrote; for the start of a run, before it reads or writes.

    Their half-written files go, and of two SHA-256 beside a checkpoint the one stays that it has.

    Raises:
        ValueError: a folder lies where a checkpoint is to be written.
    """
    for path in Path(folder).glob(".*.tmp"):
        owner = re.fullmatch(r"\..+\.ckpt(?:\.sha256)?\.(\d+)\.tmp", path.name)
        if owner and not _running(int(owner[1])):
            path.unlink(missing_ok=True)
    for path in Path(folder).glob("*.ckpt"):
        if path.is_dir():
            raise ValueError(f"{path} is a folder where a checkpoint is to be written: move it away")
        if len(listed := _listed(path)) > 1 and (digest := _digest(path)) in listed:
            _list(path, [digest])


def load_weights(model: torch.nn.Module, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Put a checkpoint's weights into a model.

    Raises:
        ValueError: names, shapes or kinds of numbers do not fit.
    """
    check_weights(model, checkpoint, path)
    model.load_state_dict(checkpoint["state_dict"])


def check_weights(model: torch.nn.Module, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Raise a ValueError if a checkpoint's weights are not those of a model: names, shapes and kinds of numbers.

    Floating-point weights may have another precision than the model, as those of ``trainer.precision=bf16-true``.
    """
    expected, given = model.state_dict(), checkpoint["state_dict"]
    for name in [*expected, *given]:
        if name not in given or name not in expected:
            fault = f"{name} is only in the {'model' if name in expected else 'checkpoint'}"
        elif not isinstance(given[name], torch.Tensor):
            fault = f"{name} is a {type(given[name]).__name__}"
        elif given[name].shape != expected[name].shape:
            fault = f"{name} is {tuple(given[name].shape)}, the model's is {tuple(expected[name].shape)}"
        elif given[name].dtype != expected[name].dtype and not (
            given[name].is_floating_point() and expected[name].is_floating_point()
        ):
            fault = f"{name} is {given[name].dtype}, the model's is {expected[name].dtype}"
        else:
            continue
        raise ValueError(f"{path} does not fit its own config ({fault})")


def check_config(checkpoint: dict[str, Any], path: str | Path, allow_packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the config of a checkpoint, if its model can be built and has the checkpoint's weights.

    Raises:
        ValueError: the config is incomplete, describes another model, or one that is larger than the checkpoint.
    """
    config = checkpoint[CONFIG_KEY]
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict) or type(config.get("seed")) is not int:
        raise ValueError(f"{path} does not hold the config of a run: it needs a model and a seed")
    if not allow_packages:  # a config from a stranger may describe a model of any size
        check_size(config, checkpoint, path)
    return config


def check_size(config: dict[str, Any], checkpoint: dict[str, Any], path: str | Path) -> None:
    """Build the model of a config on torch's meta device, without memory, and compare it with a checkpoint's weights.

    Raises:
        ValueError: it has more parameters than the checkpoint has numbers, or others.
    """
    if too_many(config["model"], LARGEST_CONFIG):
        raise ValueError(f"{path} has a config of more than {LARGEST_CONFIG:,} entries, which no model has")
    stored = sum(value.numel() for value in checkpoint["state_dict"].values() if isinstance(value, torch.Tensor))
    for name, value in leaves(config["model"], "model"):
        if isinstance(value, int) and value > max(stored, LARGE):
            raise ValueError(f"{path} has {name}={value} in its config, but holds only {stored:,} numbers")
    with torch.device("meta"), limited_parameters(2 * stored + 1000):
        model = build_model(config, path)
    check_weights(model, checkpoint, path)


def too_many(node: Any, most: int) -> bool:
    """Whether nested dicts and lists have more than ``most`` entries, one that is repeated counting each time."""
    waiting = [node]
    for _ in range(most):
        if not waiting:
            return False
        part = waiting.pop()
        waiting += part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ()
    return True


def build_model(config: dict[str, Any], path: str | Path, allow_packages: tuple[str, ...] = ()) -> LatentVariableModel:
    """Build the model of a checkpoint's config, and leave the caller's random stream as it was.

    Raises:
        ValueError: the config describes something else than a model, or parts that do not fit together.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            model = build(config["model"], "model", allow_packages, seed=config["seed"])
    except ValueError:
        raise
    except Exception as error:  # parts that do not fit together raise whatever their code leads to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} has a config that builds no model ({reason}): if it is your own class, use "
            f"allow_packages=('vaezoo',)"
        ) from error
    if not isinstance(model, LatentVariableModel):
        raise ValueError(f"{path} has a config that builds a {type(model).__name__}, not a model")
    return model


@contextmanager
def limited_parameters(most: int) -> Iterator[None]:
    """Raise a ValueError as soon as the modules that are made in this block have more than ``most`` parameters."""
    total = 0

    def count(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        nonlocal total
        total += 0 if parameter is None else parameter.numel()
        if total > most:
            raise ValueError("the config describes a model that is larger than the checkpoint")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def load(path: str | Path, allow_packages: str | Sequence[str] = ()) -> LatentVariableModel:
    """Load a trained model, on the CPU and in eval mode: ``encode``, ``decode``, ``sample``, ``log_marginal``.

    A checkpoint is data: loading one from a stranger runs none of its content and writes nothing, as long as
    ``allow_packages`` is empty.

    Args:
        path: a run folder (its best checkpoint is loaded) or a checkpoint.
        allow_packages: packages of your own that the model's config may name.

    Raises:
        FileNotFoundError: no checkpoint there.
        ValueError: it cannot be read, holds broken weights, or names something that no model is made of.
    """
    checkpoint, path = read_checkpoint(path), find_checkpoint(path)
    allow_packages = (allow_packages,) if isinstance(allow_packages, str) else tuple(allow_packages)
    config = check_config(checkpoint, path, allow_packages)
    model = build_model(config, path, allow_packages)
    model.config = config
    load_weights(model, checkpoint, path)
    return model.eval()


class CheckpointIO(lightning_io.CheckpointIO):
    """Lightning's checkpoints by this module: ``Trainer(plugins=[CheckpointIO()])``.

    ``last.ckpt`` leaves the one before it as ``previous.ckpt``. What is read is always verified, plain
    data alone, and on the CPU, from where Lightning takes it to where it belongs.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """``write_checkpoint``; there are no storage options."""
        path = Path(path)
        write_checkpoint(checkpoint, path, path.with_name("previous.ckpt") if path.name == "last.ckpt" else None)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """``read_checkpoint``, whatever the arguments."""
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint and its SHA-256."""
        Path(path).unlink(missing_ok=True)
        _sidecar(Path(path)).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """The verified content of a file; its errors name file and cause."""
    try:
        listed = _listed(path)
        with path.open("rb") as file:
            listed += _listed(path)  # again: a run may be replacing both just now
            if listed and hashlib.file_digest(file, "sha256").hexdigest() not in listed:
                raise ValueError(f"its SHA-256 is not the one in {_sidecar(path).name}")
            checkpoint = read_archive(file)
    except Exception as error:  # torch raises what it likes: pickle, zip, runtime, end of file
        said = error.strerror if isinstance(error, OSError) else str(error).strip()  # without the path once more
        reason = (said or type(error).__name__).splitlines()[0].split(". ")[0]
        raise ValueError(f"{path} is not a readable checkpoint ({reason})") from error
    if fault := _fault(checkpoint):
        if isinstance(checkpoint, dict) and CONFIG_KEY not in checkpoint:
            raise ForeignCheckpoint(
                f"{path} {fault}: if a Trainer of your own saved it, build the model and give it the weights with "
                f"model.load_state_dict(torch.load(FILE, weights_only=True)['state_dict'])"
            )
        raise ValueError(f"{path} {fault}")
    return checkpoint


def _fault(checkpoint: Any) -> str | None:
    """Describe what makes a content unfit to be a checkpoint, for writing and for reading; None if nothing does."""
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        return "is not a checkpoint of a vaezoo run (it has no state_dict)"
    if CONFIG_KEY not in checkpoint:
        return f"is not a checkpoint of a vaezoo run (it has no {CONFIG_KEY})"
    if unreadable := find_unreadable(checkpoint):
        return f"holds {unreadable}, but only dense tensors and plain values can be read back"
    for name, value in leaves(checkpoint):
        if isinstance(value, torch.Tensor) and name.partition(".")[0] in TRAINED and not value.isfinite().all():
            return f"holds numbers that are not finite, in {name}"
    return None


def _replace(data: memoryview, path: Path, previous: Path | None) -> None:
    """The steps of writing. What can want room on the disk comes before the first file is renamed."""
    digest = hashlib.sha256(data).hexdigest()
    with _temporary(path) as temporary:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if _digest(temporary) != digest:
            raise OSError(errno.EIO, "the disk returns other bytes than were written")
        moves = [(temporary, path, [digest])]
        if previous and path.exists():
            moves.insert(0, (path, previous, _digests(path)))
        # From before a file changes until after, both its SHA-256 stand beside it.
        for _, target, digests in moves:
            _list(target, _digests(target) + digests)
        for source, target, _ in moves:
            source.replace(target)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        for _, target, digests in moves:
            _list(target, digests)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name in the same folder that no other process uses; gone afterwards, if it was not renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink()


def _running(pid: int) -> bool:
    """Whether another process has this number; in a container, an own number may be a predecessor's."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _listed(path: Path) -> list[str]:
    """The SHA-256 that stand beside a file: one, or both while it is being replaced, or none."""
    try:
        return re.findall(r"^([0-9a-f]{64}) ", _sidecar(path).read_text(errors="replace"), re.MULTILINE)
    except FileNotFoundError:
        return []


def _digests(path: Path) -> list[str]:
    """What stands beside a file; without that, the SHA-256 that it has, if it exists."""
    return _listed(path) or ([_digest(path)] if path.exists() else [])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _list(path: Path, digests: list[str]) -> None:
    """Put SHA-256 beside a file. Without fsync: if a power cut empties it, it lists none and refuses nothing."""
    with _temporary(_sidecar(path)) as temporary:
        temporary.write_text("".join(f"{digest}  {path.name}\n" for digest in dict.fromkeys(digests)))
        temporary.replace(_sidecar(path))
