"""The report's page in headless Chromium: charts, tables and what links them."""


import pytest
from browser import MINUS, browser, needs_chromium, sync_api  # noqa: F401
from test_report import make_run

from vaezoo.report import read_runs, write_report

pytestmark = needs_chromium
NASTY = "</script><b>\"bold\"</b>'+alert(1)+'"
# The place of a row of a chart's data on the screen.
PLACE = """([title, name, fields, run]) => {
  const box = [...document.querySelectorAll(".chart")].find((box) => box.ariaLabel.startsWith(title))
  box.scrollIntoView({ block: "center" })
  const view = views.find((view) => box.contains(view.container())), corner = box.getBoundingClientRect()
  const row = DATA.comparisons[0].rows[name].findLast((row) => row.run === run)
  const start = [view.padding().left, view.padding().top]
  return ["x", "y"].map((axis, i) => corner[axis] + start[i] + view.origin()[i] + view.scale(axis)(row[fields[i]]))
}"""
SHOWN = """(i) => [...document.querySelectorAll("table")[i].querySelectorAll("tbody tr:not(.out) th")]
  .map((th) => th.innerText)"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Return the page of four runs of one model, which differ in two settings."""
    folder = tmp_path_factory.mktemp("report")
    for i, (lr, beta, elbo) in enumerate([(0.1, 1, -100.5), (0.1, 4, -110.5), (0.2, 1, -120.5), (0.2, 4, -130.5)]):
        test = {"elbo": elbo, "log_px": elbo + 10.25 + i, "kl": 10.25 + i, "active_units": 5.0 + i, "log_p": elbo + 3}
        rest = {f"number_{k}": float(k) for k in range(20)}
        words = [f"model.beta={beta}", f"optimizer.lr={lr}"]
        make_run(folder / "runs" / str(i), "m", 0, elbo, words, ["samples-0003.png"], test=test | rest)
    write_report(read_runs([folder / "runs"]), folder / "report.html", "four runs")
    return folder / "report.html"


@pytest.fixture
def open_page(browser):  # noqa: F811
    """Open a page: an error of its scripts, a dialog, and a request that leaves this machine fail the test."""
    contexts, faults, requests = [], [], []

    def open_(file, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_function("() => views.length === document.querySelectorAll('.chart').length")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert faults == []
    assert requests
    assert [url for url in requests if not url.startswith(("file:///", "data:"))] == []


def test_a_point_shows_its_values_and_highlights_its_run(report, open_page):
    page = open_page(report)
    x, y = page.evaluate(PLACE, ["Rate and distortion", "points", ["kl", "distortion"], 2])
    page.mouse.move(x + 6, y + 4)  # near it is enough
    tip = page.locator("#tip").inner_text().splitlines()
    assert tip == [
        "m beta=1 lr=0.2 · seed 0", f"log p(x) {MINUS}117.50", f"test ELBO {MINUS}120.50", "rate 12.25",
        "distortion 108.25", "active units 7",
    ]  # fmt: skip
    assert page.locator("tr.hot th").all_inner_texts() == ["m beta=1 lr=0.2", "m beta=1 lr=0.2 · seed 0"]
    middle = """(node) => {
      const box = node.getBoundingClientRect()
      return [box.x + box.width / 2, box.y + box.height / 2]
    }"""
    mark = page.locator(".chart[aria-label^=Rate] .mark-symbol.role-mark path").nth(2)
    ring = page.locator(".chart[aria-label^=Rate] .ring")
    assert ring.evaluate(middle) == pytest.approx(mark.evaluate(middle), abs=1.5)
    curves = page.locator(".chart[aria-label^=ELBO] .mark-line path[stroke-width='2']")
    sync_api.expect(curves.and_(page.locator("[stroke-opacity='0.2']"))).to_have_count(3)  # those of the other runs
    page.mouse.click(x, y)
    assert page.locator("dialog h2").inner_text() == "m beta=1 lr=0.2 · seed 0"
    assert page.locator("dialog").inner_text().count(f"{MINUS}120.50") == 1


def test_charts_answer_to_the_keyboard(report, open_page):
    page = open_page(report)
    page.locator(".chart[aria-label^=ELBO]").focus()
    values = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
        values.append(page.locator("#tip").inner_text().splitlines())
    first, second, training, other = values
    assert first[:3] == ["m beta=1 lr=0.1 · seed 0, validation", "epoch 0.500", "step 5"]
    assert first[3] == f"ELBO {MINUS}110.50"
    assert second[1] == "epoch 1"
    assert training[0].endswith(", training")
    assert other[0] == "m beta=4 lr=0.1 · seed 0, validation"
    page.keyboard.press("Enter")
    assert page.locator("dialog h2").inner_text() == "m beta=4 lr=0.1 · seed 0"
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    page.locator(".chart input[value=step]").first.check()
    sync_api.expect(page.locator(".chart text", has_text="optimizer step")).to_have_count(1)


def test_a_table_is_sorted_by_the_keyboard(report, open_page):
    page = open_page(report)
    head = page.locator("thead button", has_text="Test ELBO").first
    head.focus()
    best = ["m beta=1 lr=0.1", "m beta=4 lr=0.1", "m beta=1 lr=0.2", "m beta=4 lr=0.2"]
    for key, order, way in (("Enter", best, "descending"), ("Space", best[::-1], "ascending")):
        page.keyboard.press(key)
        assert page.evaluate(SHOWN, 0) == order
        assert page.locator("th[aria-sort]").first.get_attribute("aria-sort") == way
    page.locator("tbody tr").first.hover()  # of the worst run
    assert page.locator("tr.hot").count() == 2


def test_runs_outside_a_selection_are_dimmed(report, open_page):
    page = open_page(report)

    def drag(column, low, high):
        place = """([column, part]) => {
          const box = [...document.querySelectorAll(".chart")].find((box) => box.ariaLabel.startsWith("Varied"))
          box.scrollIntoView({ block: "center" })
          const view = views.find((view) => box.contains(view.container())), corner = box.getBoundingClientRect()
          const [left, top] = [view.origin()[0] + view.padding().left, view.origin()[1] + view.padding().top]
          return [corner.x + left + view.scale("x")(column) + 5, corner.y + top + view.scale("y")(part)]
        }"""
        page.mouse.move(*page.evaluate(place, [column, low]))
        page.mouse.down()
        page.mouse.move(*page.evaluate(place, [column, high]))
        page.mouse.up()
        page.mouse.move(5, 5)
        return page.evaluate(SHOWN, 0)

    every = ["m beta=1 lr=0.1", "m beta=4 lr=0.1", "m beta=1 lr=0.2", "m beta=4 lr=0.2"]
    assert drag(2, 0.5, 1) == every[:2]  # the better half of the ELBO's axis
    assert drag(0, 0, 0.4) == every[:1]  # and the lower end of the first setting's, beta
    assert page.locator("tr.out").count() == 6  # rows of both tables
    lines = page.locator(".chart[aria-label^=ELBO] .mark-line path[stroke-opacity='0.08']")
    sync_api.expect(lines).to_have_count(3)  # validation; those of training are paler still
    assert drag(2, 0.2, 0.2) == [every[0], every[2]]  # pressed without a drag: that axis is free again
    assert drag(0, 0.2, 0.2) == every
    button = page.locator(".legend button", has_text="m beta=4 lr=0.1")
    button.focus()
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "false"
    assert page.evaluate(SHOWN, 0) == [every[0], *every[2:]]


@pytest.mark.parametrize(("width", "scheme"), [(375, "dark"), (1280, "light")])
def test_width_and_colours(report, open_page, width, scheme):
    page = open_page(report, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = """() => [...document.querySelectorAll("main, main section, .scroll, .chart")]
      .filter((node) => node.scrollWidth > node.clientWidth + 1).map((node) => node.className)"""
    assert page.evaluate(cut) == []
    cells = page.locator("tbody tr").first.locator("td:visible")
    heads = cells.evaluate_all("(cells) => cells.map((cell) => cell.dataset.head)")
    assert heads[:3] == ["Seeds", "log p(x) (nats per image)", "Test ELBO (nats per image)"]
    assert ("Memory (MiB)" in heads, "Number 19" in heads) == (True, False)
    paper = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
    ink = {"light": "rgb(27, 31, 36)", "dark": "rgb(232, 234, 237)"}[scheme]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    text = page.locator(".chart .role-axis-title text").first
    assert text.evaluate("(node) => getComputedStyle(node).fill") == ink
    names = page.evaluate(
        """() => [...document.querySelectorAll(".chart[aria-label^=Rate] .mark-text text")]
        .filter((text) => text.textContent.startsWith("m ") && text.getAttribute("opacity") !== "0").length"""
    )
    assert names == (0 if width == 375 else 4)  # where there is no room, the legend has them


def test_columns_that_do_not_fit_are_shown_after_a_click(report, open_page):
    page = open_page(report)
    heads = """() => [...document.querySelectorAll("table")].map((table) => [...table.querySelectorAll("thead th")]
      .filter((th) => th.offsetWidth).map((th) => th.querySelector("button")?.textContent))"""
    before = page.evaluate(heads)
    page.evaluate("document.querySelectorAll('.choice button').forEach((button) => button.click())")
    after = page.evaluate(heads)
    first = ["Model", "Seeds", "log p(x)", "Test ELBO", "Difference to the best", "Rate", "Distortion", "Active units"]
    rest = ["Time", "Parameters", "Memory", *(f"Number {i}" for i in range(20))]
    assert after == [[*first, *rest], ["Run", None, "log p(x)", "Test ELBO", *first[5:], *rest]]
    assert all(shown == every[: len(shown)] and 5 < len(shown) < 25 for shown, every in zip(before, after, strict=True))
    place = """() => {
      const fixed = document.querySelector("tbody th"), box = document.querySelector(".scroll")
      box.style.width = "200px"
      box.scrollLeft = 100
      return [box.scrollLeft, fixed.getBoundingClientRect().x - box.getBoundingClientRect().x]
    }"""
    assert page.evaluate(place) == [100, 0]  # the first column stays


def test_texts_of_strangers_stay_texts(tmp_path, open_page):
    """Also in names of numbers and units, and if they look like a part of an expression of a chart."""
    units = {NASTY: {"unit": NASTY, "meaning": NASTY, "label": NASTY, "column": "main"}}
    units |= {"kl": {"unit": NASTY, "meaning": "", "label": NASTY, "column": "main"}}
    for seed, model in enumerate([NASTY, "b"]):
        test = {"elbo": -90.0 - seed, "kl": 5.0, "log_px": -85.0, NASTY: 1.0}
        make_run(tmp_path / f"{seed}", model, seed, overrides=[f"name={NASTY}"], test=test, units=units)
        sample = tmp_path / f"{seed}" / "sample" / "1"
        sample.mkdir(parents=True)
        (sample / "samples.npz").touch()
        (sample / "samples.txt").write_text(NASTY)
    make_run(tmp_path / "2", "c", status="failed", error=NASTY)
    write_report(read_runs([tmp_path]), tmp_path / "report.html", NASTY)
    page = open_page(tmp_path / "report.html", 375)
    page.evaluate(
        """() => {
        document.querySelectorAll("thead button, .legend button, .choice button").forEach((button) => button.click())
        DATA.runs.forEach((_, run) => (openRun(run), document.querySelector("dialog").close()))
        openRun(0)
        }"""
    )
    assert page.locator("b").count() == 0
    assert page.title() == page.locator("h1").inner_text() == NASTY
    assert page.locator(".examples li").all_inner_texts() == [NASTY] * 2
    assert NASTY in page.locator("svg text").evaluate_all("(texts) => texts.map((text) => text.textContent)")
    assert NASTY in page.locator("table", has_text="Reason").inner_text()


def test_names_and_axes_have_room(tmp_path, open_page):
    """Names beside points cover nothing, and long numbers leave the axis title free."""
    for i in range(16):
        elbo, kl = -16500 + 0.3 * (i // 2) + 0.1 * (i % 2), 20 + 0.2 * (i // 2 % 3)
        test = {"elbo": elbo, "log_px": elbo + kl, "kl": kl, "active_units": float(i)}
        make_run(tmp_path / "crowd" / str(i), f"model_{i // 2}", i % 2, elbo, test=test)
    test = {"elbo": -16525.0, "log_px": -16490.0, "kl": 35.0, "active_units": 3.0}
    make_run(tmp_path / "crowd" / "16", "far", elbo=-16525.0, test=test)
    write_report(read_runs([tmp_path / "crowd"]), tmp_path / "report.html", "t")
    page = open_page(tmp_path / "report.html")
    names, covered, gap = page.evaluate(
        """() => {
        const plane = document.querySelector(".chart[aria-label^=Rate]");
        const boxes = (what) => [...plane.querySelectorAll(what)].map((node) => node.getBoundingClientRect());
        const names = (text) => /^(model|far)/.test(text.textContent);
        const texts = [...plane.querySelectorAll(".mark-text text")].filter(names);
        const labels = texts.map((text) => text.getBoundingClientRect()), marks = boxes(".mark-symbol path");
        const over = (a, b) => a.x < b.right && b.x < a.right && a.y + 2 < b.bottom && b.y + 2 < a.bottom;
        const covered = labels.flatMap((a, i) => [...labels.slice(i + 1), ...marks].filter((b) => over(a, b)));
        const titles = [...plane.querySelectorAll(".role-axis-title text")];
        const title = titles.find((text) => text.textContent.startsWith("distortion"));
        const numbers = [...title.closest(".role-axis").querySelectorAll(".role-axis-label text")];
        const gaps = numbers.map((text) => text.getBoundingClientRect().x - title.getBoundingClientRect().right);
        return [labels.length, covered.length, Math.min(...gaps)];
        }"""
    )
    assert names >= 6  # of nine
    assert covered == 0
    assert gap > 2
