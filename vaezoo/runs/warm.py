"""A process that has everything imported and forks the jobs of a sweep or a comparison.

Starting Python and importing torch, Lightning and Hydra takes longer than many jobs. The warm process does it once.
Each job is a fork of it, made before anything has run: no random state and no result is in it, and a job that raises,
exits or is killed ends only itself. When the sweep ends, also if it is killed, the socket to the warm process closes
and the warm process ends; jobs that still run then get SIGTERM, because they have lost their parent
(``signals.stopping_with_parent``).

It is used on Linux without an NVIDIA GPU. On macOS, a fork of a process that has loaded the system's frameworks may
crash; and whether CUDA works in a fork depends on what the imports have asked of it. There, each job starts Python
anew.
"""

import json
import os
import runpy
import select
import socket
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from vaezoo.runs.signals import PARENT

# What a training and an evaluation import. W&B comes first: its import takes longer the more modules are loaded.
MODULES = ("wandb", "vaezoo.tasks.fit", "vaezoo.tasks.evaluate", "sklearn.cluster", "sklearn.datasets")
TASKS = ("task=fit", "task=evaluate")  # their jobs need these modules; no other task is known to need torch
EVERY_SECONDS = 0.05  # the warm process looks whether jobs have ended


def is_supported() -> bool:
    """Return whether jobs can be forks of a warm process on this machine."""
    return sys.platform == "linux" and not os.path.exists("/dev/nvidiactl")


class WarmJob:
    """A job that is a fork of a warm process, with those methods of ``subprocess.Popen`` that ``Jobs`` uses.

    Args:
        warm: the warm process.
        channel: the socket on which the job has sent its process id and the warm process will send its exit code.
    """

    def __init__(self, warm: subprocess.Popen, channel: socket.socket):
        self.warm, self.channel = warm, channel
        self.answers = channel.makefile("rb")
        pid = self.read("pid")
        if pid is None:
            raise OSError("the process that starts jobs has ended")
        self.pid = pid

    def read(self, name: str) -> int | None:
        """Return the next answer; None if both the warm process and the job have ended before."""
        line = self.answers.readline()
        return json.loads(line)[name] if line else None

    def send_signal(self, signum: int) -> None:
        """Send a signal to the job. Nothing happens if it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signum)

    def wait(self) -> int:
        """Wait until the job has ended, and return its exit code.

        As in ``subprocess``, the code is the negative number of a signal that has killed the process. If the warm
        process was killed, the job has got SIGTERM, and the code is that of the warm process.
        """
        code = self.read("code")
        self.answers.close()
        self.channel.close()
        return self.warm.wait() if code is None else code


class WarmProcess:
    """A warm process. While the caller goes on, it imports the command line and, for most tasks, ``MODULES``.

    It forks jobs for several threads of the caller at the same time: each job has a socket of its own, which the
    caller sends to the warm process. The request and the job's process id do not pass through the warm process.

    Attributes:
        process: the process itself.

    Args:
        overrides: those of the first job.
    """

    def __init__(self, overrides: Sequence[str] = ()) -> None:
        tasks = [text for text in overrides if text.startswith("task=")]
        modules = MODULES if all(text in TASKS for text in tasks) else ()
        self.requests, requests = socket.socketpair()
        command = [sys.executable, "-m", "vaezoo.runs.warm", str(requests.fileno()), *modules]
        # Own process group: Ctrl-C reaches the sweep only, which forwards it to the jobs.
        self.process = subprocess.Popen(command, pass_fds=[requests.fileno()], process_group=0)
        requests.close()

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path | None) -> WarmJob:
        """Start a job.

        Args:
            arguments: the command line after ``python``: a script or ``-m`` and a module, and their arguments.
            environment: the environment variables of the job.
            log: the file to which its output is appended; None: the terminal.

        Raises:
            OSError: the warm process has ended, or cannot start one more process.
        """
        request = {"arguments": list(arguments), "environment": dict(environment), "folder": os.getcwd()}
        text = json.dumps(request | {"log": None if log is None else str(log.absolute())})
        channel, job_end = socket.socketpair()
        with job_end:
            socket.send_fds(self.requests, [b"+"], [job_end.fileno()])
        channel.sendall(text.encode() + b"\n")
        return WarmJob(self.process, channel)

    def close(self) -> None:
        """End the warm process."""
        self.requests.close()
        self.process.wait()


def serve(requests: socket.socket) -> list[str] | None:
    """Fork a job for each socket that comes. The warm process returns None when no more can come, and a job its
    arguments.

    The warm process and the job keep the job's socket open, so that the caller reads its end when both have ended.

    Args:
        requests: the socket on which the sockets of jobs come.
    """
    warm, channels = os.getpid(), dict[int, socket.socket]()
    while True:
        if select.select([requests], [], [], EVERY_SECONDS if channels else None)[0]:
            _, files, *_ = socket.recv_fds(requests, 1, 1)
            if not files:  # the caller has closed the socket, or was killed
                return None
            channel = socket.socket(fileno=files[0])
            pid = fork()
            if pid == 0:
                for other in (requests, *channels.values()):
                    other.close()
                return prepare(channel, warm)
            if pid is None:
                channel.close()
            else:
                channels[pid] = channel
        for pid in list(channels):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with channels.pop(pid) as channel, suppress(OSError):  # the caller was killed
                    channel.sendall(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


def fork() -> int | None:
    """Fork this process as ``os.fork`` does; return None if that fails, for example because memory is short."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy has threads, which it restarts in a fork
        with suppress(OSError):
            return os.fork()
    return None


def prepare(channel: socket.socket, warm: int) -> list[str]:
    """Give this process, a fork, its own group, environment, folder and output, and return the job's arguments.

    Args:
        channel: the job's socket.
        warm: the process id of the warm process.
    """
    with channel.makefile("rb") as file:
        line = file.readline()
    if not line.endswith(b"\n"):  # the caller was killed
        os._exit(1)
    request = json.loads(line)
    os.setpgid(0, 0)
    channel.sendall(json.dumps({"pid": os.getpid()}).encode() + b"\n")
    os.set_inheritable(channel.detach(), False)  # it stays open until this process ends
    os.environ.clear()
    os.environ.update(request["environment"])
    if PARENT in os.environ:
        os.environ[PARENT] = str(warm)
    os.chdir(request["folder"])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in paths if path and path not in sys.path]
    renew_wandb_folder()
    if request["log"] is not None:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
    return request["arguments"]


def renew_wandb_folder() -> None:
    """Give W&B a temporary folder of this process for its pictures.

    W&B makes the folder when it is imported, so all forks of the warm process would share it, and the first one to end
    would delete it.
    """
    if (module := sys.modules.get("wandb.sdk.data_types._private")) and hasattr(module, "MEDIA_TMP"):
        module.MEDIA_TMP.__init__("wandb-media")


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

    requests, *modules = sys.argv[1:]
    gc.disable()  # as in ``cli.run_task``
    for name in (*modules, "vaezoo.cli"):
        import_module(name)
    gc.enable()
    gc.freeze()  # the forks share the pages of what is imported
    arguments = serve(socket.socket(fileno=int(requests)))
    if arguments is not None:
        run_program(arguments)


if __name__ == "__main__":
    main()
