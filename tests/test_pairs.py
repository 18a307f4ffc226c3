"""Pairs of an image and a label or a caption: what is held out, what is missing, and every task of a trained model."""

import csv
import json

import numpy as np
import pytest
import torch
from conftest import config, train
from PIL import Image

from vaezoo.data import DigitLabels, GlyphNames, SpriteCaptions
from vaezoo.data.captions import CaptionedImages, hold_out, split_name
from vaezoo.data.images import ImageData
from vaezoo.data.splits import Split
from vaezoo.errors import ConfigError
from vaezoo.inference.imputation import impute
from vaezoo.instantiate import build
from vaezoo.models import MultimodalVAE
from vaezoo.runs.load import load
from vaezoo.runs.setup import match_data

COLORS, PLACES = ("red", "green", "blue"), ("left", "right", "middle")


class Bytes(ImageData):
    """Grey images; ``Bars`` makes them."""

    def read(self):
        raise NotImplementedError


class Bars(CaptionedImages):
    """Images (3, 4, 6): a bar of a color at a place, "a red bar at the left"; the same image twice as "copy"."""

    def __init__(self, num=180, **kwargs):
        super().__init__(Bytes(binarize="none"), **kwargs)
        self.class_names = list(COLORS)
        self.num = num

    def read_captioned(self):
        rows = torch.arange(self.num)
        color, place = rows % 3, rows // 3 % 3
        images = torch.zeros(self.num, 3, 4, 6, dtype=torch.uint8)
        images[rows, color, :, 2 * place] = 200
        images[:, 0, 0, 5] = (rows // 9).to(torch.uint8)  # so that images differ
        pairs = [(COLORS[c], PLACES[p]) for c, p in zip(color.tolist(), place.tolist(), strict=True)]
        captions = [f"a {color} bar at the {place}" for color, place in pairs]
        return Split(images, color), captions, list(pairs)


def bars(**kwargs):
    return Bars(**{"batch_size": 32, "val_size": 20, "held_out": 0.2, **kwargs})


# What is held out.


def test_each_property_stays_in_the_training_set():
    data = bars()
    data.setup()
    train, test = (set(data.keys(name)["caption"]) for name in ("train", "test"))
    train |= set(data.keys("val")["caption"])
    assert len(test) == 2
    assert not train & test
    words = set(" ".join(train).split())
    assert all(set(caption.split()) <= words for caption in test)
    assert data.report()["held-out captions"] == 2
    assert 0 not in data.test.x[:, 72:]  # no unknown word
    again = bars()
    again.setup()
    assert torch.equal(again.test.x, data.test.x)
    other = bars(split_seed=5)
    other.setup()
    assert other.test_set != data.test_set == again.test_set


def test_hold_out():
    pairs = {(f"letter {i}", f"accent {j}") for i in range(20) for j in range(6) if (i + j) % 3} | {("alone", "rare")}
    chosen = hold_out(pairs, 0.3, 0)
    assert len(chosen) == round(0.3 * len(pairs))
    for place in (0, 1):
        assert {pair[place] for pair in pairs} == {pair[place] for pair in pairs - chosen}
    assert hold_out(pairs.copy(), 0.3, 0) == chosen
    more = hold_out(pairs | {("letter 0", "accent 9"), ("letter 1", "accent 9")}, 0.3, 0)
    assert len(more & chosen) > 0.8 * len(chosen)


def test_an_image_with_two_captions_is_not_in_the_test_set():
    """An image that the training set has with another caption has no single right one."""

    class Twice(Bars):
        def read_captioned(self):
            split, captions, pairs = super().read_captioned()
            x, y = torch.cat([split.x, split.x[:90]]), torch.cat([split.y, split.y[:90]])
            return Split(x, y), captions + ["another one"] * 90, pairs + [None] * 90

    data = Twice(held_out=0.2, val_size=20)
    data.setup()
    assert data.report()["test images left out, which training has with another caption"] == 20
    assert len(data.test.x) == 20


def test_letters_with_accents():
    assert split_name("latin small letter a with ring above and acute") == (
        "latin small letter a",
        "with ring above and acute",
    )
    assert split_name("greek small letter alpha") is None


# What a model sees.


def test_parts_of_x():
    """The parts are the image in [0, 1] and the tokens; padding is no missing entry, and a hidden part is NaN."""
    data = bars()
    data.setup()
    x = next(iter(data.test_dataloader())).x
    assert x.shape[1:] == (72 + 7,)
    assert list(data.layout.shapes.items()) == [("image", (3, 4, 6)), ("caption", (7,))]
    torch.testing.assert_close(255 * x[:, :72], data.test.x[:, :72].float())
    assert not x.isnan().any()
    assert data.texts(x) == data.keys("test")["caption"].tolist()
    hidden = bars(hide="caption")
    hidden.setup()
    other = next(iter(hidden.test_dataloader())).x
    assert torch.equal(other[:, :72], x[:, :72])
    assert other[:, 72:].isnan().all()
    assert hidden.texts(other[:2]) == ["?", "?"]
    assert not next(iter(hidden.train_dataloader())).x.isnan().any()
    assert hidden.test_set != data.test_set
    assert hidden.mask("image").sum() == 72
    assert torch.equal(hidden.mask("caption"), other[0].isnan())


def test_digit_labels():
    data = DigitLabels(val_size=180)
    data.setup()
    x, y = next(iter(data.test_dataloader()))
    assert torch.equal(x[:, 64], y.float())
    assert set(x[:, :64].unique().tolist()) == {0, 1}
    node = data.likelihood_config()
    assert node["layout"] == {"image": [1, 8, 8], "label": [1]}
    first, second = (next(iter(data.batches(data.train, 500, train=True))).x for _ in range(2))
    assert torch.equal(first, second)  # a function of the epoch
    static = DigitLabels(val_size=180, binarize="none")
    static.setup()
    assert static.likelihood_config()["families"]["image"]["_target_"] != node["families"]["image"]["_target_"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DigitLabels(source="mnst"), "data.source=mnst is unknown: did you mean data.source=mnist"),
        (lambda: DigitLabels(hide="caption"), "data.hide=caption is no part of the pairs"),
        (lambda: GlyphNames(held_out=2), r"data.held_out=2 should be in \(0, 1\)"),
        (lambda: SpriteCaptions(num=5), "data.num=5 should be >= 100"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_sprites_are_described():
    """The words agree with the pixels: the place of the center of mass and the number of lit pixels."""
    data = SpriteCaptions(num=600, held_out=0.1, val_size=20)
    data.setup()
    image, _ = data.take_apart(data.train.x)
    lit = (image[:, 0] > 0).double()
    place = torch.arange(32, dtype=torch.float64)
    x, y = ((lit.sum(dim) * place).sum(1) / lit.sum((1, 2)) for dim in (1, 2))
    captions = data.keys("train")["caption"]
    is_left, is_right, is_top, is_bottom, is_large = (
        torch.tensor([word in caption for caption in captions]) for word in ("left", "right", "top", "bottom", "large")
    )
    assert x[is_left].max() < x[is_right].min()
    assert y[is_top].max() < y[is_bottom].min()
    assert lit.sum((1, 2))[is_large].mean() > 2 * lit.sum((1, 2))[~is_large].mean()


@pytest.mark.parametrize("name", ["glyph_names", "sprite_captions", "digit_labels"])
def test_configs(name):
    """Every option of the config is one of the class."""
    node = config("data", f"data={name}")
    data = build(node, "data", seed=0)
    assert data.hide is None


# Missing modalities are filled in.


def test_a_caption_is_filled_in_as_one_value():
    """Of the draws of a caption the most frequent whole one is taken: not the most frequent word at each place."""

    class TwoWords(torch.nn.Module):
        def forward(self, x, context=None, num_samples=None):
            from vaezoo.trace import Trace

            draws = torch.tensor([[0.0, 2, 3], [0.0, 2, 3], [0.0, 4, 5], [0.0, 4, 6], [0.0, 4, 7]])

            class Px:
                mean = torch.zeros(5, 1, 3)

                def log_prob(self, x):
                    return torch.zeros(5, 1)

                def sample(self):
                    return draws.unsqueeze(1)

            return Trace(x, Px(), ())

    x = torch.tensor([[0.0, torch.nan, torch.nan]])
    is_category, group = torch.tensor([False, True, True]), torch.tensor([False, True, True])
    found = impute(TwoWords(), x, None, is_category, num_samples=5, num_draws=1)
    assert found.best.tolist()[0][:2] in ([0.0, 4.0], [0.0, 2.0])
    torch.manual_seed(0)
    whole = impute(TwoWords(), x, None, is_category, num_samples=5, num_draws=1, groups=[group])
    assert tuple(whole.best[0, 1:].tolist()) in {(2, 3), (4, 5), (4, 6), (4, 7)}


# A trained model and every task.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    small = ["model.encoder.hidden=[64]", "model.decoder.hidden=[64]", "model.hidden=[32]", "model.latent_dim=8"]
    words = [
        "data=digit_labels",
        "model=mvtcae",
        *small,
        "data.batch_size=16",
        "trainer.max_epochs=15",
        "optimizer.lr=4e-3",
        "trainer=cpu",
    ]
    return train(folder, *words)


def apply(folder, run, task, *words):
    import contextlib

    from vaezoo.cli import main

    with contextlib.chdir(folder):
        main([f"task={task}", f"run={run}", *words, f"hydra.run.dir={folder / 'out'}"])
    return folder / "out"


def test_labels_from_images(run, tmp_path):
    """A hidden label is found from the image, much better than by the most frequent label."""
    out = apply(tmp_path, run, "impute", "data.hide=label", "num_samples=20")
    summary = json.loads((out / "summary.json").read_text())
    error = summary["errors"]["label"]
    assert error["num"] == 360
    assert error["model"] < 0.4 < 0.8 < error["baseline"]
    rows = list(csv.DictReader((out / "imputed.csv").open()))
    wrong = [row["label"] != row["imputed_label"] for row in rows]
    assert [row["index"] for row in rows] == [str(i) for i in range(360)]
    assert sum(wrong) / 360 == pytest.approx(error["model"])
    assert np.asarray(Image.open(out / "imputed.png")).std() > 0


def test_what_cannot_be_measured_of_pairs(run, tmp_path):
    """A probe would read the label from a code of the label."""
    out = apply(tmp_path, run, "evaluate", "task.metrics=[probes,reconstruction]")
    left_out = json.loads((out / "summary.json").read_text())["left_out"]
    assert left_out["probes"] == "the encoder gets the label of a pair, from which the class follows"
    assert left_out["reconstruction"] == "PSNR and SSIM compare pictures, and DigitLabels has pairs"


def test_some_pairs_only(run, tmp_path, monkeypatch, capfd):
    """``num`` takes evenly spaced pairs; how long it takes is said; the arrays and their draws have the keys."""
    clock = iter(range(100, 300, 100))
    monkeypatch.setattr("vaezoo.evaluation.progress.measure_time", lambda device: next(clock))
    out = apply(tmp_path, run, "impute", "data.hide=image", "num_samples=20", "num=4", "draws=2")
    line = "impute of 4 pairs by 20 importance samples takes about 6.7 min (num and num_samples set how many)"
    assert line in capfd.readouterr().err
    arrays = np.load(out / "imputed.npz")
    rows = list(csv.DictReader((out / "imputed.csv").open()))
    assert arrays["index"].tolist() == [int(row["index"]) for row in rows] == [0, 90, 180, 270]
    assert arrays["label"].tolist() == [row["label"] for row in rows] == [row["imputed_label"] for row in rows]
    assert arrays["images"].shape == (4, 1, 8, 8)
    assert arrays["draws"].shape == (4, 2, 65)
    assert set(np.unique(arrays["draws"][..., :64])) == {0, 1}
    errors = json.loads((out / "summary.json").read_text())["errors"]["image"]
    assert errors["num"] == 4


def test_images_from_labels(run):
    """A hidden image is made from the label: nearer to the true one than the mean image is."""
    data, model = DigitLabels(hide="image", val_size=180), load(run)
    data.setup()
    hidden = next(iter(data.test_dataloader())).x
    data.test = data.test.select(torch.arange(len(hidden)))
    best = impute(model, hidden, None, data.is_category, num_samples=50).best
    error = data.imputation_errors(best, "test", torch.arange(len(hidden)))["image"]
    assert error["num"] == len(hidden)
    assert error["model"] < error["baseline"]


@pytest.mark.parametrize(
    ("task", "words", "files"),
    [
        ("sample", ["num=8"], ["samples.npz", "samples.png", "samples.txt"]),
        ("reconstruct", ["num=8"], ["reconstructions.csv", "reconstructions.png"]),
        ("encode", [], ["codes.csv"]),
    ],
)
def test_tasks(run, tmp_path, task, words, files):
    out = apply(tmp_path, run, task, *words)
    assert all((out / name).stat().st_size > 0 for name in files)
    if task == "sample":
        assert len((out / "samples.txt").read_text().splitlines()) == 8
    if task == "reconstruct":
        rows = list(csv.DictReader((out / "reconstructions.csv").open()))
        assert {"index", "label", "distortion_at_code", "reconstructed_label"} <= rows[0].keys()


def test_other_models_take_pairs():
    """A model with one encoder for all of x takes pairs, too; the multimodal VAE refuses images in one sentence."""
    overrides = ["data=digit_labels", "model=mlp_vae", "model.latent_dim=3", "model/likelihood=auto"]
    full = {key: config(key, *overrides) for key in ("data", "model")} | {"allow_packages": [], "seed": 0}
    full["model"]["likelihood"] = {"_target_": "auto"}
    matched, data = match_data(full)
    data.setup()
    model = build(matched["model"], "model")
    assert model(next(iter(data.test_dataloader())).x).elbo.isfinite().all()
    full["model"] = config("model", "model=multimodal_vae", "data=digit_labels") | {"likelihood": {"_target_": "auto"}}
    assert isinstance(build(match_data(full)[0]["model"], "model"), MultimodalVAE)
