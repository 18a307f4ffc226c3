"""Standard output and standard error that never end a run: not if they are closed, full, or lack a character."""

import io
import os
import sys
from contextlib import suppress
from typing import Any


class SafeFileIO(io.FileIO):
    """A file that ignores all further writes, without an error, after the first write that fails."""

    failed = False

    def write(self, data: Any) -> int:
        if not self.failed:
            try:
                written = super().write(data)
                return len(data) if written is None else written
            except OSError:
                self.failed = True
        return len(data)


def protect_output() -> None:
    """Make writes to standard output and standard error safe, also those at the exit of the interpreter.

    Streams that a notebook or a test has put in their place are not changed. Closed descriptors are opened on the null
    device. Otherwise the next file that the program opens would get their number, and then the printed text.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue
        with suppress(AttributeError, OSError):
            stream.flush()
        raw = SafeFileIO(descriptor, "w", closefd=False)
        by_line = name == "stderr" or raw.isatty() or getattr(stream, "write_through", False)
        encoding = getattr(stream, "encoding", None)
        text = io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors="replace", line_buffering=by_line)
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
