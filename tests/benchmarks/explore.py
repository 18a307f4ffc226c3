"""How long the page of ``task=explore`` takes from a slider to the new picture.

``python tests/benchmarks/explore.py RUN`` starts the page of a run of images in this process, presses a key on the
first slider in headless Chromium (``playwright``), and prints the milliseconds until the picture has changed, and the
processor time that the server needs for it.
"""

import asyncio
import os
import sys
import threading
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from playwright.sync_api import sync_playwright

from vaezoo.explore.compute import Explorer
from vaezoo.explore.live import add_live_page
from vaezoo.explore.server import start_server
from vaezoo.explore.side import Side
from vaezoo.runs.checkpoint import find_checkpoint, read_checkpoint
from vaezoo.runs.trained import load_run

NUM = 60
# Presses a key, and waits until the address of the second picture is another one. Milliseconds, for each press.
PRESS = """async num => {
  const find = (selector, root = document) => [...root.querySelectorAll("*")].flatMap(element => [
    ...(element.matches(selector) ? [element] : []), ...(element.shadowRoot ? find(selector, element.shadowRoot) : [])])
  const handle = find(".noUi-handle")[1], root = find("figure img")[1].getRootNode(), times = []
  const picture = () => root.querySelectorAll("figure img")[1].src
  for (let i = 0; i < num; i++) {
    const before = picture(), start = performance.now()
    handle.dispatchEvent(new KeyboardEvent("keydown", {key: i % 2 ? "ArrowLeft" : "ArrowRight", bubbles: true}))
    while (picture() == before) await new Promise(done => setTimeout(done, 1))
    times.push(performance.now() - start)
    await new Promise(done => setTimeout(done, 100))
  }
  return times
}"""


def open_explorer(folder: str) -> Explorer:
    """Return the explorer of 1,000 examples of a run."""
    path = find_checkpoint(folder)
    checkpoint = read_checkpoint(path)
    return Explorer(load_run(checkpoint["vaezoo_config"] | {"run_dir": folder}, path, checkpoint), 1000)


def serve(explorer: Explorer, started: threading.Event, found: dict) -> None:
    """Serve the page for as long as this process runs."""

    async def work() -> None:
        _server, found["address"] = start_server(add_live_page([explorer]), 0)
        started.set()
        await asyncio.Event().wait()

    asyncio.run(work())


def describe(milliseconds: list[float]) -> str:
    """Return the median and the 90th percentile."""
    return "median {:.1f} ms, 90 % below {:.1f} ms".format(*np.quantile(milliseconds, [0.5, 0.9]))


def main() -> None:
    torch.set_num_threads(1)
    explorer = open_explorer(sys.argv[1])
    side = Side(explorer, [""] * len(explorer.codes), 0, lambda number: None)
    side.take(explorer.example(0), "")
    move, own = side.make_mover(0), []
    for i in range(NUM):
        start = time.process_time()
        move("value", 0, i / NUM)
        own.append(1000 * (time.process_time() - start))
    print(f"processor time of the server, without its messages: {describe(own)}")
    started, found = threading.Event(), {}
    threading.Thread(target=serve, args=(explorer, started, found), daemon=True).start()
    started.wait()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(found["address"])
        page.locator("figure img").nth(1).wait_for()
        page.wait_for_timeout(2000)
        print(f"from the key to the picture: {describe(page.evaluate(PRESS, NUM))}; load {os.getloadavg()[0]:.1f}")
        browser.close()


if __name__ == "__main__":
    main()
