"""The memory that data may take."""

import os
from contextlib import suppress
from pathlib import Path

from vaezoo.errors import ConfigError


def available_memory() -> int:
    """Return the number of bytes that this process can still allocate without swapping."""
    limits = []
    with suppress(OSError, ValueError, StopIteration):  # Linux
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with suppress(OSError, ValueError):  # a container; "max" is no number
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits) if limits else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(name: str, needed: int, advice: str) -> None:
    """Raise an error if data do not fit into memory.

    Args:
        name: the file or folder, for the message.
        needed: bytes that the data take.
        advice: what to do about it.

    Raises:
        ConfigError: more bytes are needed than are available.
    """
    if needed > (available := available_memory()):
        raise ConfigError(
            f"{name} needs {needed / 1e9:,.1f} GB of memory and {available / 1e9:,.1f} GB are available: {advice}"
        )
