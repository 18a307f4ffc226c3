"""Standard output and error that cannot end a run: closed, full, or unable to show a character."""

import io
import os
import sys
from contextlib import suppress
from typing import Any


class Unbreakable(io.FileIO):
    """A file that drops all that it is given, without an error, after the first write that fails."""

    lost = False

    def write(self, data: Any) -> int:
        if not self.lost:
            try:
                written = super().write(data)
                return len(data) if written is None else written
            except OSError:
                self.lost = True
        return len(data)


def protect_output() -> None:
    """Let no write to standard output or error fail, also at the exit of the interpreter.

    A notebook's or a test's own streams are left alone. Descriptors that are closed are opened on the null device:
    otherwise the next file that the program opens would get their number, and with it what is printed.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue
        with suppress(AttributeError, OSError):
            stream.flush()
        raw = Unbreakable(number, "w", closefd=False)
        by_line = name == "stderr" or raw.isatty() or getattr(stream, "write_through", False)
        encoding = getattr(stream, "encoding", None)
        text = io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors="replace", line_buffering=by_line)
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
