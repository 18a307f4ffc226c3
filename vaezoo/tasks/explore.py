"""The task ``explore``: a page to look at a trained model."""

import importlib.util
from pathlib import Path
from typing import Any

from vaezoo.errors import ConfigError
from vaezoo.runs.signals import stop_request, stopping_at_once
from vaezoo.runs.trained import TrainedRun, open_run

KEYS = ("split", "num", "with", "port", "open", "save")


def explore(
    config: dict[str, Any],
    split: str,
    num: int | None,
    second: str | None,
    port: int,
    open: bool,
    save: str | None,
) -> None:
    """Show a trained model in the browser: its codes, p(x | z) anywhere, and the way from one example to another.

    A server on this machine answers the page, and nothing is sent elsewhere. With ``save``, one file is written that
    opens from disk.

    Args:
        config: the resolved config.
        split: the set, as in ``open_run``.
        num: number of examples, evenly spaced over the set, at least 1; None: all.
        second: the folder of a second run of the same data; None: there is none.
        port: the port of the server; 0: a free one.
        open: whether the browser is opened.
        save: the file; None: no file is written.

    Raises:
        ConfigError: bokeh is missing, a number is too small, or the runs have different data.
    """
    if importlib.util.find_spec("bokeh") is None:
        raise ConfigError("task=explore needs bokeh, which cannot be imported: pip install 'vaezoo[explore]'")
    if num is not None and num < 1:
        raise ConfigError(f"num={num} should be an integer >= 1")
    if not 0 <= port < 2**16:
        raise ConfigError(f"port={port} should be an integer from 0 to 65535")
    if save is not None and second is not None:
        raise ConfigError("save writes the page of one run: leave out with, or look at both without save")
    from vaezoo.explore.compute import Explorer
    from vaezoo.explore.live import add_live_page
    from vaezoo.explore.saved import save_page
    from vaezoo.explore.server import serve

    run = open_run(config, KEYS, split)
    runs = [run, open_second(config, run, second)] if second is not None else [run]
    explorers = [Explorer(each, num) for each in runs]
    if save is not None:
        save_page(explorers[0], Path(save))
        return
    serve(add_live_page(explorers), port, open, lambda: bool(stop_request.signum))
    with stopping_at_once():  # raises the signal that has stopped the server
        pass


def open_second(config: dict[str, Any], run: TrainedRun, second: str) -> TrainedRun:
    """Return the run that stands beside the first one.

    Raises:
        ConfigError: it cannot be loaded, or it has other data.
    """
    other = open_run(config | {"run": second}, KEYS, run.chosen)
    if identity(run) != identity(other):
        raise ConfigError(f"with={second} has another {run.chosen} set than {run.path}: name a run of the same data")
    return other


def identity(run: TrainedRun) -> tuple[Any, ...]:
    """Return what two runs of the same data have in common: of pictures, one may see bits and the other one bytes."""
    keys = {head: column.tolist() for head, column in run.keys().items()}
    content = run.data.describe().get("content_hash")
    return run.data.noun, run.data.shape, content, keys, run.split(run.chosen).y.tolist()
