"""Small files that a kill leaves whole, and folders that one process holds."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaezoo.build import ConfigError

try:
    import fcntl
except ImportError:
    sys.exit(f"error: vaezoo runs on Linux and macOS, not on {sys.platform}: on Windows, install it in WSL")


def replace(path: Path, text: str) -> None:
    """Write a UTF-8 text file: whenever the process is killed, the path holds the old text or the new one."""
    fresh = path.with_name(f".{path.name}.tmp")
    with fresh.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def finite(value: Any) -> Any:
    """The same without NaN and infinities, which JSON does not know: null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def held(folder: Path) -> Iterator[None]:
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
