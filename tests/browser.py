"""A headless Chromium for tests of pages."""

from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
MINUS = "\N{MINUS SIGN}"  # as pages write it
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")


@pytest.fixture(scope="module")
def browser():
    """Return the browser, which a test file starts once."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()
