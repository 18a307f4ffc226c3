"""The explorer's pages in headless Chromium: the live one, with its server in this process, and the saved one."""

import asyncio
import io
import threading

import numpy as np
import pytest
from browser import browser, needs_chromium, sync_api  # noqa: F401
from PIL import Image

from vaezoo.explore.compute import Explorer
from vaezoo.explore.live import add_live_page
from vaezoo.explore.saved import LIMIT
from vaezoo.explore.server import start_server
from vaezoo.runs.checkpoint import find_checkpoint, read_checkpoint
from vaezoo.runs.trained import load_run

pytestmark = needs_chromium

# Where a code of the map is on the screen.
PLACE = """number => {
  scrollTo(0, 0)
  const plot = Bokeh.documents[0].get_model_by_name("map0"), view = Bokeh.index.get_by_id(plot.id)
  const {x, y} = plot.renderers[0].data_source.data, box = view.el.getBoundingClientRect()
  return [box.x + view.frame.x_scale.compute(x[number]), box.y + view.frame.y_scale.compute(y[number])]
}"""
# The mark is where the code is: the first axis of the map is the first slider, and p(z) is standard normal.
MARKED = "() => Bokeh.documents[0].get_model_by_name('map0').renderers[1].data_source.data.x[0] == 3"
SLIDERS = "() => Bokeh.documents[0].roots().filter(root => root.name?.startsWith('slider0_')).map(root => root.value)"


@pytest.fixture(scope="module")
def explorer(explored_run):
    path = find_checkpoint(explored_run)
    checkpoint = read_checkpoint(path)
    return Explorer(load_run(checkpoint["vaezoo_config"] | {"run_dir": str(explored_run)}, path, checkpoint), 60)


@pytest.fixture(scope="module")
def address(explorer):
    """Return the address of the live page of two runs, which here are the same one."""
    started, found = threading.Event(), {}

    async def work():
        found["loop"], found["stop"] = asyncio.get_running_loop(), asyncio.Event()
        server, found["address"] = start_server(add_live_page([explorer, explorer]), 0)
        started.set()
        await found["stop"].wait()
        server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(work()), daemon=True)
    thread.start()
    assert started.wait(20)
    yield found["address"]
    found["loop"].call_soon_threadsafe(found["stop"].set)
    thread.join(10)


@pytest.fixture
def open_page(browser):  # noqa: F811
    """Open a page of some width: errors of its scripts, and requests that leave this machine, fail the test."""
    contexts, errors, requests = [], [], []

    def open_(address):
        context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)

        def route(route):
            requests.append(route.request.url)
            route.continue_()

        context.route("**", route)
        page.goto(address)
        page.wait_for_function("globalThis.Bokeh?.documents[0]?.is_idle")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert errors == []
    assert requests
    assert [url for url in requests if not url.startswith(("http://127.0.0.1:", "file:///", "data:"))] == []


def shown(page, number=1):
    """The address of a picture: 0 the example, 1 p(x | z), and 2 and 3 those of the second run."""
    return page.locator("figure img").nth(number).get_attribute("src")


def wait_for_change(page, before, number=1):
    sync_api.expect(page.locator("figure img").nth(number)).not_to_have_attribute("src", before)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_live_page(explorer, address, open_page):
    page = open_page(address)
    captions = page.locator("figcaption")
    labels = explorer.y.tolist()
    assert captions.all_inner_texts()[:2] == [f"index 0, label {labels[0]}", "mean at the example's code"]
    check_width(page, 375, "dark")
    check_width(page, 1280, "light")
    # A slider.
    before, other = shown(page), shown(page, 3)
    handle = page.locator(".noUi-handle").nth(1)  # the first one is the temperature
    handle.focus()
    for _ in range(12):
        page.keyboard.press("PageUp")
    wait_for_change(page, before)
    assert captions.nth(1).inner_text() == "mean at the sliders"
    assert page.evaluate(SLIDERS)[0] == 3
    page.wait_for_function(MARKED)
    assert shown(page, 3) == other  # each run has sliders of its own
    page.get_by_role("button", name="Back to the example").first.click()
    page.wait_for_function(f"({SLIDERS})()[0] != 3")
    assert shown(page) == before
    # A point of the map, and a place between the points.
    page.mouse.click(*page.evaluate(PLACE, 17))
    page.wait_for_function("() => Bokeh.documents[0].get_model_by_name('controls').children[0].children[0].value == 17")
    wait_for_change(page, before)
    assert page.locator(".bk-Tooltip img").first.bounding_box()["width"] == pytest.approx(64, abs=1)
    steps = explorer.steps(explorer.encode(explorer.example(17)))
    assert page.evaluate(SLIDERS) == pytest.approx(steps, abs=0.006)
    assert captions.all_inner_texts()[::2] == [f"index 102, label {labels[17]}"] * 2
    assert shown(page) == shown(page, 3)
    before, (_, y) = shown(page), page.evaluate(PLACE, 17)
    box = page.locator(".bk-Canvas").first.bounding_box()
    page.mouse.click(box["x"] + 70, box["y"] + 30 if y > box["y"] + 100 else box["y"] + 300)
    wait_for_change(page, before)
    assert captions.nth(1).inner_text() == "mean at the place on the map"
    # A draw from the prior, and a draw of x: a picture of bits.
    before = shown(page)
    page.get_by_role("button", name="Draw z from the prior").first.click()
    wait_for_change(page, before)
    before = shown(page)
    page.get_by_role("button", name="draw", exact=True).first.click()
    wait_for_change(page, before)
    assert captions.nth(1).inner_text() == "draw at a draw from the prior"
    # The way to the example that is shown.
    way = page.locator("section", has_text="From one example").last.locator("img")
    assert way.count() == 9
    end = way.last.get_attribute("src")
    page.get_by_role("button", name="Use as end").click()
    sync_api.expect(way.last).not_to_have_attribute("src", end)
    # Own files.
    before, field = shown(page, 0), page.locator("input[type=file]")
    field.set_input_files({"name": "own.png", "mimeType": "image/png", "buffer": png(np.eye(8, dtype=np.uint8) * 255)})
    wait_for_change(page, before, 0)
    assert captions.first.inner_text() == "own.png"
    own = shown(page, 0)
    field.set_input_files({"name": "<img src=x onerror=alert(1)>.png", "mimeType": "image/png", "buffer": b"<script>"})
    status = page.get_by_text("the picture cannot be read")
    status.wait_for()
    assert shown(page, 0) == own
    field.set_input_files({"name": "own.exe", "mimeType": "image/png", "buffer": b"MZ"})
    page.get_by_text("own.exe cannot be read as one image").wait_for()


def check_width(page, width, color_scheme):
    """Check that nothing is cut off at this width, and the colour of the page."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=color_scheme)
    page.wait_for_function(f"document.querySelector('main').getBoundingClientRect().right <= {width}")
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark == (color_scheme == "dark")
    edges = page.locator("section, .bk-Canvas, img, input, button, .noUi-target").evaluate_all(
        "elements => elements.map(element => element.getBoundingClientRect().right)"
    )
    assert len(edges) > 10
    assert max(edges) <= width


def test_saved_page(cli, explored_run, explorer, open_page, tmp_path):
    code, out, _err, _folder = cli("task=explore", f"run={explored_run}", "save=pages/page.html", "num=60")
    file = tmp_path / "pages" / "page.html"
    assert code == 0
    assert out.splitlines()[-1].startswith("pages/page.html (")
    assert file.stat().st_size < LIMIT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pages"]
    page = open_page(file.as_uri())
    text = page.locator("main").inner_text()
    for part in ("mlp_vae on Digits", "seed 0", "5 epochs", "60 of the 360 images of the test set"):
        assert part in text
    # A click on the map.
    before = shown(page), shown(page, 0)
    page.mouse.click(*page.evaluate(PLACE, 17))
    wait_for_change(page, before[0])
    assert page.locator("figcaption").all_inner_texts() == [f"index 102, label {explorer.y[17]}", "reconstruction"]
    check_width(page, 375, "dark")
    # The slider of the traversal: the picture of that step becomes large.
    strip = page.locator("section", has_text="Latent dimensions").locator("img")
    sync_api.expect(strip).to_have_count(12)
    sources = [strip.nth(i).get_attribute("src") for i in range(12)]
    assert sources[0] == sources[1 + 5]
    page.locator(".noUi-handle").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert sources[11] != sources[0]
    sync_api.expect(strip.nth(0)).to_have_attribute("src", sources[11])
