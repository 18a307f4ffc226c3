"""The page of a run: every number, point and picture is that of the files, and nothing in them becomes HTML."""

import base64
import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaezoo.run_page import write_run_page
from vaezoo.run_page.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    bar_chart,
    line_chart,
    nice_ticks,
    visible_range,
)

CHROMIUM = Path("/usr/bin/chromium")
EVIL = "</pre></title><script>alert(1)</script>'\"\x1b[31m&"
UNITS = {
    "elbo": {
        "unit": "nats per image",
        "meaning": "evidence lower bound",
        "better": 1,
        "label": "test ELBO",
        "digits": 2,
    },
    "fid": {"unit": EVIL, "meaning": "a < b"},
}


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, file):
        super().__init__()
        self.tags, self.text = [], ""
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder as a training leaves it, with names that a stranger has chosen."""
    folder = tmp_path_factory.mktemp("page") / "run"
    (folder / "panels").mkdir(parents=True)
    (folder / "sample" / "2026-01-01_00-00-00").mkdir(parents=True)
    test = {"elbo": -109.8212, "elbo_error": 0.296, "kl": 0.02, "fid": 3.14159, "kl_dim/000": 0.015, "kl_dim/001": 0.5}
    summary = {
        "status": "completed", "model": EVIL, "data": "MNIST", "seed": 7, "test": test, "units": UNITS, "epochs": 3,
        "steps": 30, "parameters": 407224, "wall_seconds": 12.5, "peak_memory_mb": {"process": 500.0},
        "config": {"name": EVIL, "model": {"beta": 4.0, "encoder": {"hidden": [8]}}, "compile": None},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(["model=mlp_vae", f"name={EVIL}"]))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", "train/elbo", "val/elbo", "val/kl", "step/elbo"])
        writer.writerow(["", 4, "", "", "", -500])
        for epoch in range(3):
            writer.writerow([epoch, 10 * epoch + 9, "", -130 + 10 * epoch, 0.02, ""])
            writer.writerow([epoch, 10 * epoch + 9, -140 + 10 * epoch, "", "", ""])
        writer.writerow([2, 29, "nan", "inf", "x", ""])
        file.write("3,3")  # cut short
    for number, gray in ((1, 10), (3, 200)):
        Image.fromarray(np.full((40, 60, 3), gray, np.uint8)).save(folder / "panels" / f"samples-{number:04d}.png")
    (folder / "panels" / "scatter-0003.png").write_bytes(b"<script>")  # no picture
    (folder / "panels" / "samples-0003.txt").write_text(f"a sentence {EVIL}\n", encoding="utf-8")
    sounds = folder / "sample" / "2026-01-01_00-00-00"
    (sounds / "samples-0.wav").write_bytes(b"RIFF" + bytes(100))
    (sounds / "samples-1.wav").write_bytes(b"RIFF" + bytes(160_000))  # 213 kB as a data URI
    return folder


@pytest.fixture(scope="module")
def page(run):
    file = write_run_page(run)
    assert file == run / "index.html"
    return Page(file)


def test_numbers_have_units_and_meanings(page):
    rows = re.findall(
        r"<tr><th>(.*?)</th><td class=\"number\">(.*?)</td><td class=\"meaning\">(.*?)</td></tr>", page.source
    )
    found = {name: (value, meaning) for name, value, meaning in rows}
    assert found["test ELBO ↑"] == ("-109.82 ± 0.30", "nats per image, evidence lower bound")
    assert found["fid"][0] == "3.142"
    assert found["fid"][1].endswith("a &lt; b")
    assert found["parameters"][0] == "407,224"
    assert found["time"][0] == "12"
    assert found["memory"][0] == "500"
    assert not any("error" in name or "kl_dim" in name for name in found)


def test_the_heading_the_command_and_the_config(page):
    assert "3 epochs · 30 steps · 407,224 parameters" in page.text
    assert "on MNIST, seed 7" in page.text
    assert "python run.py model=mlp_vae" in page.text
    assert "model.beta=4.0\nmodel.encoder.hidden=[8]\ncompile=null" in page.text


def test_collapse_is_told(run, page, tmp_path):
    assert "posterior collapse: KL 0.02 nats" in page.text
    shutil.copytree(run, tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    summary["test"]["kl"], summary["notes"] = 3.0, ["two dimensions are unused"]
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    text = Page(write_run_page(tmp_path / "run")).text
    assert "posterior collapse" not in text
    assert "two dimensions are unused" in text


def test_curves_are_those_of_the_table(page):
    """The points of the picture, back in epochs and nats, are those of the file; broken cells are left out."""
    chart = re.search(
        r"<b>ELBO</b> \(nats per image\), last: train -120\.00, val -110\.00</figcaption><svg.*?</svg>", page.source
    )[0]
    lines = {"train": [(1, -140), (2, -130), (3, -120)], "val": [(1, -130), (2, -120), (3, -110)]}
    low, high = visible_range(lines)
    for name, points in lines.items():
        path = re.search(rf'<g class="{name}".*?d="M(.*?)"', chart)[1]
        for place, (epoch, value) in zip(path.split("L"), points, strict=True):
            x, y = map(float, place.split())
            assert 3 * (x - LEFT) / (WIDTH - LEFT - RIGHT) == pytest.approx(epoch, abs=0.01)
            assert high - (y - TOP) / (HEIGHT - TOP - BOTTOM) * (high - low) == pytest.approx(value, abs=0.1)
    assert page.source.count("<figcaption><b>") == 3  # ELBO, KL, and KL by dimension
    assert "<title>z1: 0.5</title>" in page.source


@pytest.mark.parametrize(("first", "is_outside"), [(-900.0, True), (-99.0, False)])
def test_points_outside_a_chart_are_told(first, is_outside, tmp_path):
    """20 epochs: the first two set no limits. The last values have the digits of the ELBO."""
    values = [first, first, *(-100 + epoch / 7 for epoch in range(2, 20))]
    rows = [f"{epoch},{epoch},{value},{value - 0.0004}\n" for epoch, value in enumerate(values)]
    (tmp_path / "metrics.csv").write_text("epoch,step,train/elbo,val/elbo\n" + "".join(rows))
    (tmp_path / "summary.json").write_text(json.dumps({"epochs": 20, "steps": 20}))
    text = Page(write_run_page(tmp_path)).text
    assert ("Some of the first points lie outside the charts" in text) == is_outside
    assert "last: train -97.29, val -97.29" in text


@pytest.mark.parametrize(("num", "shown"), [(2, 2), (12, 12), (20, 20), (64, 22)])
def test_names_of_bars_do_not_overlap(num, shown):
    """All names are written as far as there is room, and each bar has a title."""
    chart = bar_chart({f"z{i}": float(num - i) for i in range(num)}, "KL by dimension", "nats")
    labels = re.findall(r'<text class="soft" ([^>]*)>(z\d+)</text>', chart)
    assert len(re.findall(r"<title>z\d+: ", chart)) == num
    assert [name for _, name in labels] == [f"z{i}" for i in range(0, num, -(-num // shown))]
    places = [float(re.search(r'(?:x="|translate\()([\d.]+)', place)[1]) for place, _ in labels]
    lengths = [12 if "rotate(-90)" in place else 6 * len(name) for place, name in labels]
    assert all(b - a >= width for a, b, width in zip(places, places[1:], lengths[1:], strict=False))


@pytest.mark.parametrize(("digits", "words"), [(2, "a 5.31, b 1,234.00"), (None, "a 5.3100, b 1234.0")])
def test_last_values_have_the_same_digits(digits, words):
    assert f"last: {words}</fig" in line_chart({"a": [(1, 5.31)], "b": [(1, 1234.0)]}, "loss", "nats", digits=digits)


def test_pictures_are_the_newest_ones_to_the_byte(run, page):
    (image,) = page.all("img")
    assert image["alt"] == "samples, after 3 epochs"
    content = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
    assert content == (run / "panels" / "samples-0003.png").read_bytes()


def test_texts_and_sounds(run, page):
    """Sentences are text, and a sound below 200 kB has a player."""
    assert "a sentence </pre></title><script>" in page.text
    (audio,) = page.all("audio")
    sound = run / "sample" / "2026-01-01_00-00-00" / "samples-0.wav"
    assert base64.b64decode(audio["src"].partition(",")[2]) == sound.read_bytes()


def test_nothing_becomes_html_and_nothing_is_loaded(page):
    assert page.all("script") == []
    assert "\x1b" not in page.source
    assert page.source.count("<title>") == 3  # of the page, and of two bars
    links = [attributes["href"] for attributes in page.all("a")]
    assert links == ["metrics.csv", "summary.json", "panels"]
    assert not any("src" in attributes and not attributes["src"].startswith("data:") for _, attributes in page.tags)
    assert "http" not in page.source.replace("http-equiv", "")
    assert "default-src 'none'" in page.source


def test_a_run_without_logs_and_pictures_has_what_there_is(explored_run):
    """The training itself has written it."""
    page = Page(explored_run / "index.html")
    assert "mlp_vae on Digits, seed 0" in page.text
    assert "Test set" in page.text
    assert "Learning curves" not in page.text
    assert page.all("img") == []
    assert not (explored_run / "panels").exists()


def test_a_training_names_its_page_and_writes_its_sentences(cli, tmp_path):
    """The last lines of the terminal name the page; a resumed run writes it again."""
    (tmp_path / "a.txt").write_text("".join(f"the {a} is {b}\n" for a in ("sky", "sea", "sun") for b in "abcdefgh"))
    words = (
        "model=text_vae", "data=text", "data.path=a.txt", "trainer.max_epochs=1", "logger=csv", "model.latent_dim=2",
        "hydra.run.dir=run", "callbacks.images.num_images=4", "callbacks.images.scale=2", "threads=1",
    )  # fmt: skip
    code, out, err, _ = cli(*words)
    run = tmp_path / "run"
    assert code == 0, err
    assert out.splitlines()[-1] == f"page: {run / 'index.html'}"
    lines = (run / "panels" / "samples-0001.txt").read_text().splitlines()
    assert len(lines) == 4
    page = Page(run / "index.html")
    assert all(line in page.text for line in lines)
    assert {"reconstructions, after 1 epoch", "samples, after 1 epoch"} <= {image["alt"] for image in page.all("img")}
    assert page.source.count("Learning curves") == 1
    code, _, err, _ = cli("run=run", "trainer.max_epochs=2")
    assert code == 0, err
    resumed = Page(run / "index.html")
    assert "samples, after 2 epochs" in {image["alt"] for image in resumed.all("img")}
    assert len(re.findall("<circle", resumed.source)) == 2 * len(re.findall("<circle", page.source)) > 0


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")
def test_the_page_in_a_browser(run, page):
    """No column is cut off at 375 px, and dark mode changes the colours; there is no error and no request."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        backgrounds, faults = [], []
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport={"width": 375, "height": 800}, color_scheme=scheme, offline=True)
            shown = context.new_page()
            shown.on("console", lambda message: faults.append(message.text))
            shown.on("request", lambda request: faults.append(request.url) if request.url.startswith("http") else None)
            shown.goto((run / "index.html").as_uri())
            widths = "[...document.querySelectorAll('body *')].map(e => e.getBoundingClientRect().right)"
            assert shown.evaluate("document.documentElement.scrollWidth") == 375
            assert max(shown.evaluate(widths)) <= 375
            backgrounds.append(shown.evaluate("getComputedStyle(document.body).backgroundColor"))
        browser.close()
    assert backgrounds == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]
    assert faults == []


@pytest.mark.parametrize("values", [(5.0, 5.0), (-1e-9, 1e-9), (-1e6, 3.0), (0.1, 0.1000001)])
def test_charts_of_any_range(values):
    points = list(enumerate(values))
    assert "nan" not in line_chart({"train": points, "val": []}, "a", "nats")
    assert "nan" not in line_chart({"train": points[:1]}, "a", "nats")
    low, high = visible_range({"train": points})
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert all(low <= tick <= high for tick in ticks)
