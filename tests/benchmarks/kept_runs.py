"""Runs that benchmarks keep in a folder: one that was interrupted trains only what is missing."""

import json
import time
from pathlib import Path
from typing import Any

import vaezoo
from vaezoo.models import LatentVariableModel


def fit_or_load(
    folder: Path | None, data: str, model: str, **options: Any
) -> tuple[LatentVariableModel, dict[str, float]]:
    """Return a trained model in eval mode and its test numbers, with ``seconds``, the processor time of the training.

    Args:
        folder: the run's folder; if it holds a complete run, that one is loaded. None: a temporary one.
        data: as in ``vaezoo.fit``.
        model: as in ``vaezoo.fit``.
        **options: as in ``vaezoo.fit``.
    """
    found = folder / "seconds.json" if folder else None
    if folder and found and found.exists():
        test = json.loads((folder / "summary.json").read_text())["test"]
        return vaezoo.load(folder), test | {"seconds": json.loads(found.read_text())}
    start = time.process_time()
    run = vaezoo.fit(data, model, folder=folder, verbose=False, **options)
    seconds = time.process_time() - start
    if found:
        found.write_text(json.dumps(seconds))
    return run.model, run.metrics["test"] | {"seconds": seconds}
