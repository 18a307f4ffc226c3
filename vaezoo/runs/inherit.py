"""The overrides that a resumed run takes over from its folder, which a stranger may have written.

The record must not decide which packages may be imported, how Hydra works or which task runs, and no path in it is
followed except that of the data.
"""

import os
import re
from collections.abc import Collection, Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser

from vaezoo.errors import ConfigError
from vaezoo.runs.folder import RunFolder
from vaezoo.runs.overrides import quote

# Keys and config groups that a resumed run inherits.
INHERITED = {
    "model", "data", "optimizer", "scheduler", "trainer", "logger", "callbacks", "experiment", "name", "seed",
    "threads", "compile", "on_nan", "debug",
}  # fmt: skip
# Keys that only the present command line decides. An override of any other key is an error.
NEVER_INHERITED = {"hydra", "allow_packages", "task", "run", "resume", "run_dir"}
PATH_KEYS = {"dirpath", "folder", "save_dir", "dir", "default_root_dir", "filename"}


def inherited_overrides(recorded: Iterable[str], folder: RunFolder, replaced: Collection[str] = ()) -> list[str]:
    """Return the recorded overrides of a run that a command inherits if it resumes the run.

    Args:
        recorded: the overrides of the run's own command.
        folder: the run's folder.
        replaced: keys that the resuming command sets itself.

    Raises:
        ConfigError: an override names a path, reads the environment or sets an unknown key, or a link would lead a
            write out of the folder.
    """
    check_links(folder)
    inherited = {}
    for override in OverridesParser.create().parse_overrides(list(recorded)):
        text, key = str(override.input_line), override.get_key_element()
        names = [override.key_or_group, override.package or override.key_or_group]
        roots = {re.split("[./]", name)[0] for name in names}
        if key in replaced or roots & NEVER_INHERITED:
            continue
        if not roots <= INHERITED or is_foreign(override.key_or_group, text.partition("=")[2]):
            raise ConfigError(
                f"{text} is recorded in {folder.path} and is not inherited, because it may name a path, a class or an "
                f"account: add it to this command line if you want it"
            )
        inherited[key] = text
    root = data_root(folder)
    if root is not None and "data.root" not in replaced:
        inherited["data.root"] = f"data.root={quote(root)}"
    return list(inherited.values())


def is_foreign(key: str, value: str) -> bool:
    """Return whether a recorded override could lead a resumed run out of its folder: a path, another variable than the
    folder itself, a logger's setting, or the class of a logger or callback.
    """
    root, _, rest = key.partition(".")
    is_within = value.startswith("${run_dir}/")
    value = value.removeprefix("${run_dir}/")
    if key == "data.root":
        return "$" in value
    if re.search(r"[/\\~${}]|\.\.", value):
        return True
    last = key.rpartition(".")[2]
    names_class = root in ("logger", "callbacks") and last == "_target_"
    return names_class or (root == "logger" and rest != "") or (last in PATH_KEYS and not is_within)


def check_links(folder: RunFolder) -> None:
    """Raise a ConfigError if a link in a folder leads out of it, because a resumed run would write through it."""
    for path in folder.path.rglob("*"):
        leads_out = path.is_symlink() and not path.resolve().is_relative_to(folder.path.resolve())
        if leads_out and path.relative_to(folder.path).parts[:-1][:1] != ("wandb",):  # W&B links to its log files
            raise ConfigError(f"{path} is a link out of the run's folder, which a resumed run may write to: remove it")


def data_root(folder: RunFolder) -> str | None:
    """Return the folder of a run's data if it is relative to another working directory than the present one."""
    try:
        root, started_in = folder.read_config()["data"]["root"], folder.read_hydra()["runtime"]["cwd"]
    except (KeyError, TypeError):
        return None
    if not isinstance(root, str) or not isinstance(started_in, str) or "$" in root:
        return None
    is_relative = not os.path.isabs(os.path.expanduser(root))
    return os.path.join(started_in, root) if is_relative and started_in != os.getcwd() else None
