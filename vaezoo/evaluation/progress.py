"""Progress of a loop over examples: a bar on a terminal, and one line on stderr if it takes long."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from tqdm import tqdm

from vaezoo.errors import format_duration

LONG = 30  # seconds: a longer loop is announced


@contextmanager
def example_progress(
    total: int, title: str, work: str, settings: str, device: torch.device, leave: bool = False
) -> Iterator[Callable[[Iterable[int]], Iterator[int]]]:
    """Give a wrapper of loops over examples, which shows the progress of all of them together.

    After the second example, the time that all examples take is estimated and printed on stderr if it is long, on a
    terminal or not.

    Args:
        total: number of examples of all loops.
        title: text before the bar.
        work: what takes long, with its numbers, as the beginning of a sentence.
        settings: the settings that say how long it takes, for the end of the sentence.
        device: where it is computed.
        leave: whether the bar stays when it is full.
    """
    start, done = 0.0, 0
    with tqdm(total=total, desc=title, disable=None, leave=leave) as bar:

        def progress(examples: Iterable[int]) -> Iterator[int]:
            nonlocal start, done
            for example in examples:
                yield example
                bar.update()
                done += 1
                if done == 1:  # it may have waited for the compiler, so the second one is timed
                    start = measure_time(device)
                elif done == 2 and (seconds := (measure_time(device) - start) * total) > LONG:
                    tqdm.write(f"{work} takes about {format_duration(seconds)} ({settings} set how many)", sys.stderr)

        yield progress


def measure_time(device: torch.device) -> float:
    """Return the time in seconds, after all that a device has been asked for is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
