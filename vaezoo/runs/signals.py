"""Signals: the first one stops a task at once, or a training after its step is saved; a second one exits at once."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

# Ctrl-C, the notice of a scheduler, and SLURM's `--signal=USR1`: a run saves and exits with 128 + the signal's number.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# The environment variable with the id of the process that has started this one: a sweep, a comparison, or the first
# process of a run on several devices.
PARENT = "VAEZOO_PARENT"


class Stopped(BaseException):
    """A signal has stopped the run.

    It is no ``Exception``, so that no handler of errors catches it.

    Args:
        signum: the number of the signal.
        saved: the checkpoint from which the run can be resumed; None if there is none.
    """

    def __init__(self, signum: int, saved: str | Path | None = None):
        super().__init__(signum, saved)
        self.signum, self.saved = signal.Signals(signum), saved

    def __str__(self) -> str:
        return f"stopped by {self.signum.name}" + (f"; saved {self.saved}" if self.saved else "")


def requeue_slurm_job(stop: Stopped) -> str | None:
    """Requeue the SLURM job of a run that SIGUSR1 has stopped (``sbatch --signal=USR1@60 --requeue``).

    Returns:
        A message that says what was done; None outside SLURM or for another signal.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if stop.signum != signal.SIGUSR1 or job is None:
        return None
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return f"SLURM job {job} could not be requeued ({error})"
    return f"SLURM job {job} is requeued"


class StopRequest:
    """The signal to stop that has arrived while ``handling_signals`` is active; it is also the signals' handler.

    Attributes:
        signum: the number of the signal; 0 if none has arrived.
        listening: whether signals are handled.
        deferred: whether the first signal is only noted, because a training saves its state before it stops. If not,
            the handler raises ``Stopped``.
        since: when the signal arrived, by ``time.monotonic``.
    """

    signum, listening, deferred, since = 0, False, False, 0.0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self.signum and time.monotonic() - self.since > 1:  # a scheduler may send a signal twice
            os._exit(128 + signum)
        if not self.signum:
            self.signum, self.since = signum, time.monotonic()
            if not self.deferred:
                raise Stopped(signum)
            name = signal.Signals(signum).name
            with suppress(OSError):  # stderr is closed
                os.write(2, f"{name}: will save and stop after this step; send again to quit immediately\n".encode())


stop_request = StopRequest()


def install_handlers() -> None:
    """Make ``stop_request`` the handler of the signals."""
    for number in SIGNALS:
        signal.signal(number, stop_request)


def defer_stop() -> None:
    """Only note the first signal from now on, if signals are handled: a training that can save itself has started."""
    if stop_request.listening:
        install_handlers()  # again: Lightning has put its own handlers before ours
        stop_request.deferred = True


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Let a signal end a block with ``Stopped`` at once, also in a training: for work that needs no saving.

    Raises:
        Stopped: a signal arrives, or has arrived before.
    """
    before = stop_request.deferred
    stop_request.deferred = False
    try:
        if stop_request.signum:
            raise Stopped(stop_request.signum)
        yield
    finally:
        stop_request.deferred = before


@contextmanager
def handling_signals() -> Iterator[None]:
    """Handle signals with ``stop_request`` while a block runs, and restore their handlers afterwards.

    Only the main thread can. In another one, as in an application with windows, signals stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stop_request.listening = True
    before = {number: signal.getsignal(number) for number in SIGNALS}
    install_handlers()
    try:
        yield
    finally:
        stop_request.signum, stop_request.listening, stop_request.deferred = 0, False, False
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopping_with_parent() -> Iterator[None]:
    """Stop this process if its parent ends while a block runs; processes that it starts do the same.

    A process whose parent has ended gets SIGTERM, so that it saves. If several processes train together, it may wait
    for the others forever: after five seconds it gets a second SIGTERM and exits at once.
    """
    if parent := os.environ.get(PARENT):
        threading.Thread(target=watch_parent, args=(int(parent),), daemon=True).start()
    os.environ[PARENT] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[PARENT]


def watch_parent(parent: int, every_seconds: float = 0.5) -> None:
    """Wait until this process has another parent, then send it SIGTERM."""
    while os.getppid() == parent:
        time.sleep(every_seconds)
    os.kill(os.getpid(), signal.SIGTERM)
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(5)
        os.kill(os.getpid(), signal.SIGTERM)
