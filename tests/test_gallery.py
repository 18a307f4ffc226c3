"""The pictures on the pages of the models: joined, small, and written between the same marks each time."""

import json
import runpy

import numpy as np
import pytest
import torch
from conftest import REPO
from PIL import Image
from test_docs import check_command

from vaezoo.pictures import TITLE_HEIGHT, Display, heading_height, reconstructions
from vaezoo.pictures.look import COLORS
from vaezoo.seeding import isolated


@pytest.fixture
def gallery():
    return runpy.run_path(str(REPO / "docs" / "gallery.py"))


def test_pictures_are_small(gallery, tmp_path):
    """Noise cannot be compressed, so it is shrunk until it fits; a small picture keeps every pixel."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (300, 700, 3), np.uint8)
    gallery["save"](noise, tmp_path / "img" / "a.png")
    assert 10_000 < (tmp_path / "img" / "a.png").stat().st_size <= 100_000
    gallery["save"](noise[:100, :200], tmp_path / "img" / "a.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "img" / "a.png")), noise[:100, :200])


def test_pictures_are_drawn_from_the_checkpoint(gallery, explored_run):
    """The heading stands once, and the rest is what the present code draws; nothing is written into the run."""
    before = {path: path.stat().st_mtime_ns for path in explored_run.rglob("*")}
    run, subtitle = gallery["open_run"](explored_run, None)
    assert subtitle.startswith("mlp_vae on Digits, seed 0, ")
    assert subtitle.endswith(" epochs)")
    kinds, picture = gallery["draw"](run, subtitle)
    assert kinds == ["reconstructions", "samples", "traversals"]
    assert heading_height(picture) == TITLE_HEIGHT
    rules = (picture == COLORS["light"].rule).all(axis=(1, 2))
    assert rules.sum() == 1
    batch = next(iter(run.data.val_dataloader()))
    with torch.no_grad():
        expected = reconstructions(run.model, batch, 8, "", Display(run.data))
    body = expected[heading_height(expected) :]
    start = TITLE_HEIGHT + 19  # below the caption
    assert np.array_equal(picture[start : start + len(body), : body.shape[1]], body)
    assert {path: path.stat().st_mtime_ns for path in explored_run.rglob("*")} == before


def test_a_page_is_written_again_in_the_same_place(gallery, tmp_path, monkeypatch):
    page = tmp_path / "a.md"
    page.write_text("# a\n\n## Pictures\n\n<!-- gallery: a -->\n\nend\n")
    monkeypatch.setitem(gallery["write_page"].__globals__, "ZOO", tmp_path)
    for elbo in (-9.0, -8.04):
        summary = {"test": {"elbo": elbo, "kl": 2.0}, "units": {"elbo": {"unit": "nats per row"}}}
        (tmp_path / "summary.json").write_text(json.dumps(summary))
        gallery["write_page"]("a", "python run.py model=a", ["samples"], tmp_path)
    text = page.read_text()
    assert text.startswith("# a\n\n## Pictures\n\n<!-- gallery: a -->\n\n![samples](img/a.png)")
    assert text.endswith("```bash\npython run.py model=a\n```\n\n<!-- end of gallery -->\n\nend\n")
    assert text.count("test ELBO") == text.count("test ELBO -8.0 nats per row, KL 2.0 (one seed)") == 1


def test_the_strip_of_the_readme(explored_run, monkeypatch):
    """Its commands exist, and a row shows what the model draws."""
    monkeypatch.syspath_prepend(str(REPO / "docs"))
    strip = runpy.run_path(str(REPO / "docs" / "strip.py"))
    for words, _ in strip["ROWS"].values():
        check_command(words.split())
    run, _ = strip["open_run"](explored_run, None)
    picture = strip["draw"](run, "digits", "means")
    with torch.no_grad(), isolated(torch.device("cpu"), 1, "strip"):
        means = run.model.sample(14).mean
    pixels = (means * 255).round().to(torch.uint8)[:, 0].numpy().repeat(7, 1).repeat(7, 2)
    shown = [picture[-60:-4, 4 + 60 * i : 60 * (i + 1)] for i in range(14)]
    assert all(np.array_equal(cell[..., 0], image) for cell, image in zip(shown, pixels, strict=True))
