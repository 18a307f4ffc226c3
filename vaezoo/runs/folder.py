"""A run on disk: atomic writes, the lock of a folder, and its records."""

import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaezoo.errors import ConfigError

try:
    import fcntl
except ImportError:
    sys.exit(f"error: vaezoo runs on Linux and macOS, not on {sys.platform}: on Windows, install it in WSL")


def write_atomic(path: Path, text: str) -> None:
    """Write a UTF-8 text file: whenever the process is killed, the path holds the old text or the new one."""
    fresh = path.with_name(f".{path.name}.tmp")
    with fresh.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def non_finite_to_none(value: Any) -> Any:
    """The same without NaN and infinities, which JSON does not know: null."""
    if isinstance(value, dict):
        return {key: non_finite_to_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [non_finite_to_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a folder for this process until it leaves, by whatever way.

    Raises:
        ConfigError: another process holds it.
    """
    with (folder / ".lock").open("a") as file:  # "w" would empty the file that a link of this name points to
        try:
            # A lock of the process: its forked workers, which may outlive it for seconds, do not have it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ConfigError(f"{folder} is in use by a run that has not ended: wait for it or stop it") from error
        except OSError:
            pass  # a file system without locks
        yield


# The words of a sweep's command, in its folder; and those of each job with its number, in the job's.
SWEEP_RECORD, JOB_RECORD = "sweep.json", "job.json"


def relevant_overrides(words: Iterable[str]) -> list[str]:
    """The words of a command that say what is computed: neither Hydra's own nor whether it goes on."""
    return [word for word in words if not word.lstrip("+~").startswith(("hydra.", "hydra/", "resume="))]


def read_summary(folder: Path) -> dict[str, Any]:
    """Return a folder's ``summary.json``; an empty dict if there is none, or none that can be read."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}


def short_error(error: str) -> str:
    """An error without the examples that a diverged training names: they are dozens."""
    return re.sub(r" \(training examples [\d, ]+\)", "", error)


def read_jobs(sweep_dir: Path) -> dict[Path, dict[str, Any]]:
    """The folders of a sweep's jobs, with each job's number and overrides."""
    return {file.parent: json.loads(file.read_text(encoding="utf-8")) for file in sweep_dir.rglob(JOB_RECORD)}
