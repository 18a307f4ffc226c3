"""The files of checkpoints: written as a whole or not at all, each with its SHA-256 in a file beside it.

While a file is replaced, both its old and its new SHA-256 are listed, so that one of them fits whenever the process is
killed. ``sha256sum -c`` reads the list.
"""

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def open_verified(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading after a comparison with its SHA-256; a file without SHA-256 is not compared.

    Raises:
        ValueError: the file has another SHA-256.
    """
    digests = read_digests(path)
    with path.open("rb") as file:
        digests += read_digests(path)  # again, because a run may be replacing both at this moment
        if digests and hashlib.file_digest(file, "sha256").hexdigest() not in digests:
            raise ValueError(f"its SHA-256 is not the one in {sidecar(path).name}")
        yield file


def replace_verified(data: memoryview, path: Path, previous: Path | None = None) -> None:
    """Write a file and read it back before it replaces the one of the same name.

    Everything that may need space on the disk happens before the first file is renamed.

    Args:
        data: the content.
        path: the file.
        previous: what a file at ``path`` is renamed to; None: it is replaced.

    Raises:
        OSError: the disk is full or broken; the old files are still there.
    """
    digest = hashlib.sha256(data).hexdigest()
    with temporary_file(path) as temporary:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if compute_digest(temporary) != digest:
            raise OSError(errno.EIO, "the disk returns other bytes than were written")
        moves = [(temporary, path, [digest])]
        if previous and path.exists():
            moves.insert(0, (path, previous, known_digests(path)))
        for _, target, digests in moves:
            write_digests(target, known_digests(target) + digests)
        for source, target, _ in moves:
            source.replace(target)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        for _, target, digests in moves:
            write_digests(target, digests)


def remove_verified(path: Path) -> None:
    """Remove a file and its SHA-256."""
    path.unlink(missing_ok=True)
    sidecar(path).unlink(missing_ok=True)


def remove_leftovers(folder: str | Path) -> None:
    """Clean up after processes that were killed while they wrote a checkpoint; call it when a run starts.

    Temporary files are removed. If two SHA-256 are listed for a checkpoint, the one that it does not have is removed.

    Raises:
        ValueError: a folder has the name of a checkpoint.
    """
    for path in Path(folder).glob(".*.tmp"):
        owner = re.fullmatch(r"\..+\.ckpt(?:\.sha256)?\.(\d+)\.tmp", path.name)
        if owner and not is_running(int(owner[1])):
            path.unlink(missing_ok=True)
    for path in Path(folder).glob("*.ckpt"):
        if path.is_dir():
            raise ValueError(f"{path} is a folder, but a checkpoint is to be written there: move it away")
        if len(digests := read_digests(path)) > 1 and (digest := compute_digest(path)) in digests:
            write_digests(path, [digest])


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Give a name in the same folder that no other process uses, and remove that file if it was not renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink()


def is_running(pid: int) -> bool:
    """Return whether another process has this id. An own id may be that of a predecessor, in a container."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


def sidecar(path: Path) -> Path:
    """Return the file that lists the SHA-256 of a file."""
    return path.with_name(f"{path.name}.sha256")


def read_digests(path: Path) -> list[str]:
    """Return the SHA-256 that are listed for a file: one, two while it is being replaced, or none."""
    try:
        return re.findall(r"^([0-9a-f]{64}) ", sidecar(path).read_text(errors="replace"), re.MULTILINE)
    except FileNotFoundError:
        return []


def known_digests(path: Path) -> list[str]:
    """Return the SHA-256 that are listed for a file; if none is, the one that the file has, if it exists."""
    return read_digests(path) or ([compute_digest(path)] if path.exists() else [])


def compute_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_digests(path: Path, digests: list[str]) -> None:
    """List SHA-256 for a file. There is no fsync: a list that a power cut empties refuses nothing."""
    with temporary_file(sidecar(path)) as temporary:
        temporary.write_text("".join(f"{digest}  {path.name}\n" for digest in dict.fromkeys(digests)))
        temporary.replace(sidecar(path))
