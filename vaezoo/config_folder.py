"""The folder of the configs, ``conf/``."""

import sys
from collections.abc import Sequence
from pathlib import Path

import yaml


def config_folder() -> str:
    """Return the path of ``conf/``: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    return str(next(path for path in (package / "conf", package.parent / "conf") if path.is_dir()))


def offer_plugins() -> None:
    """Let Hydra find the launcher of sweeps. It looks for plugins once, when the first config is composed."""
    folder = str(Path(__file__).parent / "plugins")
    if folder not in sys.path:
        sys.path.append(folder)


def help_text(folders: Sequence[str]) -> str:
    """Return the text of ``--help``: the template in ``conf/config.yaml``, with the choices of each config group.

    Hydra would make the same text. It copies all configs for each group, which takes more than a second.

    Args:
        folders: the folders of configs, ``conf/`` and those of ``--config-dir``.
    """
    groups: dict[str, set[str]] = {}
    for folder in map(Path, folders):
        for file in folder.rglob("*.yaml"):
            group = file.parent.relative_to(folder).as_posix()
            if group != "." and not group.startswith("hydra"):
                groups.setdefault(group, set()).add(file.stem)
    choices = "\n".join(f"{group}: {', '.join(sorted(groups[group]))}" for group in sorted(groups))
    parts = yaml.safe_load(Path(config_folder(), "config.yaml").read_text(encoding="utf-8"))["hydra"]["help"]
    text = parts["template"].replace("$APP_CONFIG_GROUPS", f"{choices}\n")
    for name in ("header", "footer"):
        text = text.replace(f"${{hydra.help.{name}}}", parts[name])
    return text
