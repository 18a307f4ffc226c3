"""Jobs: commands of their own, one after another, each in a folder that keeps what became of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vaezoo.errors import ConfigError
from vaezoo.runs.folder import JOB_RECORD, locked, read_jobs, read_summary, relevant_overrides, write_atomic
from vaezoo.runs.resume import quote, same_overrides
from vaezoo.runs.signals import SIGNALS


class Jobs:
    """Runs this program with other words, in processes of their own.

    A job that raises, exits, is killed or crashes is a summary with its cause; no random state, cache or memory
    passes from one job to the next. A signal to stop is passed on to the running job.

    Args:
        folder: of them all; each job has one below it.
        program: what starts this program, before a job's own words.
        resume: jobs that are complete are left alone, and the others go on, each in its old folder.
        group: name of the jobs' W&B group.
        log: let a job write to ``job.log`` in its folder in place of the terminal.
        first: number of the first job.

    Attributes:
        stopped: the signal that has come, if any.
    """

    def __init__(
        self, folder: Path, program: Sequence[str], resume: bool, group: str, log: bool = False, first: int = 0
    ):
        self.folder, self.program, self.resume, self.group, self.log = folder, program, resume, group, log
        self.there = read_jobs(folder) if resume else {}
        self.next = max([first, *(job["job"] + 1 for job in self.there.values())])
        self.process: subprocess.Popen | None = None
        self.stop_signal: int | None = None

    def find(self, words: Sequence[str]) -> tuple[int, Path | None]:
        """The number of the job with these words, and its folder; a new number and None where there is no such job."""
        folder = next((folder for folder, job in self.there.items() if same_overrides(job["overrides"], words)), None)
        if folder is not None:
            return self.there.pop(folder)["job"], folder
        self.next += 1
        return self.next - 1, None

    def create_folder(self, number: int, words: Sequence[str], name: str) -> Path:
        """A folder of this name for a new job, labelled."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / JOB_RECORD, json.dumps({"job": number, "overrides": relevant_overrides(words)}))
        return folder

    def complete(self, folder: Path) -> bool:
        """Whether the job in a folder is to be left alone."""
        return self.resume and read_summary(folder).get("status") == "completed"

    def run(self, words: Sequence[str], folder: Path) -> None:
        """One job, to its end, with a summary of the cause where it left none itself."""
        if not self.wait_for_folder(folder):
            return
        resume = ["resume=auto"] * (self.resume and not any(word.startswith("resume=") for word in words))
        place = f"hydra.run.dir={quote(folder.resolve())}"
        code = self.call([*self.program, *words, *resume, place], folder / "job.log")
        if code != 0 and "status" not in read_summary(folder):
            write_atomic(folder / "summary.json", json.dumps({"status": "failed", "error": exit_reason(code)}) + "\n")

    def wait_for_folder(self, folder: Path, seconds: float = 60) -> bool:
        """Remove an earlier attempt's summary, and say whether the job can start.

        An attempt whose parent was killed may still be saving itself: it is waited for.
        """
        end, told = time.monotonic() + seconds, False
        while self.stop_signal is None:
            try:
                with locked(folder):
                    (folder / "summary.json").unlink(missing_ok=True)
                return True
            except ConfigError as error:
                if time.monotonic() > end:
                    print(f"{error}; the other jobs go on", file=sys.stderr)
                    return False
                if not told:
                    print(f"waiting for an earlier attempt in {folder} to end", file=sys.stderr, flush=True)
                told = True
                time.sleep(0.2)
        return False

    def call(self, command: list[str], log: Path) -> int:
        """Run a job's command and return its exit code."""
        environment = {"WANDB_RUN_GROUP": self.group} | os.environ
        out: Any = log.open("a") if self.log else None
        # In a group of its own, it hears Ctrl-C from here alone: twice would mean to leave without saving.
        self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, process_group=0)
        if self.stop_signal:  # while it started
            self.process.send_signal(self.stop_signal)
        return self.process.wait()

    @contextmanager
    def forwarding_signals(self) -> Iterator[None]:
        """Pass signals to stop on to the running job, and take note of them."""

        def relay(signum: int, frame: Any) -> None:
            self.stop_signal = signum
            if self.process is not None:
                self.process.send_signal(signum)

        heard = [s for s in (*SIGNALS, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN]  # as nohup sets it
        former = {signum: signal.signal(signum, relay) for signum in heard}
        try:
            yield
        finally:
            for signum, handler in former.items():
                signal.signal(signum, handler)


def program_command(hydra: Any) -> list[str]:
    """What starts this program again, with the config folders it was given."""
    script = Path(sys.argv[0])
    start = [str(script.absolute())] if script.is_file() and script.name != "__main__.py" else ["-m", "vaezoo"]
    extra = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    return [sys.executable, *start, *(f"--config-dir={path}" for path in extra)]


def unresolved_overrides(words: Any) -> list[str]:
    """The words as they were said: a ``${...}`` in one is for the job's own config."""
    return OmegaConf.to_container(words)  # type: ignore[return-value]


def exit_reason(code: int) -> str:
    """What an exit code says of a job that left no word itself."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if code - 128 in SIGNALS:
        return f"interrupted by {signal.Signals(code - 128).name}"
    return f"ended with exit code {code}"
