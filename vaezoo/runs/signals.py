"""Signals: the first one lets the step end and the run save itself, a second one makes it leave at once."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

# Ctrl-C, a scheduler's notice, and SLURM's `--signal=USR1`: a run saves itself and leaves with 128 + number.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# The environment variable that tells a process which one has started it: a sweep, a comparison, or the first process
# of a run on several devices.
PARENT = "VAEZOO_PARENT"


class Stopped(BaseException):
    """A signal has stopped the run.

    No ``Exception``: nothing on the way out is to take it for a failure.

    Args:
        signum: the signal.
        saved: the checkpoint that the run can go on from; None where there is none.
    """

    def __init__(self, signum: int, saved: str | Path | None = None):
        super().__init__(signum, saved)
        self.signum, self.saved = signal.Signals(signum), saved

    def __str__(self) -> str:
        return f"stopped by {self.signum.name}" + (f"; saved {self.saved}" if self.saved else "")


def requeue_slurm_job(stop: Stopped) -> str | None:
    """Put the SLURM job of a run that SIGUSR1 has stopped back into the queue (``sbatch --signal=USR1@60 --requeue``).

    Returns:
        What was done, in words; None outside SLURM or for another signal.
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
    """What has been asked for by a signal since ``listen`` began.

    Attributes:
        signum: the signal's number, 0 before there is one.
        listening: whether the signals are noted.
    """

    signum, listening, since = 0, False, 0.0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self.signum and time.monotonic() - self.since > 1:  # schedulers may tell a process twice
            os._exit(128 + signum)
        if not self.signum:
            self.signum, self.since = signum, time.monotonic()
            name = signal.Signals(signum).name
            with suppress(OSError):  # nobody reads it any more
                os.write(2, f"{name}: stopping after this step; once more to leave at once\n".encode())


stop_request = StopRequest()


def install_handlers() -> None:
    """Let ``request`` note the signals from here on."""
    for number in SIGNALS:
        signal.signal(number, stop_request)


@contextmanager
def handling_signals() -> Iterator[None]:
    """Note signals in ``request`` while a block runs, in place of what they did before."""
    stop_request.signum, stop_request.listening = 0, True
    before = {number: signal.getsignal(number) for number in SIGNALS}
    install_handlers()
    try:
        yield
    finally:
        stop_request.listening = False
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopping_with_parent() -> Iterator[None]:
    """Stop this process if its parent ends, and let the processes that it starts do the same.

    A process that has lost its parent gets SIGTERM, so that it saves itself. If several processes train together, it
    may wait for the others for ever: five seconds later it gets a second SIGTERM and leaves at once.
    """
    if parent := os.environ.get(PARENT):
        threading.Thread(target=watch_parent, args=(int(parent),), daemon=True).start()
    os.environ[PARENT] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[PARENT]


def watch_parent(parent: int, every_seconds: float = 0.5) -> None:
    """Wait until this process has another parent, then end it."""
    while os.getppid() == parent:
        time.sleep(every_seconds)
    os.kill(os.getpid(), signal.SIGTERM)
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(5)
        os.kill(os.getpid(), signal.SIGTERM)
