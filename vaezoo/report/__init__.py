"""Compare runs: read their folders, write one page that opens from disk and figures for papers."""

from vaezoo.report.figures import write_figures
from vaezoo.report.page import write_report
from vaezoo.report.read import Run, read_runs

__all__ = [
    "Run",
    "read_runs",
    "write_figures",
    "write_report",
]
