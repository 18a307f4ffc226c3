"""Models that are given labels, from the command line and in Python: their classes by name, and mistakes."""

import csv
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import train
from PIL import Image

from vaezoo.data import AudioData, TableData
from vaezoo.errors import ConfigError
from vaezoo.models import CVAE, M2VAE, VAE
from vaezoo.models.checks import check_same_data
from vaezoo.pictures.grid import MIN_IMAGE_SIZE
from vaezoo.pictures.look import GAP
from vaezoo.tasks.apply import find_classes

CLASSES = ["apples", "bees", "clouds"]
SMALL = ("trainer.max_epochs=1", "data.batch_size=32")
MLP = ("model/encoder=mlp", "model/decoder=mlp", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return train(tmp_path_factory.mktemp("digits"), "model=cvae", *SMALL, *MLP)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A run of sentences in a folder with a file for each class."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "new").mkdir()
    for name in CLASSES:
        lines = [f"{name} are {word} in {place}\n" for word in ("red", "blue", "big", "old") for place in "abcdefg"]
        (folder / "new" / f"{name}.txt").write_text("".join(lines))
    (folder / "one_class.txt").write_text("bees are red in a\n" * 3)
    (folder / "one_line.txt").write_text("bees are red in a\n")
    data = ("data=text", f"data.path={folder}/new", "model.num_classes=3", "model.latent_dim=2")
    return train(folder, "model=text_cvae", *data, *SMALL)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    lines = [f"{i % 7},{i % 5},{CLASSES[i % 3]}\n" for i in range(60)]
    (folder / "t.csv").write_text("a,b,kind of cloud\n" + "".join(lines))
    data = ("data=table", f"data.path={folder}/t.csv", "data.label=kind of cloud", "model.num_classes=3")
    return train(folder, "model=cvae", *data, *SMALL, *MLP)


def sampled(cli, run, *words):
    code, out, err, folder = cli("task=sample", f"run={run}", "num=6", *words)
    assert code == 0, err
    return out, folder, np.load(folder / "samples.npz")


def test_samples_of_one_class(cli, digits, monkeypatch):
    """They have the z of the samples of all classes, and a table says their class."""
    titles = []
    monkeypatch.setattr("vaezoo.pictures.grid.add_heading", lambda picture, title, *_: titles.append(title) or picture)
    _, _, of_all = sampled(cli, digits)
    assert of_all["labels"].tolist() == [0, 1, 2, 3, 4, 5]
    out, folder, of_three = sampled(cli, digits, "label=3")
    assert of_three["labels"].tolist() == [3] * 6
    with Image.open(folder / "samples.png") as picture:
        assert picture.size == (GAP + 6 * (MIN_IMAGE_SIZE + GAP), GAP + MIN_IMAGE_SIZE + GAP)
    of_z = "means of p(x | z, y) for z ~ p(z)"
    assert titles == [of_z, f"{of_z}, class 3"]
    assert np.array_equal(of_three["images"][3], of_all["images"][3])
    assert not np.array_equal(of_three["images"][2], of_all["images"][2])
    assert str(folder / "samples-labels.csv") in out.splitlines()
    assert (folder / "samples-labels.csv").read_text().split() == ["index,label", *(f"{i},3" for i in range(6))]


@pytest.mark.parametrize(("split", "word"), [("test", "test"), ("val", "validation"), ("train", "training")])
def test_reconstructions_say_of_which_set(cli, digits, monkeypatch, split, word):
    titles = []
    monkeypatch.setattr("vaezoo.pictures.grid.add_heading", lambda picture, title, *_: titles.append(title) or picture)
    code, _, err, _ = cli("task=reconstruct", f"run={digits}", "num=2", f"split={split}")
    assert code == 0, err
    assert titles == [f"{word} images, and below each its reconstruction: the mean of p(x | z, y) at its code z"]


def test_a_text_says_its_class(cli, texts):
    _, folder, arrays = sampled(cli, texts, "label=[clouds,0]")
    assert [line.split("\t")[0] for line in (folder / "samples.txt").open()] == ["apples", "clouds"] * 3
    assert arrays["labels"].tolist() == [0, 2] * 3
    _, folder, arrays = sampled(cli, texts)
    assert [line.split("\t")[0] for line in (folder / "samples.txt").open()] == CLASSES * 2


def test_a_row_says_its_class(cli, rows):
    _, folder, _ = sampled(cli, rows, "label=bees")
    with (folder / "samples.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["kind of cloud"] for row in table] == ["bees"] * 6
    assert list(table[0]) == ["a", "b", "kind of cloud"]


@pytest.mark.parametrize(
    ("names", "label", "sentence"),
    [
        (None, 10, "label=10 is no class of the model, whose classes are 0 to 9"),
        (None, [1, "bees"], "label=bees is no class of the model, whose classes are 0 to 9"),
        (None, [], "label=[] names no class: leave it out for all"),
        (
            CLASSES,
            "bears",
            "label=bears is no class of the model, whose classes are apples, bees, clouds, or their num",
        ),
        (CLASSES * 3, 9, "classes are apples, bees, clouds, apples, bees, clouds and 3 more, or their numbers"),
    ],
)
def test_an_unknown_class(names, label, sentence):
    data = SimpleNamespace(class_names=names, test=SimpleNamespace(y=torch.arange(3)))
    model = CVAE((1, 4, 4), latent_dim=2, num_classes=10)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        find_classes(SimpleNamespace(model=model, data=data), label)


def test_a_refused_class_leaves_no_folder(cli, digits):
    code, _, err, folder = cli("task=sample", f"run={digits}", "label=10")
    assert (code, len(err.splitlines()), folder) == (1, 1, None)


def test_a_model_without_labels_has_no_classes():
    data = SimpleNamespace(class_names=None, test=SimpleNamespace(y=torch.arange(3)))
    run = SimpleNamespace(model=VAE((1, 4, 4), latent_dim=2), data=data, path="RUN/best.ckpt")
    with pytest.raises(
        ConfigError, match=r"^label=3: the model of RUN/best\.ckpt is given no labels; those of model=cvae"
    ):
        find_classes(run, 3)


def test_new_texts_need_the_classes_of_the_training(cli, texts):
    """The message says how labels are given, and which there are."""
    new = texts.parent / "one_class.txt"
    code, _, err, _ = cli("task=score", f"run={texts}", "data=text", f"data.path={new}")
    assert code == 1
    assert "data.path names a folder with a file CLASS.txt for each class, with the classes of the training" in err
    assert "(apples, bees, clouds)" in err
    code, out, err, _ = cli("task=score", f"run={texts}", "data=text", f"data.path={texts.parent}/new", "num=3")
    assert code == 0, err
    assert "class " in out


def test_a_file_with_too_few_lines_is_named(cli, texts):
    file = texts.parent / "one_line.txt"
    code, _, err, _ = cli("model=text_vae", "data=text", f"data.path={file}")
    assert code == 1
    assert f"error: data.path={file}: there is 1 example and 1 different ones: give at least 3 different ones" in err


@pytest.mark.parametrize("labels", [99, [0, 1, 2, 3, 10], torch.full((5,), 99), np.array([0, 0, 0, 0, -1])])
def test_labels_out_of_range_in_python(labels):
    """One sentence, from each method."""
    model = CVAE((1, 4, 4), latent_dim=2, num_classes=10)
    for use in (lambda: model.sample(5, labels), lambda: model.decode(torch.zeros(5, 2), context=labels),
                lambda: model.encode(torch.zeros(5, 1, 4, 4), labels)):  # fmt: skip
        with pytest.raises(ValueError, match=r"the model has 10 classes, 0 to 9, but a label is (99|10|-1)$"):
            use()


def test_one_label_is_that_of_all_examples():
    model = CVAE((1, 4, 4), latent_dim=2, num_classes=10).eval()
    z = torch.randn(3, 2)
    assert torch.equal(model.decode(z, 7).mean, model.decode(z, torch.full((3,), 7)).mean)
    assert model.sample(4, context=9).mean.shape == (4, 1, 4, 4)
    model = M2VAE((1, 4, 4), latent_dim=2, num_classes=3, alpha=0.1)
    model.sample(2, [-1, 2])  # a missing label is any class
    with pytest.raises(ValueError, match="but a label is 3"):
        model.sample(2, [-1, 3])


def test_units_are_those_of_the_numbers(digits, rows):
    """summary.json describes no number that the run lacks."""
    for run in (digits, rows):
        summary = json.loads((run / "summary.json").read_text())
        present = {name.split("/")[0] for name in (*summary, *summary["test"], *summary["last_val"])}
        assert set(summary["units"]) <= present
        assert {"elbo", "elbo_error", "kl", "log_px", "active_units", "wall_seconds"} <= set(summary["units"])
        assert summary["units"]["elbo"]["meaning"] == "evidence lower bound of log p(x | y)"


def test_data_that_are_prepared_in_another_way_are_not_resumed(cli, rows, monkeypatch):
    """As by another version, whose checkpoints do not say what they do not do."""
    before = AudioData(root="x", features="log_mel")
    known = {"rate": 8000, "features": "log_mel", "shape": [1, 4, 9]}
    with pytest.raises(ValueError, match="the data are prepared in another way than when the checkpoint was written"):
        check_same_data(known, known | {"loc": [0.5], "scale": 2.0}, before)
    check_same_data(known | {"loc": [0.5], "scale": 2.0}, known | {"loc": [0.5], "scale": 2.0}, before)
    check_same_data({}, known, before)  # of a version that described nothing
    describe = TableData.describe
    monkeypatch.setattr(TableData, "describe", lambda self: describe(self) | {"form": 2})
    monkeypatch.setattr(TableData, "encoding", lambda self, description: description.get("form"))
    code, _, err, _ = cli(f"run={rows}", "trainer.max_epochs=2", f"data.path={rows.parent}/t.csv")
    assert code == 1
    assert "error: the data are prepared in another way than when the checkpoint was written" in err
