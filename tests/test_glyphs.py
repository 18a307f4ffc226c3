"""Tests of the images of letters: which letters, how they look, and their labels."""

import hashlib
import unicodedata

import numpy as np
import PIL
import pytest
import torch
from conftest import config

from vaezoo.data import Glyphs
from vaezoo.data.glyphs import FONTS, characters, draw
from vaezoo.errors import ConfigError


@pytest.fixture(scope="module")
def glyphs():
    data = Glyphs(binarize="none")
    data.setup()
    return data


def splits_of(data):
    return data.train, data.val, data.test


def test_number_of_images(glyphs):
    """About 20,000 images of 1,700 letters in 16 fonts; the exact pixels with the versions that were measured."""
    import matplotlib

    num = sum(len(split.x) for split in splits_of(glyphs))
    assert len(FONTS) == 16
    assert num == pytest.approx(20_359, rel=0.02)
    assert len(glyphs.letters) == pytest.approx(1682, rel=0.02)
    assert glyphs.train.x.float().mean() == pytest.approx(14.2, rel=0.1)
    versions = (matplotlib.__version__.split(".")[:2], PIL.__version__.split(".")[0], unicodedata.unidata_version)
    if versions == (["3", "11"], "13", "14.0.0"):
        images, _ = glyphs.read_all()
        assert hashlib.sha256(images.x.numpy().tobytes()).hexdigest()[:16] == "2be0931880fd4f7c"


def test_no_letter_is_blank_missing_or_cut(glyphs):
    """Each image has ink, is not the box of missing letters, and no letter goes beyond the image."""
    for font in FONTS:
        assert "A" in characters(font)
        (box,) = draw(font, ["\U0010fffe"], 32)  # no font has this one
        images = draw(font, characters(font), 32)
        assert (images > 0).flatten(1).any(1).all()
        assert not (images == box).flatten(1).all(1).any()
        large = np.array([[len(row.nonzero()) for row in draw(font, [text], 64)] for text in ("g", "Å")])
        assert large.min() > 0
    x = torch.cat([split.x for split in splits_of(glyphs)])
    border = torch.cat([x[:, 0, 0], x[:, 0, -1], x[:, 0, :, 0], x[:, 0, :, -1]], 1)
    assert (border.amax(1) > 128).float().mean() < 1e-3


def test_letters_look_as_they_should():
    """Independent facts: O has a hole, I is narrower than M, bold has more ink, an accent is above the letter."""
    images = dict(zip("OIMaä", draw("DejaVuSans", list("OIMaä"), 32)[:, 0].float() / 255, strict=True))
    lit = {text: (image > 0.5).nonzero() for text, image in images.items()}
    center = lit["O"].float().mean(0).round().long()
    assert images["O"][center[0], center[1]] == 0
    widths = {text: int(points[:, 1].max() - points[:, 1].min()) for text, points in lit.items()}
    assert widths["I"] < widths["O"] < widths["M"] + 3
    assert lit["ä"][:, 0].min() < lit["a"][:, 0].min()
    assert torch.equal(images["ä"][15:], images["a"][15:])  # one base line
    bold = draw("DejaVuSans-Bold", ["O"], 32).sum()
    assert bold > 1.2 * draw("DejaVuSans", ["O"], 32).sum()


def test_equal_images_are_on_one_side(glyphs):
    """The Latin, Greek and Cyrillic A of a font are one image."""
    assert torch.equal(*draw("DejaVuSans", ["A", "\u0391"], 32))
    sets = [{bytes(image.numpy()) for image in split.x} for split in splits_of(glyphs)]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]


def test_labels(glyphs):
    """The label is the letter, with its name, or the font."""
    names = glyphs.describe()["class_names"]
    assert names == [unicodedata.name(letter) for letter in glyphs.letters]
    (number,) = [number for number, name in enumerate(names) if name == "LATIN SMALL LETTER O WITH DIAERESIS"]
    images, labels = glyphs.read_all()[0]
    assert torch.equal(images[labels == number][0], draw(FONTS[0], ["ö"], 32)[0])
    fonts = Glyphs(label="font", size=16)
    images, labels = fonts.read_all()[0]
    assert fonts.describe()["class_names"] == list(FONTS)
    assert torch.bincount(labels).tolist() == [len(characters(font)) for font in FONTS]
    start = int((labels == 3).nonzero()[0])
    assert torch.equal(images[start], draw(FONTS[3], characters(FONTS[3])[:1], 16)[0])


def test_options():
    with pytest.raises(ConfigError, match=r"did you mean data.label=font"):
        Glyphs(label="fonts")
    with pytest.raises(ConfigError, match=r"data.size=4 should be >= 8"):
        Glyphs(size=4)
    node = config("data", "data=glyphs")
    assert node.pop("_target_") == "vaezoo.data.Glyphs"
    data, default = Glyphs(**node), Glyphs(shape=(1, 32, 32), batches_per_step=8, binarize="auto")
    for name in node:
        assert getattr(data, name) == getattr(default, name), name
