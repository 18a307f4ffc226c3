"""What "the same command again" means: the folder in which a command goes on.

It is settled before Hydra composes, on the words of the command line: a continued run has its old folder
as ``run_dir``, and is in no other way special.
"""

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

from vaezoo.errors import ConfigError
from vaezoo.old_names import update_override
from vaezoo.runs.folder import SWEEP_RECORD, read_summary, relevant_overrides

# Where a folder keeps the words of its command (``vaezoo.runs.record`` and the launcher of sweeps write them).
OVERRIDE_FILES = {"run": ".hydra/overrides.yaml", "sweep": SWEEP_RECORD}
# What moves no bit of a training: where its data lie, what is shown of it and kept. Two commands that differ in
# nothing else ask for the same run.
NON_TRAINING_KEYS = (
    "trainer.enable_progress_bar", "trainer.log_every_n_steps", "callbacks.checkpoint_last", "callbacks.images",
    "callbacks.progress", "logger", "data.root", "data.num_workers", "debug", "allow_packages", "trust",
)  # fmt: skip
# Tasks that train nothing by themselves: a run of one is not resumed by its folder.
OTHER_TASKS = ("evaluate", "compare", "report", "sample", "reconstruct", "encode")
# Keys and config groups that a resumed run inherits from the record in its folder; those that only this command line
# decides; any other must be said on it again.
INHERITED = {
    "model", "data", "optimizer", "scheduler", "trainer", "logger", "callbacks", "experiment", "name", "seed",
    "threads", "compile", "on_nan", "debug",
}  # fmt: skip


PATH_KEYS = {"dirpath", "folder", "save_dir", "dir", "default_root_dir", "filename"}
NEVER_INHERITED = {"hydra", "allow_packages", "trust", "task", "run", "resume", "run_dir"}
# What a comparison that goes on may have more of.
LIST_KEYS = ("models", "seeds")
# What a run that goes on may be told anew: that, and how long it is; not what is trained.
CHANGEABLE_KEYS = ("trainer.max_epochs", "trainer.max_time", *NON_TRAINING_KEYS)


def resolve_resume_args(argv: list[str], defaults: Path) -> list[str] | None:
    """The arguments, sent to the folder of the run or sweep that they continue.

    ``resume=auto`` stands for the newest one of the same command, if there is one, or a run that has not ended and
    differs in nothing that moves its training; ``run=PATH`` for the run in that folder, with the words of its own
    command wherever these arguments do not say otherwise.

    Args:
        argv: the command line without the program.
        defaults: the config that names where runs and sweeps lie.

    Returns:
        The arguments to run with; None where the run is complete, which is then printed.

    Raises:
        ConfigError: the folder holds no run, or one of another command.
        OverrideParseException: a word that Hydra cannot read.
    """
    args = get_args_parser().parse_args(argv)
    inspects = args.help or args.hydra_help or args.cfg or args.info or args.shell_completion
    if inspects or not any(word.startswith(("resume=", "run=")) for word in args.overrides):
        return argv
    said = overrides_by_key(args.overrides)
    if "run" in said and override_value(said, "task") in (None, "fit"):
        if args.multirun:
            raise ConfigError(f"{said['run']} goes on with one run: leave -m out")
        return from_run_folder(argv, said)
    if override_value(said, "resume") == "auto":
        return find_latest(argv, said, "sweep" if args.multirun else "run", defaults)
    if override_value(said, "resume") is None:
        return argv
    raise ConfigError(f"{said['resume']} should be resume=auto or resume=null")


def from_run_folder(argv: list[str], said: dict[str, str]) -> list[str] | None:
    """The arguments for ``run=PATH``."""
    folder = Path(str(override_value(said, "run")))
    words = read_overrides(folder, "run")
    if words is None:
        raise ConfigError(
            f"run={folder} is not a run's folder, it has no {OVERRIDE_FILES['run']}: give outputs/DATE/TIME"
        )
    own = overrides_by_key(words)
    task = override_value(own, "task")
    if task in OTHER_TASKS:
        raise ConfigError(f"run={folder} is of task={task}, not a training: give a training's folder")
    news = relevant_overrides(word for key, word in said.items() if key not in ("run", "task") and word != own.get(key))
    for word in news:
        if not overrides_key(word, CHANGEABLE_KEYS):
            raise ConfigError(f"{word} cannot be changed: {folder} goes on with what its own command said")
    done, asked = read_summary(folder).get("epochs", 0), override_value(said, "trainer.max_epochs")
    if isinstance(asked, int) and isinstance(done, int | float) and 0 <= asked < done:
        raise ConfigError(f"{said['trainer.max_epochs']} is less than the {done:g} epochs of {folder}: ask for more")
    if not news and report_if_complete(folder):
        return None
    inherited = inheritable((word for key, word in own.items() if key not in said), folder)
    inherited += [own["task"]] if task else []  # fit, or one of the user's own
    root = original_root(folder)
    if root and "data.root" not in said:
        inherited = [
            *(word for word in inherited if not overrides_key(word, ["data.root"])),
            f"data.root={quote(root)}",
        ]
    return redirect_args(argv, said, "run", folder, said["run"], [*inherited, "resume=auto"])


def original_root(folder: Path) -> str | None:
    """Return the folder of a run's data, if it is relative to another working directory than the present one."""
    place = folder / OVERRIDE_FILES["run"]
    try:
        root = yaml.safe_load(place.with_name("config.yaml").read_text(encoding="utf-8"))["data"]["root"]
        begun_in = yaml.safe_load(place.with_name("hydra.yaml").read_text(encoding="utf-8"))["hydra"]["runtime"]["cwd"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None
    if not isinstance(root, str) or not isinstance(begun_in, str) or "$" in root:
        return None
    relative = not os.path.isabs(os.path.expanduser(root))
    return os.path.join(begun_in, root) if relative and begun_in != os.getcwd() else None


def inheritable(words: Iterable[str], folder: Path) -> list[str]:
    """Return the recorded overrides that resuming a run takes over from its folder.

    The folder may come from a stranger. Its record must not decide which packages are trusted, how Hydra works or which
    task runs, and no path in it is followed except that of the data.

    Args:
        words: the recorded overrides.
        folder: the run's folder.

    Raises:
        ConfigError: an override names a path, reads the environment or sets an unknown key, or a link would lead a
            write out of the folder.
    """
    kept = []
    for override in OverridesParser.create().parse_overrides(list(words)):
        word = str(override.input_line)
        names = (override.key_or_group, *([override.package] if override.package else []))
        roots = {re.split("[./]", name)[0] for name in names}
        if roots & NEVER_INHERITED:
            continue
        if not roots <= INHERITED or is_foreign(override.key_or_group, word.partition("=")[2]):
            raise ConfigError(
                f"{word} is recorded in {folder} and is not inherited, for it may name a path, a class or an account: "
                f"say it on this command line too if you want it"
            )
        kept.append(word)
    for path in folder.rglob("*"):
        outside = path.is_symlink() and not path.resolve().is_relative_to(folder.resolve())
        if outside and path.relative_to(folder).parts[:-1][:1] != ("wandb",):  # in it, W&B makes links to its log files
            raise ConfigError(f"{path} is a link out of the run's folder, which a resumed run may write to: remove it")
    return kept


def is_foreign(key: str, value: str) -> bool:
    """Whether a recorded override could lead a resumed run out of its folder: a path, another variable than the folder
    itself, a logger's setting, or the class of a logger or callback.
    """
    root, _, rest = key.partition(".")
    within = value.startswith("${run_dir}/")
    value = value.removeprefix("${run_dir}/")
    if key == "data.root":
        return "$" in value
    if re.search(r"[/\\~${}]|\.\.", value):
        return True
    last = key.rpartition(".")[2]
    named = root in ("logger", "callbacks") and last == "_target_"
    return named or (root == "logger" and rest != "") or (last in PATH_KEYS and not within)


def find_latest(argv: list[str], said: dict[str, str], kind: str, defaults: Path) -> list[str] | None:
    """The arguments for ``resume=auto``, of a "run" or a "sweep"."""
    place = f"hydra.{kind}.dir"
    template = str(
        override_value(said, place) or yaml.safe_load(defaults.read_text(encoding="utf-8"))["hydra"][kind]["dir"]
    )
    folders = find_folders(template, kind)
    words = relevant_overrides(said.values())

    def goes_on(folder: Path) -> bool:
        there = read_overrides(folder, kind) or []
        # The jobs of a sweep may well differ in nothing else.
        unfinished = kind == "run" and read_summary(folder).get("status") != "completed"
        same = same_overrides(there, words) or (unfinished and same_overrides(trained(there), trained(words)))
        return same or is_larger_comparison(words, there, comparison_defaults())

    folder = next(filter(goes_on, folders), None)
    if folder is None:
        if "${" in template:
            print(f"resume=auto: no {kind} of this command to go on with, a new one starts", flush=True)
        elif folders:
            grows = " (a comparison can have more models and seeds, and other task.* words)"
            told = grows if override_value(said, "task") == "compare" else ""
            raise ConfigError(f"{template} holds the {kind} of another command{told}: choose another {place}")
        return argv
    same = same_overrides(read_overrides(folder, kind) or (), words)
    if kind == "run" and same and report_if_complete(folder):
        return None
    return redirect_args(argv, said, kind, folder, said["resume"], ["resume=auto"])


def find_folders(template: str, kind: str) -> list[Path]:
    """The folders of a kind that a template such as ``outputs/${now:%Y}`` stands for, the newest first."""
    pattern = "*".join(glob.escape(part) for part in re.split(r"\$\{[^}]*\}", template))
    folders = [Path(path) for path in glob.glob(pattern) if read_overrides(Path(path), kind) is not None]
    return sorted(folders, key=lambda folder: (folder / OVERRIDE_FILES[kind]).stat().st_mtime_ns, reverse=True)


def read_overrides(folder: Path, kind: str) -> list[str] | None:
    """The words of the command that a folder is from; None where it has no record of them."""
    try:
        words = yaml.safe_load((folder / OVERRIDE_FILES[kind]).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None
    known = isinstance(words, list) and all(isinstance(word, str) for word in words)
    return [update_override(word) for word in words] if known else None


def same_overrides(words: Iterable[str], others: Iterable[str]) -> bool:
    """Whether two commands ask for the same."""
    return sorted(relevant_overrides(words)) == sorted(relevant_overrides(others))


def config_folder() -> str:
    """conf/: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return str(next(path for path in (package / "conf", package.parent / "conf") if path.is_dir()))


def may_continue(words: Iterable[str], others: Iterable[str]) -> bool:
    """Whether a command may resume the run of another one.

    It may if they differ only in keys that may change when resuming, or if it is a larger comparison.
    """
    now, then = ({"task": "task=fit"} | overrides_by_key(relevant_overrides(several)) for several in (words, others))
    changed = [key for key in now.keys() | then.keys() if now.get(key) != then.get(key)]
    return all(overrides_key(key, CHANGEABLE_KEYS) for key in changed) or is_larger_comparison(
        words, others, comparison_defaults()
    )


def comparison_defaults() -> dict[str, Any]:
    """The keys of ``task=compare`` with their values."""
    return yaml.safe_load(Path(config_folder(), "task", "compare.yaml").read_text(encoding="utf-8"))


def is_larger_comparison(words: Iterable[str], others: Iterable[str], defaults: dict[str, Any]) -> bool:
    """Whether a comparison asks for the models and seeds of another one, and maybe for more, or for other numbers of
    each: its trainings are then parts of this one.
    """
    now, then = overrides_by_key(words), overrides_by_key(others)
    if override_value(now, "task") != "compare" or override_value(then, "task") != "compare":
        return False

    def several(said: dict[str, str], key: str) -> set[str]:
        found = override_value(said, key) if key in said else defaults[key]
        listed = range(found) if type(found) is int else found if isinstance(found, list) else ()
        return set(map(str, listed))

    def rest(said: dict[str, str]) -> list[str]:
        return [word for key, word in said.items() if key not in LIST_KEYS and not key.startswith("task.")]

    return all(several(now, key) >= several(then, key) for key in LIST_KEYS) and same_overrides(rest(now), rest(then))


def trained(words: Iterable[str]) -> list[str]:
    """The words of a run's command that its training depends on."""
    return [word for word in words if not overrides_key(word, NON_TRAINING_KEYS)]


def overrides_key(word: str, keys: Iterable[str]) -> bool:
    """Whether a word sets one of the keys, or something below it."""
    return bool(re.match(rf"[+~]*({'|'.join(map(re.escape, keys))})\b", word))


def report_if_complete(folder: Path) -> bool:
    """Whether the run in a folder is complete; says so."""
    summary = read_summary(folder)
    # Of a comparison, each model's training and its evaluation.
    stages = [folder / part / run.name for run in folder.glob("runs/*") for part in ("runs", "evaluations")]
    if any(read_summary(place).get("status") != "completed" for place in (folder, *stages)):
        return False
    test = summary.get("test")
    elbo = test.get("elbo") if isinstance(test, dict) else None
    told = f": test ELBO {elbo:.3f} nats per image" if isinstance(elbo, float) else ""
    print(f"{folder} is complete{told}", flush=True)
    return True


def redirect_args(
    argv: list[str], said: dict[str, str], kind: str, folder: Path, asks: str, words: list[str]
) -> list[str]:
    """The arguments with the word that ``asks`` to go on replaced by ``words`` and the folder to go on in."""
    print(f"going on in {folder}", flush=True)
    place = f"hydra.{kind}.dir"
    words = [*words, f"{place}={quote(folder)}"]
    gone = (said.get("resume"), said.get(place))
    return [new for word in argv for new in (words if word == asks else [] if word in gone else [word])]


def overrides_by_key(words: Iterable[str]) -> dict[str, str]:
    """Override words by their keys; of two with the same key the last, as in Hydra."""
    parsed = OverridesParser.create().parse_overrides(list(words))
    return {override.get_key_element(): str(override.input_line) for override in parsed}


def override_value(said: dict[str, str], key: str) -> Any:
    """What the word for a key says; None where there is none."""
    return OverridesParser.create().parse_override(said[key]).value() if key in said else None


def quote(path: Path | str) -> str:
    """A path, or any text, as the value of a Hydra override."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
