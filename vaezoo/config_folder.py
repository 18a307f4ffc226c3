"""The folder of the configs, ``conf/``."""

from pathlib import Path


def config_folder() -> str:
    """Return the path of ``conf/``: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    return str(next(path for path in (package / "conf", package.parent / "conf") if path.is_dir()))
