"""The folder of a run: what it holds, and how it is read, written and locked."""

import fcntl
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import yaml

from vaezoo.errors import ConfigError
from vaezoo.old_names import update_override, update_summary
from vaezoo.runs.overrides import relevant_overrides

Kind = Literal["run", "sweep"]
# The files that record the overrides of a command.
OVERRIDE_FILES: dict[Kind, str] = {"run": ".hydra/overrides.yaml", "sweep": "sweep.json"}
JOB_FILE = "job.json"


class RunFolder:
    """The folder of a run, or of several: a sweep or a comparison. Files are written atomically.

    ==========================  =================================================================================
    ``summary.json``            the result, or why there is none: ``status`` is completed, failed or interrupted
    ``.hydra/overrides.yaml``   the overrides of the command, and beside it ``config.yaml`` and ``hydra.yaml``
    ``checkpoints/``            ``best.ckpt``, ``last.ckpt`` and ``previous.ckpt``
    ``metrics.csv``             the logged metrics;  ``panels/``: images
    ``runs/``, ``evaluations/`` in the folder of a comparison: its jobs
    ``job.json``                in the folder of a job: its number and its overrides
    ``sweep.json``              in the folder of a sweep: the overrides of its command
    ``.lock``                   locked by the process that writes to the folder
    ``.training``               locked by the jobs of a sweep or comparison that train (``shares.take_share``)
    ==========================  =================================================================================

    Args:
        path: the folder. It may not exist yet.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def lock(self) -> AbstractContextManager[None]:
        """Lock the folder for this process while a block runs.

        Raises:
            ConfigError: another process has locked it.
        """
        return locked(self.path)

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.path / "checkpoints"

    @property
    def has_training(self) -> bool:
        """Return whether a checkpoint, or a job of a comparison, is in the folder."""
        jobs = (self.path / "runs").glob(f"*/{JOB_FILE}")
        return any(self.checkpoints.glob("*.ckpt")) or any(jobs)

    @property
    def has_sweep(self) -> bool:
        """Return whether the folder is that of a sweep."""
        return (self.path / OVERRIDE_FILES["sweep"]).exists()

    # The result.

    def read_summary(self) -> dict[str, Any]:
        """Return ``summary.json``, with the present names of numbers; an empty dict if it cannot be read."""
        try:
            summary = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return update_summary(summary) if isinstance(summary, dict) else {}

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``; NaN and infinities become null, because JSON does not have them."""
        text = json.dumps(non_finite_to_none(summary), indent=2, allow_nan=False)
        write_atomic(self.path / "summary.json", text + "\n")

    def remove_summary(self) -> None:
        """Remove ``summary.json``, if it exists."""
        (self.path / "summary.json").unlink(missing_ok=True)

    @property
    def has_summary(self) -> bool:
        """Return whether the folder has a ``summary.json``."""
        return (self.path / "summary.json").exists()

    @property
    def is_completed(self) -> bool:
        """Return whether the run has completed."""
        return self.read_summary().get("status") == "completed"

    # The command.

    def read_overrides(self, kind: Kind = "run") -> list[str] | None:
        """Return the overrides of the command of a run or a sweep, with the present names of keys; None without a
        record.
        """
        overrides = read_yaml(self.path / OVERRIDE_FILES[kind])
        is_valid = isinstance(overrides, list) and all(isinstance(override, str) for override in overrides)
        return [update_override(override) for override in overrides] if is_valid else None

    def read_config(self) -> dict[str, Any]:
        """Return the run's config with its interpolations, such as ``${run_dir}``; an empty dict without a record."""
        return read_yaml_dict(self.path / ".hydra" / "config.yaml")

    def read_hydra(self) -> dict[str, Any]:
        """Return Hydra's own part of the config; an empty dict without a record."""
        hydra = read_yaml_dict(self.path / ".hydra" / "hydra.yaml").get("hydra")
        return hydra if isinstance(hydra, dict) else {}

    def write_command(self, config: str, hydra: str, overrides: str) -> None:
        """Record the command of a run: its config, Hydra's own part and the overrides, each as YAML.

        The overrides come last, because the folder belongs to the command that they name.
        """
        record = self.path / ".hydra"
        record.mkdir(exist_ok=True)
        for name, text in (("config", config), ("hydra", hydra), ("overrides", overrides)):
            write_atomic(record / f"{name}.yaml", text)

    def write_sweep(self, overrides: Sequence[str]) -> None:
        """Record the overrides of a sweep."""
        write_atomic(self.path / OVERRIDE_FILES["sweep"], json.dumps(overrides))

    def remove_record(self) -> None:
        """Remove the folder of a command that was refused, and the folder of its task if that is empty then.

        A folder with anything but the record of the command stays as it is.
        """
        names = {path.name for path in self.path.iterdir()}
        if names <= {".hydra", ".lock", "summary.json"}:
            shutil.rmtree(self.path)
            with suppress(OSError):  # it is not empty
                self.path.parent.rmdir()

    # The jobs of a sweep or a comparison.

    def write_job(self, number: int, overrides: Sequence[str]) -> None:
        """Record the number and the overrides of the job whose folder this is."""
        write_atomic(self.path / JOB_FILE, json.dumps({"job": number, "overrides": relevant_overrides(overrides)}))

    def read_jobs(self) -> dict[Path, dict[str, Any]]:
        """Return the folders of all jobs below this folder, with the number and the overrides of each."""
        return {file.parent: json.loads(file.read_text(encoding="utf-8")) for file in self.path.rglob(JOB_FILE)}


def folder_of(run: str | Path) -> RunFolder:
    """Return the folder of a run that is named by its folder or by one of its checkpoints.

    Of a checkpoint that is in no folder ``checkpoints``, it is the folder of the file, which may hold no run.
    """
    path = Path(run)
    folder = path if path.is_dir() else path.parent
    return RunFolder(folder.parent if folder.name == "checkpoints" else folder)


def read_yaml(file: Path) -> Any:
    """Return the content of a YAML or JSON file; None if it is missing or cut short."""
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None


def read_yaml_dict(file: Path) -> dict[str, Any]:
    """Return the content of a YAML file; an empty dict if it holds anything other than a dict."""
    content = read_yaml(file)
    return content if isinstance(content, dict) else {}


def short_error(error: str) -> str:
    """Return an error without the list of training examples, which can have dozens of numbers."""
    return re.sub(r" \(training examples [\d, ]+\)", "", error)


def describe_files(files: Iterable[Path]) -> list[str]:
    """Return a line for each file, and one line for all numbered files of a kind.

    >>> describe_files([Path("a.npz"), Path("a-0.wav"), Path("a-1.wav")])
    ['a.npz', 'a-*.wav (2 files)']
    """
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(re.sub(r"-\d+(?=\.\w+$)", "-*", str(file)), []).append(file)
    return [f"{name} ({len(group)} files)" if len(group) > 1 else str(group[0]) for name, group in groups.items()]


def write_atomic(path: Path, text: str) -> None:
    """Write a UTF-8 text file. If the process is killed, the file has the old text or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def non_finite_to_none(value: Any) -> Any:
    """Return a value of dicts, lists and numbers with None in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: non_finite_to_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [non_finite_to_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder for this process while a block runs; the lock also ends with the process, even if it is killed.

    Raises:
        ConfigError: another process has locked it.
    """
    with (folder / ".lock").open("a") as file:  # "w" would empty the file that a link of this name points to
        try:
            # A lock of the process: its forked workers, which may outlive it for seconds, do not inherit it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ConfigError(f"{folder} is in use by a run that has not ended: wait for it or stop it") from error
        except OSError:
            pass  # a file system without locks
        yield
