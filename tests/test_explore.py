"""The page to look at a trained model: what it computes, and what it does in a browser."""

import base64
import io
import json
import math
import os
import pickle
import re
import signal
import socket
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import RandomImages
from PIL import Image

from vaezoo.data import AudioData, TextData
from vaezoo.errors import ConfigError
from vaezoo.explore.cards import Cards
from vaezoo.explore.compute import Explorer
from vaezoo.explore.planes import axis_plane, pca_plane
from vaezoo.families import Bernoulli, Normal
from vaezoo.models import VAE, VQVAE
from vaezoo.nets import MLP
from vaezoo.pictures import to_rgb
from vaezoo.priors import MixtureOfNormals
from vaezoo.runs.checkpoint import find_checkpoint, read_checkpoint
from vaezoo.runs.trained import TrainedRun, load_run
from vaezoo.tasks import explore as task


@pytest.fixture(scope="module")
def run(explored_run):
    path = find_checkpoint(explored_run)
    checkpoint = read_checkpoint(path)
    return load_run(checkpoint["vaezoo_config"] | {"run_dir": str(explored_run)}, path, checkpoint)


@pytest.fixture(scope="module")
def explorer(run):
    return Explorer(run, None)


def untrained(model, data):
    """Return a run of a model that was not trained."""
    data.setup()
    return TrainedRun({"seed": 0, "name": "model"}, model.eval(), data, trainer=None, path=Path("best.ckpt"))


# What it computes.


def test_dimensions_are_ordered_by_the_run_s_own_kl(explored_run, explorer):
    test = json.loads((explored_run / "summary.json").read_text())["test"]
    kl = np.array([test[f"kl_dim/{d:03d}"] for d in range(14)])
    assert explorer.axes.usage.numpy() == pytest.approx(kl, rel=1e-5)
    assert explorer.order == np.argsort(-kl).tolist()


def test_decoding_a_code_is_the_task_reconstruct(cli, explored_run, run):
    code, _out, _err, folder = cli("task=reconstruct", f"run={explored_run}", "num=7")
    assert code == 0
    arrays, seven = np.load(folder / "reconstructions.npz"), Explorer(run, 7)
    assert np.array_equal(arrays["images"], seven.x.numpy())
    for i, expected in enumerate(arrays["reconstructions"]):
        example = seven.example(i)
        shown = seven.show(seven.decode(seven.encode(example), example))
        assert shown[0].numpy() == pytest.approx(expected, abs=1e-6)
    assert seven.reconstruct().numpy() == pytest.approx(arrays["reconstructions"], abs=1e-6)


@pytest.mark.parametrize("kind", ["axes", "pca"])
def test_planes(kind):
    """A point of the plane is its own projection, and what the projection leaves out is orthogonal to the plane."""
    codes = torch.randn(50, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64) + 3
    plane = axis_plane(codes.mean(0), 4, 1) if kind == "axes" else pca_plane(codes)
    points = torch.randn(9, 2, dtype=torch.float64)
    assert torch.allclose(plane.project(plane.inverse(points)), points)
    left = codes - plane.inverse(plane.project(codes))
    assert float((left @ plane.basis.T).abs().max()) < 1e-9
    if kind == "axes":
        assert torch.equal(plane.project(codes), codes[:, [4, 1]])
        assert torch.allclose(plane.inverse(points)[:, [0, 2, 3, 5]], codes.mean(0)[[0, 2, 3, 5]].expand(9, 4))
        return
    values = torch.linalg.svdvals(codes - codes.mean(0))
    assert float(left.square().sum()) == pytest.approx(float(values[2:].square().sum()))  # no other plane is nearer


def test_the_temperature_scales_the_standard_deviation_of_the_prior(explorer):
    model, example = explorer.model, explorer.example(0)
    try:
        model.prior.loc.fill_(2.0)
        draws = {}
        for temperature in (0.0, 1.0, 3.0):
            explorer.num_draws = 0
            draws[temperature] = explorer.draw_code(example, temperature)
        assert torch.equal(draws[0.0], torch.full((1, 14), 2.0))
        assert torch.allclose(draws[3.0] - 2, 3 * (draws[1.0] - 2), atol=1e-6)
        many = torch.cat([explorer.draw_code(example, 0.5) for _ in range(400)])
        assert float(many.mean()) == pytest.approx(2, abs=4 * 0.5 / math.sqrt(400 * 14))
        assert float(many.std()) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(2 * 400 * 14))
    finally:
        model.prior.loc.fill_(0.0)


def test_a_slider_moves_one_dimension(explorer):
    z = explorer.encode(explorer.example(3))
    before, after = explorer.steps(z), explorer.steps(explorer.move(z, 2, -1.5))
    assert before == pytest.approx([float(z[0, d]) for d in explorer.order])  # p(z) is standard normal
    assert after == pytest.approx([*before[:2], -1.5, *before[3:]])


def test_the_way_has_both_ends(explorer):
    first, last = explorer.example(0), explorer.example(200)
    way = explorer.show(explorer.interpolate(first, last))
    ends = [explorer.show(explorer.decode(explorer.encode(end), first))[0] for end in (first, last)]
    assert way.shape == (9, 1, 8, 8)
    assert torch.allclose(way[0], ends[0], atol=1e-6)
    assert torch.allclose(way[8], ends[1], atol=1e-6)


def test_models_without_a_vector_have_no_sliders_and_say_why():
    data = RandomImages((1, 4, 4), binarize="none")
    codes = Explorer(untrained(VQVAE((1, 4, 4), 2, 3, 8, commitment=0.25, decay=0.99, restart_below=0.01), data), 20)
    assert codes.order == []
    assert codes.no_sliders == (
        "no sliders: a code of this model is 3x2 numbers from a codebook, which have no values in between"
    )
    assert not codes.can_mix
    assert codes.draw_code(codes.example(0)) is None
    assert codes.draw_example(codes.example(0)).mean.shape == (1, 1, 4, 4)
    assert [plane.name for plane in codes.planes] == ["PCA of the codes"]
    data = RandomImages((1, 4, 4), binarize="none")
    maps = Explorer(untrained(VAE((1, 4, 4), (2, 2)), data), 20)
    assert maps.no_sliders.endswith("a code of this model is an array of 2x2 numbers, and not a vector")
    assert maps.draw_code(maps.example(0)).shape == (1, 2, 2)


def test_a_prior_without_dimensions_is_ordered_by_the_variance_of_the_codes():
    data = RandomImages((1, 4, 4), binarize="none")
    model = VAE((1, 4, 4), 3, prior=lambda shape, posterior: MixtureOfNormals(shape, posterior, 4))
    mixture = Explorer(untrained(model, data), None)
    variance = mixture.codes.var(0)
    assert mixture.axes.usage_name == "variance"
    assert torch.allclose(mixture.axes.usage, variance)
    assert mixture.order == variance.argsort(descending=True).tolist()
    assert mixture.draw_code(mixture.example(0), 0.0)[0].tolist() == pytest.approx(
        model.prior().mean.detach().tolist(), abs=1e-5
    )


# Examples that are read, and how they are shown.


class Trap:
    """Leaves a file if a pickle of it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_picture_is_prepared_as_the_training_was(explorer, tmp_path):
    pixels = (255 * (np.arange(64).reshape(8, 8) % 3 == 0)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((16, 16), Image.Resampling.NEAREST).save(file, "PNG")
    example = explorer.read_file("digit.PNG", file.getvalue(), explorer.y[:1])
    assert example.x.shape == (1, 1, 8, 8)
    assert set(example.x.unique().tolist()) <= {0.0, 1.0}  # this model sees bits
    exact = io.BytesIO()
    Image.fromarray(pixels).save(exact, "PNG")
    assert np.array_equal(explorer.read_file("a.png", exact.getvalue(), explorer.y[:1]).x[0, 0], pixels / 255)
    trap = pickle.dumps(Trap(tmp_path / "trapped"))
    for name, content in [
        ("page.html", b"<script>alert(1)</script>"),
        ("../../digit.pt", trap),
        ("trap.png", trap),
        ("short.png", exact.getvalue()[:-20]),
        ("empty.jpg", b""),
    ]:
        with pytest.raises(ConfigError, match=r"cannot be read") as error:
            explorer.read_file(name, content, explorer.y[:1])
        assert "\n" not in str(error.value)
    assert not (tmp_path / "trapped").exists()


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Return sounds of two frames each."""
    folder = tmp_path_factory.mktemp("sounds")
    for i in range(4):
        wave = 0.5 * np.sin(np.arange(400) * (i + 1) / 9)
        soundfile.write(folder / f"{i}.wav", wave, 8000, subtype="PCM_16")
    return folder


def test_a_sound_is_read_and_played(sounds):
    data = AudioData(root=str(sounds), frame=200)
    speaker = Explorer(untrained(VAE((1, 200), 3, likelihood=Normal()), data), None)
    file = io.BytesIO()
    wave = (np.arange(200) - 100) / 2**8
    soundfile.write(file, wave, 8000, subtype="PCM_16", format="WAV")
    example = speaker.read_file("own.wav", file.getvalue(), speaker.y[:1])
    assert np.array_equal(example.x[0, 0].numpy(), wave.astype(np.float32))
    (card,) = Cards(data)(example.x)
    played, rate = soundfile.read(io.BytesIO(base64.b64decode(re.search('audio/wav;base64,([^"]+)', card)[1])))
    assert rate == 8000
    assert played == pytest.approx(wave, abs=1 / 2**15)
    assert "<img" in card
    short = io.BytesIO()
    soundfile.write(short, wave[:100], 8000, format="WAV")
    with pytest.raises(ConfigError, match=r"the sound has 0.0125 s, less than a frame, 0.025 s"):
        speaker.read_file("short.wav", short.getvalue(), speaker.y[:1])
    with pytest.raises(ConfigError, match=r"the sound cannot be read"):
        speaker.read_file("own.wav", b"RIFF" + bytes(60), speaker.y[:1])


def test_sentences_are_read_and_escaped(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("".join(f"<script> no {i} & yes\n" for i in range(60)))
    data = TextData(path=str(file), tokens="character")
    data.setup()
    (card,) = Cards(data)(data.encode_line("<script> no & yes")[None])
    assert ">&lt;script&gt; no &amp; yes</p>" in card
    model = VAE((data.shape[0],), 2, encoder=MLP, likelihood=Bernoulli())
    speaker = Explorer.__new__(Explorer)  # its own sentence needs no codes
    speaker.model, speaker.data = model, data
    assert torch.equal(speaker.read_line("no 3", torch.tensor([-1])).x[0], data.encode_line("no 3"))


def test_pictures_and_rows(explorer):
    (card,) = Cards(explorer.data)(explorer.x[:1])
    content = base64.b64decode(re.search('image/png;base64,([^"]+)', card)[1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), to_rgb(explorer.x[:1])[0])


# The task.


def files_of(folder):
    return sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.name != ".lock")


def test_the_server_stops_with_a_signal_and_leaves_nothing(cli, explored_run, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    before, address = files_of(explored_run), f"http://127.0.0.1:{port}/"

    def interrupt():
        for _ in range(1000):
            try:
                pages.append(urllib.request.urlopen(address, timeout=10).read().decode())
                break
            except OSError:  # it has not started
                time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    pages = []
    threading.Thread(target=interrupt, daemon=True).start()
    code, out, err, folder = cli("task=explore", f"run={explored_run}", f"port={port}", "open=false", "num=20")
    assert code == 130
    assert out == f"the page is at {address} (Ctrl-C stops it)\n"
    assert "mlp_vae on Digits" in pages[0]
    assert "stopped by SIGINT" in err
    assert folder is None
    assert files_of(explored_run) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num": 0}, "num=0 should be an integer >= 1"),
        ({"port": 70000}, "port=70000 should be an integer from 0 to 65535"),
        ({"save": "a.html", "second": "other"}, "save writes the page of one run"),
    ],
)
def test_mistakes(options, sentence):
    usual = {"split": "test", "num": 1000, "second": None, "port": 0, "open": False, "save": None}
    with pytest.raises(ConfigError, match=sentence):
        task.explore({}, **usual | options)


def test_a_second_run_has_the_same_data(run, monkeypatch):
    monkeypatch.setattr(task, "open_run", lambda *arguments: replace(run, chosen="val"))
    with pytest.raises(ConfigError, match=r"with=B has another test set than .*: name a run of the same data"):
        task.open_second({}, run, "B")
    monkeypatch.setattr(task, "open_run", lambda *arguments: run)
    assert task.open_second({}, run, "B") is run
