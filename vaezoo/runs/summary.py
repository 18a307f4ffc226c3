"""``summary.json``: the result of a run, and all that is needed to know how its numbers were made."""

import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

import vaezoo
from vaezoo.metrics.quantities import QUANTITIES, Quantity, with_noun
from vaezoo.runs.folder import RunFolder


def write_summary(
    config: dict[str, Any], quantities: dict[str, Quantity] = QUANTITIES, noun: str = "image", **values: Any
) -> dict[str, Any]:
    """Write the summary of a completed task into the run's folder, and return it.

    Args:
        config: the config of the run, as ``build_run`` returns it.
        quantities: unit and meaning of each number; those that the run does not have are left out.
        noun: the word for one example of the data.
        **values: the numbers and further entries.
    """
    of_runs = {**values, **values.get("test", {}), **values.get("last_val", {}), "peak_memory_mb": None}
    present = {name.split("/")[0] for name in of_runs}
    used = {name: quantity for name, quantity in quantities.items() if name in present}
    summary = {
        "status": "completed",
        "model": config["name"],
        "seed": config["seed"],
        "noun": noun,
        **values,
        "units": {name: quantity.to_json() for name, quantity in with_noun(used, noun).items()},
        "peak_memory_mb": peak_memory_mb(),
        "versions": {
            "vaezoo": vaezoo.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": pl.__version__,
            "numpy": np.__version__,
        },
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "git_commit": git_commit(),
        "config": config,
    }
    RunFolder(config["run_dir"]).write_summary(summary)
    return summary


def peak_memory_mb() -> dict[str, float]:
    """Return the most memory used so far, in MiB: by this process, and on its GPU if it has one."""
    unit = 1024**2 if sys.platform == "darwin" else 1024
    peak = {"process": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)}
    if torch.cuda.is_available():
        peak["gpu"] = round(torch.cuda.max_memory_allocated() / 1024**2, 1)
    return peak


def git_commit() -> str | None:
    """Return the commit of vaezoo's checkout, with "-dirty" if files differ; None for an installed package."""
    checkout = Path(vaezoo.__file__).resolve().parent.parent
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
