"""A process that has everything imported and forks the jobs of a sweep or a comparison.

Starting Python and importing torch, Lightning and Hydra takes longer than many jobs. The warm process does it once.
Each job is a fork of it, made before anything has run: no random state and no result is in it, and a job that raises,
exits or is killed ends only itself. When the sweep ends, also if it is killed, the pipe to the warm process closes and
the warm process ends; a job that still runs then gets SIGTERM, because it has lost its parent
(``signals.stopping_with_parent``).

It is used on Linux without an NVIDIA GPU. On macOS, a fork of a process that has loaded the system's frameworks may
crash; and whether CUDA works in a fork depends on what the imports have asked of it. There, each job starts Python
anew.
"""

import json
import os
import runpy
import select
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from vaezoo.runs.signals import PARENT

# What a training and an evaluation import. W&B comes first: its import takes longer the more modules are loaded.
MODULES = ("wandb", "vaezoo.tasks.fit", "vaezoo.tasks.evaluate")
TASKS = ("task=fit", "task=evaluate")  # their jobs need these modules; no other task is known to need torch
EVERY_SECONDS = 0.05  # the warm process looks whether its job has ended


def is_supported() -> bool:
    """Return whether jobs can be forks of a warm process on this machine."""
    return sys.platform == "linux" and not os.path.exists("/dev/nvidiactl")


class WarmJob:
    """A job that is a fork of a warm process, with those methods of ``subprocess.Popen`` that ``Jobs`` uses.

    Args:
        warm: the warm process.
        pid: the id of the job's process.
    """

    def __init__(self, warm: "WarmProcess", pid: int):
        self.warm, self.pid = warm, pid

    def send_signal(self, signum: int) -> None:
        """Send a signal to the job. Nothing happens if it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signum)

    def wait(self) -> int:
        """Wait until the job has ended, and return its exit code; that of the warm process if this one was killed.

        As in ``subprocess``, the code is the negative number of a signal that has killed the process.
        """
        answer = self.warm.read_answer()
        return self.warm.process.wait() if answer is None else answer["code"]


class WarmProcess:
    """A warm process. While the caller goes on, it imports the command line and, for most tasks, ``MODULES``.

    Attributes:
        process: the process itself.

    Args:
        overrides: those of the first job.
    """

    def __init__(self, overrides: Sequence[str] = ()) -> None:
        tasks = [text for text in overrides if text.startswith("task=")]
        modules = MODULES if all(text in TASKS for text in tasks) else ()
        requests, self.requests = os.pipe()
        self.answers, answers = os.pipe()
        command = [sys.executable, "-m", "vaezoo.runs.warm", str(requests), str(answers), *modules]
        # Own process group: Ctrl-C reaches the sweep only, which forwards it to the job.
        self.process = subprocess.Popen(command, pass_fds=(requests, answers), process_group=0)
        os.close(requests)
        os.close(answers)
        self.unread = b""

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path | None) -> WarmJob:
        """Start a job.

        Args:
            arguments: the command line after ``python``: a script or ``-m`` and a module, and their arguments.
            environment: the environment variables of the job.
            log: the file to which its output is appended; None: the terminal.

        Raises:
            OSError: the warm process has ended.
        """
        request = {"arguments": list(arguments), "environment": dict(environment), "folder": os.getcwd()}
        text = json.dumps(request | {"log": None if log is None else str(log.absolute())})
        rest = memoryview(text.encode() + b"\n")
        while rest:
            rest = rest[os.write(self.requests, rest) :]
        answer = self.read_answer()
        if answer is None:
            raise OSError("the process that starts jobs has ended")
        return WarmJob(self, answer["pid"])

    def read_answer(self) -> dict[str, int] | None:
        """Return the next answer of the warm process; None if it has ended."""
        while b"\n" not in self.unread:
            if not (part := os.read(self.answers, 2**16)):
                return None
            self.unread += part
        line, self.unread = self.unread.split(b"\n", 1)
        return json.loads(line)

    def close(self) -> None:
        """End the warm process."""
        os.close(self.requests)
        os.close(self.answers)
        self.process.wait()


def serve(requests: int, answers: int) -> list[str] | None:
    """Fork a job for each request. The warm process returns None when the pipe closes, and a job its arguments.

    Args:
        requests: file descriptor of the requests, a line of JSON each.
        answers: file descriptor of the answers: the id of a job's process when it starts, its exit code when it ends.
    """
    while line := read_line(requests):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # NumPy has threads, which it restarts in a fork
            pid = os.fork()
        if pid == 0:
            os.close(requests)
            os.close(answers)
            return prepare(json.loads(line))
        os.write(answers, json.dumps({"pid": pid}).encode() + b"\n")
        ended, status = os.waitpid(pid, os.WNOHANG)
        while not ended:
            if select.select([requests], [], [], EVERY_SECONDS)[0]:  # the next request comes later: the pipe is closed
                return None
            ended, status = os.waitpid(pid, os.WNOHANG)
        try:
            os.write(answers, json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")
        except BrokenPipeError:  # the caller was killed
            return None
    return None


def read_line(file: int) -> bytes:
    """Return the next line of a file descriptor; what has come of it if the file ends."""
    line = b""
    while not line.endswith(b"\n") and (part := os.read(file, 2**16)):
        line += part
    return line


def prepare(request: dict[str, Any]) -> list[str]:
    """Give this process, a fork, its own group, environment, folder and output, and return the job's arguments."""
    os.setpgid(0, 0)
    os.environ.clear()
    os.environ.update(request["environment"])
    if PARENT in os.environ:
        os.environ[PARENT] = str(os.getppid())
    os.chdir(request["folder"])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in paths if path and path not in sys.path]
    if request["log"] is not None:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
    return request["arguments"]


def run_program(arguments: Sequence[str]) -> None:
    """Run a script, or ``-m`` and a module, with its arguments, as ``python`` does."""
    first, *rest = arguments
    if first == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = list(arguments), str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


def main() -> None:
    """Be a warm process; in its forks, run the job."""
    import gc

    requests, answers, *modules = sys.argv[1:]
    gc.disable()  # as in ``cli.run_task``
    for name in (*modules, "vaezoo.cli"):
        import_module(name)
    gc.enable()
    gc.freeze()  # the forks share the pages of what is imported
    arguments = serve(int(requests), int(answers))
    if arguments is not None:
        run_program(arguments)


if __name__ == "__main__":
    main()
