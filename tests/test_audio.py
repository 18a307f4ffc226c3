"""Tests of the data module of sounds: frames, splits by file, bad files, and what a user gets."""

import json
import os

import numpy as np
import pytest
import soundfile
import torch
from conftest import config

from vaezoo.data import AudioData
from vaezoo.data.mel import log_mel
from vaezoo.errors import ConfigError
from vaezoo.instantiate import build

RATE, FRAME = 8000, 100


def write_sounds(folder, num=30, length=950, classes=("low", "high")):
    """Write noises of different sizes: sound number i has 16-bit samples of its own."""
    rng = np.random.default_rng(0)
    sounds = {}
    for i in range(num):
        name = f"{classes[i % len(classes)]}/{i}.wav"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        sounds[name] = rng.integers(-(2**15), 2**15, length, dtype=np.int16)
        soundfile.write(folder / name, sounds[name], RATE)
    return sounds


def make(folder, **options):
    return AudioData(root=str(folder), **{"frame": FRAME, "batch_size": 16, **options})


def ready(data):
    data.setup()
    return data


def splits_of(data):
    return data.train, data.val, data.test


def test_frames_are_the_parts_of_the_files(tmp_path):
    """Each whole frame once, scaled exactly, with the class of its sub-folder; the rest of a file is left out."""
    sounds = write_sounds(tmp_path)
    data = ready(make(tmp_path))
    found = {
        bytes(frame.numpy()): data.class_names[label]
        for split in splits_of(data)
        for frame, label in zip(split.x, split.y, strict=True)
    }
    expected = {}
    for name, samples in sounds.items():
        for start in range(0, 900, FRAME):
            frame = (samples[start : start + FRAME] / 2**15).astype(np.float32)
            expected[bytes(frame)] = name.split("/")[0]
    assert found == expected
    assert sum(len(split.x) for split in splits_of(data)) == 30 * 9
    assert (data.noun, data.data_kind, data.shape) == ("sound", "real", (1, FRAME))
    assert data.train.x.dtype == torch.float32
    report = data.report()
    assert report["seconds of sound"] == pytest.approx(30 * 950 / RATE, abs=1e-3)
    assert report["seconds left out at the ends"] == pytest.approx(30 * 50 / RATE, abs=1e-3)
    assert report["classes"] == {"low": 135, "high": 135}
    assert json.dumps([report, data.describe()])


def test_the_split_is_by_file(tmp_path):
    """All frames of a file, and of its copies, are in one set; the set stays when files are removed."""
    sounds = write_sounds(tmp_path)
    for name in list(sounds)[:10]:
        (tmp_path / name).with_suffix(".copy.wav").write_bytes((tmp_path / name).read_bytes())
    data = ready(make(tmp_path))
    assert data.report()["duplicate files"] == 10
    sets = [{bytes(frame.numpy()) for frame in split.x} for split in splits_of(data)]
    for samples in sounds.values():
        frames = [bytes((samples[at : at + FRAME] / 2**15).astype(np.float32)) for at in range(0, 900, FRAME)]
        assert sorted(sum(frame in frames_of_set for frame in frames) for frames_of_set in sets) == [0, 0, 9]
    for name in list(sounds)[:20:3]:
        (tmp_path / name).unlink()
        (tmp_path / name).with_suffix(".copy.wav").unlink(missing_ok=True)
    fewer = ready(make(tmp_path))
    assert {bytes(frame.numpy()) for frame in fewer.train.x} <= sets[0]


def test_rates_channels_and_lengths(tmp_path):
    """Files with another rate are resampled if a rate is given; channels are mixed; short files are counted."""
    write_sounds(tmp_path, 12)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(4000) / (2 * RATE))
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone, tone], 1), 2 * RATE)
    soundfile.write(tmp_path / "short.wav", tone[:30], RATE)
    soundfile.write(tmp_path / "silent.wav", 0 * tone, RATE)
    with pytest.raises(ConfigError, match=r"several rates, 8000 Hz \(14\), 16000 Hz \(1\): choose one with data.rate"):
        ready(make(tmp_path))
    data = ready(make(tmp_path, rate=RATE))
    report = data.report()
    assert report["resampled files"] == 1
    assert report["files with several channels, mixed"] == 1
    assert report["files shorter than a frame, left out"] == 1
    assert report["silent frames"] == 40
    frames = torch.cat([split.x for split in splits_of(data)])
    assert len(frames) == 12 * 9 + 20 + 40
    expected = (0.5 * np.sin(2 * np.pi * 440 * np.arange(500, 600) / RATE)).astype(np.float32)
    assert (frames[:, 0] - torch.from_numpy(expected)).abs().amax(1).min() < 2e-3


def test_a_frame_in_seconds(tmp_path):
    write_sounds(tmp_path)
    assert ready(make(tmp_path, seconds=0.05)).shape == (1, 400)
    with pytest.raises(
        ConfigError, match=r"as long as a frame, 2 s; the longest has 0.11875 s: use a smaller data.seconds"
    ):
        ready(make(tmp_path, seconds=2))


def test_bad_files(tmp_path, capsys):
    """The first 20 are named with the cause and the option that leaves them out; hidden and other files are ignored."""
    sounds = write_sounds(tmp_path, 40)
    for name in list(sounds)[:25]:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:-700])
    (tmp_path / "empty.ogg").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.wav").touch()
    with pytest.raises(ConfigError) as error:
        ready(make(tmp_path))
    message, listed = str(error.value), capsys.readouterr().err.splitlines()
    assert message.startswith("26 of 41 sound files in data.root=")
    assert message.endswith("(the output lists them): repair or remove them, or leave them out with data.on_bad=skip")
    assert "  high/15.wav: it has 1,200 of 1,900 bytes of sound" in listed
    assert "  empty.ogg: Format not recognised." in listed
    assert (len(listed), listed[-1]) == (22, "  and 6 more")
    data = ready(make(tmp_path, on_bad="skip"))
    assert "26 of 41 sound files cannot be read" in capsys.readouterr().out
    assert sum(len(split.x) for split in splits_of(data)) == 15 * 9
    assert data.report()["bad files"]["low/0.wav"] == "it has 1,200 of 1,900 bytes of sound"
    assert (data.report()["hidden files and folders"], data.report()["ignored files"]) == (1, {".txt": 1})


def test_one_long_sound_is_refused(tmp_path):
    """A set gets whole files, so there must be three."""
    write_sounds(tmp_path, 2, length=8000)
    with pytest.raises(ConfigError, match=r"has 2 different sounds that are as long as a frame.*at least 3 files"):
        ready(make(tmp_path))


def test_files_that_are_none_are_ignored(tmp_path):
    """To read a pipe would wait forever, and a link may lead to files that were not meant."""
    write_sounds(tmp_path / "a", classes=("all",))
    write_sounds(tmp_path / "b", 1)
    (tmp_path / "a" / "link.wav").symlink_to(tmp_path / "b" / "low" / "0.wav")
    os.mkfifo(tmp_path / "a" / "pipe.wav")
    report = ready(make(tmp_path / "a")).report()
    assert (report["sound files"], report["links not followed"], report["ignored files"]) == (30, 1, {".wav": 1})


def test_labels_need_two_folders(tmp_path):
    """One sub-folder is no class; sounds outside of the class folders have no label."""
    write_sounds(tmp_path / "one", classes=("all",))
    assert ready(make(tmp_path / "one")).train.y.unique().tolist() == [-1]
    sounds = write_sounds(tmp_path / "two")
    (tmp_path / "two" / next(iter(sounds))).rename(tmp_path / "two" / "outside.wav")
    data = ready(make(tmp_path / "two"))
    labels = torch.cat([split.y for split in splits_of(data)])
    assert data.class_names == ["high", "low"]
    assert torch.bincount(labels + 1).tolist() == [9, 135, 126]


def test_sounds_for_people(tmp_path):
    """Sounds are written as they were read; a picture shows the range of the samples."""
    write_sounds(tmp_path)
    data = ready(make(tmp_path))
    x = data.train.x[:3]
    files = data.save_examples(x, tmp_path / "samples")
    for file, frame in zip(files, x, strict=True):
        samples, rate = soundfile.read(file, dtype="float32")
        assert rate == RATE
        assert np.array_equal(samples, frame[0].numpy())
    (loud,) = data.save_examples(torch.full((1, 1, 9), 3.0), tmp_path / "loud")
    assert soundfile.read(loud)[0].min() > 0.99
    step = torch.cat([torch.full((1, 1, 512), -1.0), torch.full((1, 1, 512), 1.0)], -1)
    (picture,) = data.to_images(step)
    assert picture.shape == (1, 64, 256)
    assert picture[0, -1, :128].all()
    assert picture[0, 0, 128:].all()
    assert picture.sum() == 256
    assert data.to_images(torch.tensor([[[-1.0, 1.0] * 512]])).all()
    assert data.to_images(torch.zeros(2, 1, 100)).sum((1, 2, 3)).tolist() == [256, 256]


def test_log_p_is_that_of_the_energies(tmp_path):
    """The training set has mean 0 in each band and variance 1 in all; the scale stands in log p(u)."""
    write_sounds(tmp_path)
    options = {"features": "log_mel", "frame": 400, "mels": 20}
    data = ready(make(tmp_path, **options))
    x = data.train.x.double()
    assert x.mean((0, 1, 3)).numpy() == pytest.approx(np.zeros(20), abs=1e-6)
    assert x.square().mean().item() == pytest.approx(1, rel=1e-6)
    family = build(data.likelihood_config(), "model.likelihood")
    loc = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = family.double()(loc).log_prob(x)
    u, center = (value * data.scale + data.loc[:, None] for value in (x, loc))
    assert found.detach().numpy() == pytest.approx(
        torch.distributions.Normal(center, data.scale).log_prob(u).numpy(), rel=1e-6
    )
    new = make(tmp_path, **options)
    new.setup_new(data.describe())
    assert torch.equal(new.all.x[data.rows["train"]], data.train.x)
    with pytest.raises(ConfigError, match="the sounds have 10 bands, but those of the training 20"):
        make(tmp_path, **options | {"mels": 10}).setup_new(data.describe())


def test_spectrograms(tmp_path):
    """Those of the same frames; written as numbers, drawn with the low bands below."""
    write_sounds(tmp_path)
    options = {"frame": 400, "mels": 20}
    waves, data = ready(make(tmp_path, frame=400)), ready(make(tmp_path, features="log_mel", **options))
    assert data.shape == (1, 20, 3)
    for split, wave in zip(splits_of(data), splits_of(waves), strict=True):
        assert data.in_file_units(split.x)[:, 0].allclose(log_mel(wave.x[:, 0], RATE, 20))
        assert torch.equal(split.y, wave.y)
    (file,) = data.save_examples(data.val.x, tmp_path / "samples")
    assert np.array_equal(np.load(file), data.in_file_units(data.val.x).numpy())
    pictures = data.to_images(torch.cat([split.x for split in splits_of(data)]))
    assert (pictures.min(), pictures.max()) == (0, 1)
    rising = torch.arange(20.0)[:, None].expand(1, 1, 20, 3) - 10
    assert (data.to_images(rising).diff(dim=2) <= 0).all()
    with pytest.raises(ConfigError, match=r"at least 0.025 s, 200 samples, but they have 100: use data.frame=200"):
        ready(make(tmp_path, features="log_mel"))
    with pytest.raises(ConfigError, match=r"needs more samples per second than 40: use features=wave"):
        data.to_log_mel(torch.zeros(1, 100), 40)
    with pytest.raises(ConfigError, match=r"data.mels=90 is too many"):
        ready(make(tmp_path, features="log_mel", frame=400, mels=90))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"frame": 0}, "data.frame=0"),
        ({"rate": -1}, "data.rate=-1"),
        ({"features": "mel"}, "did you mean data.features=log_mel|choose from"),
        ({"on_bad": "skp"}, "did you mean data.on_bad=skip"),
    ],
)
def test_options_that_are_refused(options, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        make(tmp_path, **options)


def test_config_has_the_defaults_of_the_class():
    node = config("data", "data=audio")
    assert node.pop("_target_") == "vaezoo.data.AudioData"
    data, default = AudioData(**node), AudioData(batches_per_step=8)
    node["known_shape"] = node.pop("shape")  # to ask for the shape would read the data
    for name in node:
        assert getattr(data, name) == getattr(default, name), name


def test_train_a_model_on_sounds(cli, tmp_path):
    """One command, in a density of the samples."""
    write_sounds(tmp_path / "WAVS")
    code, _out, error, run = cli(
        "data=audio", "data.root=WAVS", "data.frame=64", "data.batch_size=16", "trainer.max_epochs=1", "logger=csv"
    )
    assert code == 0, error
    summary = json.loads((run / "summary.json").read_text())
    assert np.isfinite(summary["test"]["elbo"])
    assert summary["config"]["data"]["shape"] == [1, 64]
    code, out, error, folder = cli("task=reconstruct", f"run={run}", "num=3")
    assert code == 0, error
    assert [line.rpartition("/")[2] for line in out.splitlines()[1:]] == [
        "reconstructions.csv", "reconstructions.npz", "reconstructions.png", "inputs-*.wav (3 files)",
        "reconstructions-*.wav (3 files)",
    ]  # fmt: skip
    arrays = np.load(folder / "reconstructions.npz")
    assert len(arrays["sounds"]) == 3
    for i, frame in enumerate(arrays["sounds"]):
        assert np.array_equal(soundfile.read(folder / f"inputs-{i}.wav", dtype="float32")[0], frame[0])
    code, out, error, _ = cli("task=check", "data=audio", "data.root=WAVS", "data.frame=64", "data.batch_size=16")
    assert code == 0, error
    assert out.count("values: ") == 1
    assert "check-examples-*.wav (32 files)" in out
    assert " 0.0 " not in out
    assert "check-examples-0.wav" not in out
