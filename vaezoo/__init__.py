"""vaezoo: variational autoencoders whose numbers can be trusted."""

import sys

if sys.platform == "win32":  # before any import that fails there, such as fcntl
    sys.exit(f"error: vaezoo runs on Linux and macOS, not on {sys.platform}: on Windows, install it in WSL")

__version__ = "0.1.0"
__all__ = ["__version__", "fit", "load", "save"]


def __getattr__(name: str):
    # Imported here, because torch takes seconds to import and `vaezoo --help` does not need it.
    if name in ("load", "save"):
        from vaezoo.runs import load

        return getattr(load, name)
    if name == "fit":
        from vaezoo.python import fit

        return fit
    raise AttributeError(f"module 'vaezoo' has no attribute {name!r}")
