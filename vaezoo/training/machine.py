"""Settings of the process for speed: threads and memory."""

import ctypes
import os
import statistics
import sys
import time

import torch

from vaezoo.errors import ConfigError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let the process keep the memory that it frees. Only on Linux with glibc.

    A training step frees blocks of some megabytes, and the next one asks for the same blocks. By default, glibc returns
    each block to the system and gets it again, page by page.

    Returns:
        Whether the setting was made.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # Blocks above 32 MiB, the largest value that every version accepts, are still returned: a step has few of them, and
    # the memory that reading a data set needs should not stay.
    return bool(mallopt and mallopt(M_MMAP_THRESHOLD, 1 << 25) and mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))


def skip_gpu_probe() -> None:
    """Hide GPUs from torch (in the environment) if there is none.

    Otherwise torch's optimizers search the disk for the driver's library in every step, which takes a third of a
    millisecond.
    """
    if not torch.cuda.is_available():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def set_threads(threads: int | None, size: int) -> None:
    """Set the number of CPU threads.

    For a small model, one thread is the default: a step of a few million multiplications ends before a second thread
    helps, and if the cores are shared with other programs, waiting for this thread makes a step several times slower.

    Args:
        threads: number of threads; None for one thread with a small model, and torch's default with a larger one.
        size: approximate number of multiplications in a step: parameters times batch size.

    Raises:
        ConfigError: ``threads`` is no whole number >= 1, or more than the machine has cores.
    """
    if threads is None and size < 3e7:
        threads = 1
    if threads is not None:
        if type(threads) is not int or threads < 1:
            raise ConfigError(f"threads={threads!r} should be an integer >= 1, or null")
        if threads > (cores := os.cpu_count() or 1):
            raise ConfigError(f"threads={threads} is more than the {cores} cores of this machine: use at most {cores}")
        torch.set_num_threads(threads)


def seconds_of_product(dtype: torch.dtype, size: int = 256, repeats: int = 5) -> float:
    """Return the time in seconds that this CPU takes for a product of two square matrices; the median of some.

    Args:
        dtype: dtype of the matrices.
        size: number of their rows.
        repeats: number of products.
    """
    factor, seconds = torch.ones(size, size, dtype=dtype), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        factor @ factor
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])  # the first one may load or compile a kernel


def bf16_note(precision: str | int | None, device: torch.device) -> str | None:
    """Return a note if a training in bf16 is slower than one in float32, because this CPU has no instructions for it.

    Both times are measured, which takes about 0.4 s on a CPU that emulates bf16.

    Args:
        precision: the trainer's precision.
        device: the device of the training.
    """
    if device.type != "cpu" or not str(precision).startswith("bf16"):
        return None
    slowdown = seconds_of_product(torch.bfloat16) / seconds_of_product(torch.float32)
    if slowdown < 1.2:
        return None
    return (
        f"note: this CPU has no fast bf16: a product of matrices takes {slowdown:.1f} times as long as in float32, so "
        f"trainer.precision=32-true is faster"
    )
