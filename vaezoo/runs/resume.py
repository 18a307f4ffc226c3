"""Resume a run.

1. Every run records the overrides of its command in its folder (``runs.record``).
2. Before Hydra composes the config, ``resolve_resume`` finds the folder in which a command continues, and replaces its
   overrides; after that it is an ordinary command whose ``hydra.run.dir`` is the old folder.

   - ``resume=auto``: the newest folder with the same overrides, or an unfinished run whose overrides differ only in
     keys that do not affect the training (``runs.overrides``), or the same comparison with fewer models or seeds.
     Without such a folder a new run starts.
   - ``run=FOLDER``: the run in this folder. Its recorded overrides come first, as far as they can be inherited from a
     file (``runs.inherit``), then those of the command. They may change ``CHANGEABLE_KEYS`` only.
   - A run that is complete is not started again: its result is printed.

3. The process locks the folder. If the folder holds results of another command, it is refused (``runs.record``).
4. ``tasks.fit.prepare_resume`` takes the intact checkpoint with the most steps, removes later rows from the logs, and
   refuses a checkpoint that was trained with another model, data, optimizer, scheduler or seed. Lightning loads it.
5. The order of the examples and the noise are functions of the seed, the epoch and the batch (``vaezoo.seeding``), so
   that the resumed run computes the same numbers, to the bit, as one that was never interrupted.
"""

import atexit
import glob
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import yaml

from vaezoo.config_folder import config_folder
from vaezoo.errors import ConfigError
from vaezoo.runs.folder import OVERRIDE_FILES, Kind, RunFolder, folder_of
from vaezoo.runs.inherit import inherited_overrides
from vaezoo.runs.overrides import (
    CHANGEABLE_KEYS,
    by_key,
    get_value,
    has_key,
    is_larger_comparison,
    quote,
    relevant_overrides,
    same_overrides,
    training_overrides,
)

# Tasks that apply a trained run. Their folder is in the folder of that run.
APPLYING_TASKS = ("evaluate", "sample", "reconstruct", "interpolate", "encode", "score", "impute", "export")
# Tasks that write nothing into a folder of theirs: they get one that is removed at the end.
VIEWING_TASKS = ("explore",)
# Tasks whose folder run=FOLDER cannot resume. (A comparison is resumed by the same command with resume=auto.)
OTHER_TASKS = (*APPLYING_TASKS, *VIEWING_TASKS, "check", "compare", "report")


def can_resume(overrides: Sequence[str]) -> bool:
    """Return whether ``resume=auto`` continues a command: a training, a sweep or a comparison."""
    return not {f"task={name}" for name in OTHER_TASKS if name != "compare"} & set(overrides)


def resolve_resume(overrides: Sequence[str], multirun: bool) -> list[str] | None:
    """Replace ``resume=auto`` and ``run=FOLDER`` by the overrides that continue a run, or a sweep, in its folder.

    Args:
        overrides: those of the command.
        multirun: whether the command is a sweep.

    Returns:
        The overrides to run with; None if the run is complete, which is printed.

    Raises:
        ConfigError: the folder holds no run, or the run of another command.
        OverrideParseException: Hydra cannot read an override.
    """
    if not any(text.startswith(("resume=", "run=")) for text in overrides):
        return list(overrides)
    command = by_key(overrides)
    if get_value(command, "run") is not None and get_value(command, "task") in (None, "fit"):
        if multirun:
            raise ConfigError(f"{command['run']} resumes a single run: remove -m")
        return resume_folder(command)
    resume = get_value(command, "resume")
    if resume not in (None, "auto"):
        raise ConfigError(f"{command['resume']} is not known: use resume=auto or resume=null")
    return find_latest(command, "sweep" if multirun else "run") if resume else accept_data_keys(overrides, command)


def choose_task_folder(overrides: Sequence[str]) -> list[str]:
    """Add the folder of a task that applies a trained run: RUN/TASK/DATE_TIME, unless the command names one.

    That of a task that writes nothing is a temporary one.

    A checkpoint outside of a run's folder has none: the task's folder is then that of any command.

    Args:
        overrides: those of the command.

    Raises:
        ConfigError: the place in the run's folder is a link.
    """
    if not any(text.startswith("run=") for text in overrides):
        return list(overrides)
    command = by_key(overrides)
    run, task = get_value(command, "run"), get_value(command, "task")
    if task in VIEWING_TASKS and "hydra.run.dir" not in command:
        temporary = tempfile.mkdtemp(prefix="vaezoo-")
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return [*overrides, f"hydra.run.dir={quote(temporary)}"]
    if task not in APPLYING_TASKS or "hydra.run.dir" in command or not Path(str(run)).exists():
        return list(overrides)
    folder = folder_of(str(run))
    if not folder.has_training:
        return list(overrides)
    if not os.access(folder.path, os.W_OK):
        raise ConfigError(f"{folder.path} cannot be written: name another folder for the results, hydra.run.dir=FOLDER")
    place = folder.path / str(task)
    if place.is_symlink():
        raise ConfigError(f"{place} is a link: remove it, or choose another folder with hydra.run.dir=FOLDER")
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    return [*overrides, f"hydra.run.dir={quote(place / now)}"]


def resume_folder(command: dict[str, str]) -> list[str] | None:
    """Return the overrides that continue the run of ``run=FOLDER``.

    Args:
        command: the text of each override, such as ``seed=3``, by its key.
    """
    path = get_value(command, "run")
    folder = RunFolder(str(path))
    overrides = folder.read_overrides()
    if overrides is None:
        file = OVERRIDE_FILES["run"]
        raise ConfigError(f"run={path} is not the folder of a run, it has no {file}: use a folder outputs/DATE/TIME")
    recorded = by_key(overrides)
    task = get_value(recorded, "task")
    if task in OTHER_TASKS:
        raise ConfigError(f"run={path} is the folder of task={task}, not of a training: use the folder of a training")
    changed = [text for key, text in command.items() if key not in ("run", "task") and text != recorded.get(key)]
    for text in relevant_overrides(changed):
        if not has_key(text, CHANGEABLE_KEYS):
            raise ConfigError(
                f"{text} cannot be changed in a resumed run ({path}): only trainer.max_epochs, trainer.max_time and "
                f"logging options can"
            )
    epochs, max_epochs = folder.read_summary().get("epochs", 0), get_value(command, "trainer.max_epochs")
    if isinstance(max_epochs, int) and isinstance(epochs, int | float) and 0 <= max_epochs < epochs:
        raise ConfigError(
            f"trainer.max_epochs={max_epochs} is less than the {epochs:g} epochs of {path}: use a larger number"
        )
    if not relevant_overrides(changed) and is_complete(folder):
        print_result(folder)
        return None
    inherited = inherited_overrides(overrides, folder, replaced=command)
    inherited += [recorded["task"]] if task and "task" not in command else []  # fit, or a task of your own
    own = [text for key, text in command.items() if key != "run"]  # hydra.run.dir takes its place
    return continue_in(folder, "run", [*inherited, *own])


def find_latest(command: dict[str, str], kind: Kind) -> list[str] | None:
    """Return the overrides that continue the newest run or sweep of a command (``resume=auto``).

    Args:
        command: the text of each override, such as ``seed=3``, by its key.
        kind: "run" or "sweep".
    """
    key, overrides = f"hydra.{kind}.dir", list(command.values())
    template = str(get_value(command, key) or default_dir(kind))
    folders = find_folders(template, kind)
    folder = next((folder for folder in folders if continues(command, folder, kind)), None)
    if folder is None:
        if "${" in template:
            print(f"resume=auto: no {kind} of this command was found, a new one starts", flush=True)
        elif folders:
            hint = " (a comparison may get more models and seeds, and other task.* overrides)"
            hint = hint if get_value(command, "task") == "compare" else ""
            raise ConfigError(f"{template} holds the {kind} of another command{hint}: choose another {key}")
        return overrides
    if kind == "run" and same_overrides(folder.read_overrides() or (), overrides) and is_complete(folder):
        print_result(folder)
        return None
    return continue_in(folder, kind, overrides)


def continues(command: dict[str, str], folder: RunFolder, kind: Kind) -> bool:
    """Return whether a command continues the run or sweep in a folder."""
    overrides, recorded = command.values(), folder.read_overrides(kind) or []
    if same_overrides(recorded, overrides):
        return True
    if kind == "sweep":  # its jobs may differ in nothing but keys that do not affect the training
        return False
    same_training = sorted(training_overrides(recorded)) == sorted(training_overrides(overrides))
    return (same_training and not folder.is_completed) or is_larger_comparison(command, by_key(recorded))


def continue_in(folder: RunFolder, kind: Kind, overrides: Sequence[str]) -> list[str]:
    """Return overrides that continue a run or a sweep in a folder, and print the folder."""
    print(f"resuming in {folder.path}", flush=True)
    replaced = ("resume=", f"hydra.{kind}.dir=")
    kept = [text for text in overrides if not text.startswith(replaced)]
    return [*kept, "resume=auto", f"hydra.{kind}.dir={quote(folder.path)}"]


def accept_data_keys(overrides: Sequence[str], command: dict[str, str]) -> list[str]:
    """Return overrides in which keys of the data of ``run=PATH`` need no plus.

    Hydra composes the default data, which may lack keys that the data of the run have, such as ``data.path``.

    Args:
        overrides: those of the command.
        command: the same by key.
    """
    run = get_value(command, "run")
    if not isinstance(run, str) or "data" in command:
        return list(overrides)
    data = folder_of(run).read_config().get("data")
    keys = data if isinstance(data, dict) else {}

    def is_known(text: str) -> bool:
        return text.startswith("data.") and re.split("[.=]", text)[1] in keys

    return [f"++{text}" if is_known(text) else text for text in overrides]


def default_dir(kind: Kind) -> str:
    """Return the folder that ``conf/config.yaml`` gives to runs or sweeps, such as ``outputs/${now:%Y-%m-%d}``."""
    return yaml.safe_load(Path(config_folder(), "config.yaml").read_text(encoding="utf-8"))["hydra"][kind]["dir"]


def find_folders(template: str, kind: Kind) -> list[RunFolder]:
    """Return the folders that a template such as ``outputs/${now:%Y-%m-%d}`` may stand for, the newest first."""
    pattern = "*".join(glob.escape(part) for part in re.split(r"\$\{[^}]*\}", template))
    folders = [folder for path in glob.glob(pattern) if (folder := RunFolder(path)).read_overrides(kind) is not None]
    return sorted(folders, key=lambda folder: (folder.path / OVERRIDE_FILES[kind]).stat().st_mtime_ns, reverse=True)


def is_complete(folder: RunFolder) -> bool:
    """Return whether a run has completed; of a comparison, also all of its trainings and evaluations."""
    trainings = list((folder.path / "runs").glob("*"))
    stages = [folder.path / part / run.name for run in trainings for part in ("runs", "evaluations")]
    return all(RunFolder(path).is_completed for path in (folder.path, *stages))


def print_result(folder: RunFolder) -> None:
    """Print that a run is complete, and its test ELBO if it has one."""
    summary = folder.read_summary()
    test = summary.get("test")
    elbo = test.get("elbo") if isinstance(test, dict) else None
    result = f": test ELBO {elbo:.3f} nats per {summary.get('noun', 'image')}" if isinstance(elbo, float) else ""
    print(f"{folder.path} is complete{result}", flush=True)
