"""How a process uses the machine: threads, and memory between steps."""

import ctypes
import os
import sys

import torch

from vaezoo.errors import ConfigError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let freed memory stay with the process, on Linux with glibc; whether that was done.

    A step frees blocks of some megabytes and asks for the same ones in the next. By default glibc hands each
    back to the system and gets it anew, page by page.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # Blocks above 32 MiB, the most that every version takes, still come and go: a step has few of them, and what
    # reading a data set leaves behind should not stay.
    return bool(mallopt and mallopt(M_MMAP_THRESHOLD, 1 << 25) and mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))


def skip_gpu_probe() -> None:
    """Where there is no GPU, say so in the environment.

    Otherwise torch's optimizers look for the driver's library on the disk in every step, a third of a millisecond.
    """
    if not torch.cuda.is_available():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def set_threads(threads: int | None, size: int) -> None:
    """Set the number of CPU threads; where none is named, one for a small model.

    A step of a few million multiplications ends before a second thread has helped, and on a core
    that is shared with anyone else the wait for that thread makes it several times slower.

    Args:
        threads: as configured.
        size: multiplications of a step, about: parameters times the batch's size.
    """
    if threads is None and size < 3e7:
        threads = 1
    if threads is not None:
        if type(threads) is not int or threads < 1:
            raise ConfigError(f"threads={threads!r} should be an integer >= 1, or null")
        if threads > (cores := os.cpu_count() or 1):
            raise ConfigError(f"threads={threads} is more than the {cores} cores of this machine: use at most {cores}")
        torch.set_num_threads(threads)
