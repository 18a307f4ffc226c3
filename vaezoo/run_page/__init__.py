"""The page of a run, ``RUN/index.html``: its numbers, curves, pictures and config in one file."""

from vaezoo.run_page.page import write_run_page

__all__ = ["write_run_page"]
