"""The pictures on the pages of the models: joined, small, and written between the same marks each time."""

import json
import runpy

import numpy as np
import pytest
from conftest import REPO
from PIL import Image


@pytest.fixture
def gallery():
    return runpy.run_path(str(REPO / "docs" / "gallery.py"))


def test_pictures_stand_side_by_side_and_are_small(gallery, tmp_path):
    """Noise cannot be compressed, so it is shrunk until it fits."""
    rng = np.random.default_rng(0)
    for i, size in enumerate([(400, 500, 3), (300, 200, 3)]):
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(tmp_path / f"{i}.png")
    joined = gallery["join"]([tmp_path / "0.png", tmp_path / "1.png"])
    assert joined.size == (375 + gallery["GAP"] + 200, 300)
    assert joined.getpixel((380, 100)) == (255, 255, 255)
    gallery["save"](joined, tmp_path / "img" / "a.png")
    assert 10_000 < (tmp_path / "img" / "a.png").stat().st_size <= 100_000


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
