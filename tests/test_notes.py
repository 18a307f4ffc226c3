"""Notes on a model and data that work together, but not as they are meant to."""

from types import SimpleNamespace

import pytest
import torch
from conftest import RandomImages, config

from vaezoo.instantiate import build
from vaezoo.runs.notes import describe_doubts
from vaezoo.training import machine


def doubts(model, shape=(1, 8, 8), **options):
    data = RandomImages(shape)
    for name, value in options.items():
        setattr(data, name, value)
    node = config("model", f"model={model}", shape=shape)
    return describe_doubts(build(node, "model"), data)


@pytest.mark.parametrize(
    ("model", "options", "text"),
    [
        ("missing_iwae", {}, "no entry of the images is missing, so MissingIWAE is no more than an IWAE here"),
        ("missing_iwae", {"has_missing": True}, ""),
        ("iwae", {}, ""),
        ("audio_vae", {}, "over the last dimension, which is time for sounds, and the images have two dimensions"),
        ("audio_vae", {"noun": "sound"}, ""),
        ("conv_vae", {}, ""),
        ("cvae", {"class_names": ["a", "b"]}, "the images have 2 classes, and the other 8 of model.num_classes=10 are"),
        ("cvae", {"class_names": list("0123456789")}, ""),
        ("cvae", {}, ""),
        ("hi_vae", {}, "HIVAE is meant for tables with columns of several kinds (data=table), and these are images: "),
        ("hi_vae", {"noun": "row"}, ""),
        ("mlp_vae", {"condition": "upper"}, "VAE is given no condition, so data.condition=upper only decides what x"),
    ],
)
def test_each_note(model, options, text):
    found = doubts(model, **options)
    assert (text in found[0]) if text else found == []
    assert len(found) <= 1


def test_a_model_with_a_condition_is_given_it():
    node = config("model", "model=conditional_prior_vae", shape=(1, 4, 8)) | {"context_shape": [1, 4, 8]}
    data = RandomImages((1, 4, 8))
    data.condition = "upper"
    assert describe_doubts(build(node, "model"), data) == []


def test_the_note_is_printed(cli):
    code, out, err, _ = cli("task=check", "model=audio_vae", "logger=none")
    assert code == 0, err
    assert out.count("note: the convolutions of this model go over the last dimension") == 1


@pytest.mark.parametrize(
    ("precision", "device", "seconds", "text"),
    [
        ("bf16-mixed", "cpu", (0.0030, 0.0002), "takes 15.0 times as long as in float32, so trainer.precision=32-true"),
        ("bf16-true", "cpu", (0.00023, 0.0002), None),  # noise
        ("bf16-mixed", "cpu", (0.0001, 0.0002), None),
        ("32-true", "cpu", (0.0030, 0.0002), None),
        ("bf16-mixed", "cuda", (0.0030, 0.0002), None),
    ],
)
def test_bf16_on_a_cpu_that_has_none(monkeypatch, precision, device, seconds, text):
    times = dict(zip((torch.bfloat16, torch.float32), seconds, strict=True))
    monkeypatch.setattr(machine, "seconds_of_product", times.get)
    note = machine.bf16_note(precision, torch.device(device))
    assert note is None if text is None else text in note


def test_the_time_of_a_product_is_the_median_without_the_first(monkeypatch):
    clock = iter([0.0, 9.0, 9.0, 10.0, 10.0, 12.0, 12.0, 17.0])  # 9; 1, 2 and 5
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert machine.seconds_of_product(torch.float32, size=2, repeats=3) == 2.0
