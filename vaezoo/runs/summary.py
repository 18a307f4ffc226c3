"""``summary.json``: the result of a run, with everything that says where its numbers are from."""

import json
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
from vaezoo.metrics.quantities import QUANTITIES, Quantity
from vaezoo.runs.folder import non_finite_to_none, write_atomic


def write_summary(
    config: dict[str, Any], quantities: dict[str, Quantity] = QUANTITIES, **values: Any
) -> dict[str, Any]:
    """Write ``summary.json`` in the run's folder: the numbers, their units, and all that names where they are from."""
    summary = {
        "status": "completed",
        "model": config["name"],
        "seed": config["seed"],
        **values,
        "units": {name: quantity.to_json() for name, quantity in quantities.items()},
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
    write_atomic(
        Path(config["run_dir"], "summary.json"),
        json.dumps(non_finite_to_none(summary), indent=2, allow_nan=False) + "\n",
    )
    return summary


def peak_memory_mb() -> dict[str, float]:
    """Most memory held so far, in MiB: by this process, and on its GPU if it has one."""
    unit = 1024**2 if sys.platform == "darwin" else 1024
    peak = {"process": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)}
    if torch.cuda.is_available():
        peak["gpu"] = round(torch.cuda.max_memory_allocated() / 1024**2, 1)
    return peak


def git_commit() -> str | None:
    """The commit that vaezoo's own checkout is at, with "-dirty" where files differ; None when installed."""
    checkout = Path(vaezoo.__file__).resolve().parent.parent
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
