"""Apply a function to many items in processes that may crash: a crash costs one item."""

import faulthandler
import multiprocessing
import os
import resource
import signal
import warnings
from collections import deque
from collections.abc import Callable, Generator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple, TypeVar

Result = TypeVar("Result")
CHUNK = 32  # items that a process gets at a time: one message for 32 small files costs little


class Crash(NamedTuple):
    """The end of the process that had an item.

    Args:
        exit_code: exit code of the process; -N if signal N ended it.
    """

    exit_code: int | None

    def __str__(self) -> str:
        code = self.exit_code or 0
        known = -code in set(signal.Signals)
        reason = signal.Signals(-code).name if known else f"exit code {code}"
        return f"the process that read it crashed ({reason})"


def map_in_processes(
    function: Callable[[int], Result], items: range, num_processes: int
) -> Generator[tuple[int, Result | Crash], None, None]:
    """Yield (item, function(item)) for each item, in no particular order.

    If a process ends while it has several items, each of them is tried once more by itself. So only an item that ends
    its process alone has a ``Crash`` as its result.

    Args:
        function: called in the processes. An exception that it raises is raised here.
        items: the items.
        num_processes: number of processes, >= 1.
    """
    chunks = deque(items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
    idle: list[tuple[Connection, BaseProcess]] = []
    busy: dict[Connection, tuple[BaseProcess, range]] = {}
    try:
        while chunks or busy:
            while chunks and len(busy) < num_processes:
                connection, process = idle.pop() if idle else start_process(function)
                busy[connection] = process, chunks.popleft()
                connection.send(busy[connection][1])
            ready = wait(list(busy))
            for connection in [connection for connection in busy if connection in ready]:
                process, chunk = busy.pop(connection)
                try:
                    results = connection.recv()
                except (EOFError, ConnectionResetError):
                    process.join()
                    if len(chunk) == 1:
                        yield chunk[0], Crash(process.exitcode)
                    else:
                        chunks.extendleft(chunk[i : i + 1] for i in reversed(range(len(chunk))))
                    continue
                idle.append((connection, process))
                if isinstance(results, Exception):
                    raise results
                yield from zip(chunk, results, strict=True)
    finally:
        processes = [process for _, process in idle] + [process for process, _ in busy.values()]
        for process in processes:
            process.kill()  # SIGTERM is lost while the process still has the handlers of this one
        for process in processes:
            process.join()


def start_process(function: Callable[[int], Result]) -> tuple[Connection, BaseProcess]:
    """Start a process that applies a function, and return the connection to it."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(there, function), daemon=True)
    with warnings.catch_warnings():
        # Python warns of a fork while there are several threads. The process uses none of their locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    there.close()  # so that the end of the process is the end of the connection
    return here, process


def serve(connection: Connection, function: Callable[[int], Result]) -> None:
    """Apply a function to the items that arrive, until the parent process ends or kills this one."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is sent to all processes, and the parent handles it
    # A crash leaves no memory image on the disk, and no traceback or warnings of C libraries on the terminal.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    parent = multiprocessing.parent_process()
    assert parent is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what matters is in the result
        while connection in wait([connection, parent.sentinel]):
            try:
                chunk = connection.recv()
            except EOFError:
                return
            results: list[Result] | Exception
            try:
                results = [function(item) for item in chunk]
            except Exception as error:
                results = error
            connection.send(results)
