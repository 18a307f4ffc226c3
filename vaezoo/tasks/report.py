"""The task ``report``: write one page of existing runs."""

from pathlib import Path
from typing import Any

from vaezoo.errors import ConfigError
from vaezoo.report import read_runs, write_figures, write_report
from vaezoo.report.statistics import describe
from vaezoo.report.table_files import write_tables
from vaezoo.runs.summary import write_summary


def report(config: dict[str, Any], runs: str | list | None) -> None:
    """Write ``report.html``, which opens from disk, its charts as PNG and SVG, and its table for other programs.

    Args:
        config: the resolved config.
        runs: a run's folder, a sweep's, any folder above them, or a list of folders.

    Raises:
        ConfigError: no folder is given, or one has no run.
    """
    if not runs:
        raise ConfigError("task=report needs runs=PATH, a folder of runs such as multirun/DATE/TIME or outputs")
    paths = [Path(path) for path in (runs if isinstance(runs, list) else [runs])]
    found = read_runs(paths)
    page = Path(config["run_dir"], "report.html")
    title = describe(found)
    write_report(found, page, title)
    write_tables(found, title, page.parent)
    figures = write_figures(found, page.parent / "figures")
    write_summary(config, task="report", runs=[str(run.folder) for run in found])
    print(f"{len(found)} run{'s' * (len(found) != 1)}: {page}, and {len(figures)} figures in {page.parent / 'figures'}")
