"""Jobs: commands of their own, several at a time, each in a folder that records what became of it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from omegaconf import OmegaConf

from vaezoo.errors import ConfigError
from vaezoo.runs.folder import RunFolder
from vaezoo.runs.overrides import quote, same_overrides
from vaezoo.runs.signals import SIGNALS
from vaezoo.runs.warm import WarmJob, WarmProcess, is_supported

Item = TypeVar("Item")


class Jobs:
    """Runs this program with other overrides, each time in a process of its own.

    If a job raises, exits, is killed or crashes, its folder gets a summary with the reason. No random state, cache or
    memory passes from one job to the next. A signal to stop is forwarded to the running jobs.

    Args:
        folder: the folder of all jobs. Each job has a folder below it.
        program: the command that starts this program, without overrides.
        resume: whether completed jobs are skipped, and the others resumed, each in its old folder.
        group: the name of the jobs' W&B group.
        first: the number of the first job.

    Attributes:
        log: whether a job writes to ``job.log`` in its folder, not to the terminal.
        stop_signal: the signal to stop that has arrived; None before.
    """

    def __init__(self, folder: Path, program: Sequence[str], resume: bool, group: str, first: int = 0):
        self.folder, self.program, self.resume, self.group, self.log = folder, program, resume, group, False
        self.existing = RunFolder(folder).read_jobs() if resume else {}
        self.next_number = max([first, *(job["job"] + 1 for job in self.existing.values())])
        self.running: set[subprocess.Popen | WarmJob] = set()
        self.warm: WarmProcess | None = None
        self.warm_lock = threading.Lock()
        self.stop_signal: int | None = None

    def find(self, overrides: Sequence[str]) -> tuple[int, Path | None]:
        """Return the number and the folder of the job with these overrides; a new number and None if there is none."""
        for folder, job in self.existing.items():
            if same_overrides(job["overrides"], overrides):
                del self.existing[folder]
                return job["job"], folder
        self.next_number += 1
        return self.next_number - 1, None

    def create_folder(self, number: int, overrides: Sequence[str], name: str) -> Path:
        """Create the folder of a new job, and record the job's number and overrides in it."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        RunFolder(folder).write_job(number, overrides)
        return folder

    def is_complete(self, folder: Path) -> bool:
        """Return whether the job in a folder has completed and is to be skipped."""
        return self.resume and RunFolder(folder).is_completed

    def run_all(
        self, run: Callable[[Item, Mapping[str, str]], None], items: Sequence[Item], shares: Sequence[Mapping[str, str]]
    ) -> Iterator[Item]:
        """Call a function that runs jobs for each item, for several at the same time, and yield each item at its end.

        Args:
            run: the function. It is called in another thread with an item and the environment variables for its jobs.
            items: what it is called with.
            shares: environment variables of the jobs that run at the same time (``shares.divide_machine``).
        """
        free = SimpleQueue[Mapping[str, str]]()
        for share in shares:
            free.put(share)

        def run_in_share(item: Item) -> None:
            share = free.get()
            try:
                run(item, share)
            finally:
                free.put(share)

        with ThreadPoolExecutor(len(shares)) as pool:
            waiting = {pool.submit(run_in_share, item): item for item in items}
            try:
                while waiting:  # the time-out lets the handlers of signals run, which they do in this thread only
                    for future in wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED).done:
                        future.result()
                        yield waiting.pop(future)
            finally:
                for future in waiting:
                    future.cancel()

    def run(self, overrides: Sequence[str], folder: Path, share: Mapping[str, str]) -> None:
        """Run a job to its end; if it leaves no summary, write one with the reason.

        Args:
            overrides: those of the job.
            folder: its folder.
            share: environment variables of its own.
        """
        if not self.wait_for_folder(folder):
            return
        resume = ["resume=auto"] * (self.resume and not any(text.startswith("resume=") for text in overrides))
        run_dir = f"hydra.run.dir={quote(folder.resolve())}"
        code = self.call([*self.program, *overrides, *resume, run_dir], folder / "job.log", share)
        if code != 0 and "status" not in RunFolder(folder).read_summary():
            RunFolder(folder).write_summary({"status": "failed", "error": exit_reason(code)})

    def wait_for_folder(self, folder: Path, seconds: float = 60) -> bool:
        """Wait until no other process uses a job's folder, remove the summary of an earlier attempt, and return
        whether the job can start.

        If the parent of an earlier attempt was killed, that attempt may still be saving its state.
        """
        end, is_waiting = time.monotonic() + seconds, False
        while self.stop_signal is None:
            try:
                with RunFolder(folder).lock():
                    RunFolder(folder).remove_summary()
                return True
            except ConfigError as error:
                if time.monotonic() > end:
                    print(f"{error}; continuing with the next job", file=sys.stderr)
                    return False
                if not is_waiting:
                    print(f"waiting for an earlier attempt in {folder} to end", file=sys.stderr, flush=True)
                is_waiting = True
                time.sleep(0.2)
        return False

    def call(self, command: list[str], log: Path, share: Mapping[str, str]) -> int:
        """Run a job's command and return its exit code."""
        environment = {"WANDB_RUN_GROUP": self.group} | os.environ | dict(share)
        process = self.start(command, environment, log if self.log else None)
        self.running.add(process)
        if self.stop_signal:  # it arrived while the process started
            send_stop(process, self.stop_signal)
        try:
            return process.wait()
        finally:
            self.running.remove(process)

    def start(self, command: list[str], environment: dict[str, str], log: Path | None) -> subprocess.Popen | WarmJob:
        """Start a job's command, from a warm process if this machine supports it."""
        if is_supported():
            with self.warm_lock:
                self.warm = warm = self.warm or WarmProcess(command)
            try:
                return warm.start(command[1:], environment, log)
            except OSError as error:  # it was killed, for example because memory was short
                with self.warm_lock:
                    if self.warm is warm and warm.process.poll() is not None:
                        self.close()
                print(f"{error}: the next job starts by itself", file=sys.stderr, flush=True)
        out: Any = None if log is None else log.open("a")
        # Own process group: the child gets Ctrl-C from us only. A second one would make it exit without saving.
        return subprocess.Popen(command, env=environment, stdout=out, stderr=out, process_group=0)

    def close(self) -> None:
        """End the warm process, if there is one."""
        if self.warm is not None:
            self.warm.close()
            self.warm = None

    @contextmanager
    def forwarding_signals(self) -> Iterator[None]:
        """Forward signals to stop to the running jobs while a block runs, and remember the last one."""

        def forward(signum: int, frame: Any) -> None:
            self.stop_signal = signum
            for process in tuple(self.running):
                send_stop(process, signum)

        handled = [s for s in (*SIGNALS, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN]  # nohup ignores one
        former = {signum: signal.signal(signum, forward) for signum in handled}
        try:
            yield
        finally:
            for signum, handler in former.items():
                signal.signal(signum, handler)


def send_stop(process: subprocess.Popen | WarmJob, signum: int) -> None:
    """Send a job a signal to stop. In place of SIGHUP, after which a job does not save, it gets SIGTERM."""
    process.send_signal(signum if signum in SIGNALS else signal.SIGTERM)


def program_command(hydra: Any) -> list[str]:
    """Return the command that starts this program again, with the config folders that it was given.

    Args:
        hydra: Hydra's own part of the config.
    """
    script = Path(sys.argv[0])
    start = [str(script.absolute())] if script.is_file() and script.name != "__main__.py" else ["-m", "vaezoo"]
    return [sys.executable, *start, *config_dirs(hydra)]


def config_dirs(hydra: Any) -> list[str]:
    """Return the ``--config-dir`` flags that this program was started with.

    Args:
        hydra: Hydra's own part of the config.
    """
    sources = (source for source in hydra.runtime.config_sources if source.provider == "command-line")
    return [f"--config-dir={source.path}" for source in sources]


def unresolved_overrides(overrides: Any) -> list[str]:
    """Return overrides as they were given: each job resolves ``${run_dir}`` with its own config.

    Args:
        overrides: a list node of Hydra's own part of the config.
    """
    return OmegaConf.to_container(overrides)  # type: ignore[return-value]


def exit_reason(code: int) -> str:
    """Describe why a job ended with an exit code."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if code - 128 in SIGNALS:
        return f"interrupted by {signal.Signals(code - 128).name}"
    return f"ended with exit code {code}"
