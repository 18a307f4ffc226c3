"""Samples, reconstructions and codes of a trained model, from the command line."""

import numpy as np
import pytest
import torch
from conftest import train
from PIL import Image

import vaezoo
from vaezoo.data import Digits


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a trained run."""
    small = ("trainer.max_epochs=1", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]")
    return train(tmp_path_factory.mktemp("apply"), *small)


def test_samples(cli, run):
    """The number of images is right, they are a function of the seed, and the picture is not blank."""
    found = {}
    for seed in (0, 0, 1):
        code, out, _err, folder = cli("task=sample", f"run={run}", "num=5", f"seed={seed}")
        assert code == 0
        assert f"{folder}/samples.npz" in out
        images = np.load(folder / "samples.npz")["images"]
        assert images.shape == (5, 1, 8, 8)
        assert np.array_equal(found.setdefault(seed, images), images)
        assert np.asarray(Image.open(folder / "samples.png")).std() > 5
    assert not np.array_equal(found[0], found[1])


def test_reconstructions_and_codes(cli, run):
    """The arrays are those of the model's encode and decode on evenly spaced images of the split."""
    model, data = vaezoo.load(run), Digits(val_size=180, binarize="dynamic")
    data.setup()
    x = data.test.x[torch.arange(7) * 360 // 7].float()
    _code, _out, _err, folder = cli("task=reconstruct", f"run={run}", "num=7")
    arrays = np.load(folder / "reconstructions.npz")
    assert np.array_equal(arrays["images"], x.numpy())
    with torch.no_grad():
        codes = model.encode(x)
        assert arrays["reconstructions"] == pytest.approx(model.decode(codes).mean.numpy(), abs=1e-5)
    _code, _out, _err, folder = cli("task=encode", f"run={run}", "format=npz")
    arrays = np.load(folder / "codes.npz")
    assert arrays["z"].shape == (360, 20)
    assert arrays["z"][torch.arange(7) * 360 // 7] == pytest.approx(codes.numpy(), abs=1e-5)
    assert np.array_equal(arrays["label"], data.test.y.numpy())


def test_no_logger(cli, run):
    """``logger=none`` may be said again, as in the training."""
    code, _out, err, folder = cli("task=encode", f"run={run}", "logger=none")
    assert code == 0, err
    assert (folder / "codes.csv").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["task=sample", "num=0"], "num=0 should be an integer >= 1"),
        (["task=encode", "split=all"], "Digits has a published test set: use split=train, val or test, not all"),
        (["task=encode", "logger=csv"], "logger=csv cannot be changed: task=encode takes it"),
        (["task=encode", "model.latent_dim=3"], "model.latent_dim=3 cannot be changed: task=encode takes it"),
        (["task=report"], "task=report needs runs=PATH"),
        (["task=report", "runs=nowhere"], "runs=nowhere is not a folder"),
    ],
)
def test_mistakes(cli, run, words, sentence):
    code, _out, err, folder = cli(*words, *([f"run={run}"] if "report" not in words[0] else []))
    assert code == 1
    assert sentence in err
    assert folder is None  # a refused command leaves nothing behind
