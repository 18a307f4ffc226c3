"""Sequences of vectors: the data module, and the contract of the models that take them."""

import math

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from conftest import config

from vaezoo.data import SequenceData
from vaezoo.errors import ConfigError
from vaezoo.export.functions import Encoder
from vaezoo.export.preprocessing import Preprocessing
from vaezoo.instantiate import build
from vaezoo.models.base import CAPABILITIES
from vaezoo.runs.load import load
from vaezoo.runs.setup import wrap_parts

MODELS = ["deep_kalman", "vrnn"]


def make_file(path, prefixes=("",), num=60, seed=0, **more):
    """Write damped oscillations of two classes, of 2 to 6 frames of 3 numbers, and return their arrays."""
    rng, arrays = np.random.default_rng(seed), {}
    for prefix in prefixes:
        lengths = rng.integers(2, 7, num)
        labels = np.arange(num) % 2
        frames = []
        for length, label in zip(lengths, labels, strict=True):
            t, phase = np.arange(length), rng.uniform(0, 2 * math.pi)
            wave = np.stack([np.cos(phase + t), np.sin(phase + t), np.full(length, 3.0 * label)], 1)
            frames.append(10 * wave + rng.normal(size=(length, 3)) + 100)
        arrays |= {f"{prefix}frames": np.concatenate(frames).astype(np.float32), f"{prefix}lengths": lengths}
        arrays |= {f"{prefix}speaker": labels + 1}
    np.savez(path, **arrays | more)
    return arrays


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sequences") / "vowels.npz"
    make_file(path, ("train_", "test_"))
    return path


def rows_of(arrays, prefix=""):
    ends = np.cumsum(arrays[f"{prefix}lengths"])
    return [arrays[f"{prefix}frames"][end - n : end] for end, n in zip(ends, arrays[f"{prefix}lengths"], strict=True)]


# The data module.


def test_published_split(tmp_path):
    """Frames and lengths become rows that end with NaN, standardized by the training frames; the test set is kept."""
    arrays = make_file(tmp_path / "a.npz", ("train_", "test_"))
    data = SequenceData(str(tmp_path / "a.npz"), labels="speaker", val_size=0.2)
    data.setup()
    assert (len(data.train.x), len(data.val.x), len(data.test.x)) == (48, 12, 60)
    assert data.shape == (6, 3)
    assert data.has_missing
    for row, expected in zip(data.in_file_units(data.test.x), rows_of(arrays, "test_"), strict=True):
        np.testing.assert_allclose(row[: len(expected)].numpy(), expected, rtol=1e-6)
        assert row[len(expected) :].isnan().all()
    assert torch.equal(data.test.y, torch.from_numpy(arrays["test_speaker"]))
    frames = data.train.x.flatten(0, 1).double()
    torch.testing.assert_close(frames.nanmean(0), torch.zeros(3).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(frames.square().nanmean(0), torch.ones(3).double(), rtol=0, atol=1e-5)
    both = np.sort(np.concatenate([data.rows["train"].numpy(), data.rows["val"].numpy()]))
    assert np.array_equal(both, np.arange(60))
    again = SequenceData(str(tmp_path / "a.npz"), val_size=0.2, seed=7)
    again.setup()
    assert torch.equal(again.rows["val"], data.rows["val"])  # the seed of the run does not change the split
    assert (again.test.y == -1).all()


def test_own_split(tmp_path):
    """Without a published test set, the sets are a function of the content."""
    arrays = make_file(tmp_path / "a.npz")
    first = SequenceData(str(tmp_path / "a.npz"))
    first.setup()
    sizes = [len(first.rows[name]) for name in ("train", "val", "test")]
    assert sum(sizes) == 60
    assert min(sizes) > 0
    data = SequenceData()
    data.content = [*rows_of(arrays)[::-1], np.ones((9, 3))]  # a longer one changes no digest
    data.setup()
    assert {59 - int(i) for i in data.rows["test"] if i < 60} == {int(i) for i in first.rows["test"]}


def test_longer_sequences_are_cut(tmp_path):
    make_file(tmp_path / "a.npz")
    data = SequenceData(str(tmp_path / "a.npz"), max_length=3)
    data.setup()
    assert data.shape == (3, 3)
    assert data.report()["sequences that are cut"] > 10


def test_examples_for_people(file, tmp_path):
    """A table has a row for each frame before the end, in the user's units; pictures have time to the right."""
    data = SequenceData(str(file))
    data.setup()
    (table,) = data.save_examples(data.test.x[:4], tmp_path / "some")
    assert table.name == "some-frames.csv"
    values = np.genfromtxt(table, delimiter=",", names=True)
    lengths = (~data.test.x[:4].isnan().any(-1)).sum(1)
    assert values.dtype.names == ("sequence", "frame", "x0", "x1", "x2")
    assert len(values) == int(lengths.sum())
    assert (np.bincount(values["sequence"].astype(int)) == lengths.numpy()).all()
    assert 70 < values["x0"].min() < values["x0"].max() < 130
    pictures = data.to_images(torch.tensor([[[0.0, -9.0, 9.0]] * 5 + [[math.nan] * 3]]))
    assert pictures.shape == (1, 1, 3 * 42, 6 * 42)  # at most 256 pixels
    torch.testing.assert_close(pictures[0, 0, ::42, 41], torch.tensor([0.5, 0.0, 1.0]))
    assert (pictures[..., 5 * 42 :] == 1).all()


ERRORS = {
    "frames and lengths": (
        {"lengths": np.array([3, 4])},
        {},
        r"has 5 frames, but the lengths add up to 7: give the number",
    ),
    "no matrix": ({"frames": np.zeros(5)}, {}, r"has the shape \(5,\) and the type float64: give numbers"),
    "empty": ({"lengths": np.array([5, 0])}, {}, r"should hold a whole number >= 1 for each sequence"),
    "no labels": ({}, {"labels": "y"}, r"has no y, but frames, lengths: choose a key with data.labels=NAME"),
    "infinite": ({"frames": np.full((5, 2), np.inf)}, {}, r"hold infinite values: repair them"),
    "key": ({}, {"frames": "x"}, r"a.npz has no x, but frames, lengths: choose a key with data.frames=NAME"),
    "max_length": ({}, {"max_length": 0}, r"data.max_length=0 should be an integer >= 1"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case, tmp_path):
    arrays, options, message = ERRORS[case]
    np.savez(tmp_path / "a.npz", **{"frames": np.zeros((5, 2)), "lengths": np.array([2, 3])} | arrays)
    with pytest.raises((ConfigError, ValueError), match=message):
        SequenceData(str(tmp_path / "a.npz"), **options).setup()
    with pytest.raises(ConfigError, match=r"data.path is missing: name the file of the sequences"):
        SequenceData().setup()


# The contract of the models.


def nodes(name, path):
    """The config of a small model on a file, completed by its data as a run does it, and the data module."""
    data = SequenceData(str(path), labels="speaker", val_size=12, batch_size=16)
    data.setup()
    small = ["model.hidden=8", "model.latent_dim=2", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]"]
    node = config("model", f"model={name}", f"data.shape={list(data.shape)}", *small)
    node["likelihood"] = data.likelihood_config()
    wrap_parts(node, data, ())
    return node, data


@pytest.mark.parametrize("name", MODELS)
def test_contract(name, file, tmp_path):
    """It trains, has all numbers of a training, a compiled pass of one graph, and loads from its checkpoint."""
    node, data = nodes(name, file)
    torch.manual_seed(0)
    model = build(node, "model", optimizer=lambda p: torch.optim.Adam(p, 2e-2))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=12, enable_model_summary=False, **quiet)
    trainer.fit(model, data)
    metrics = trainer.callback_metrics
    independent = -0.5 * 3 * math.log(2 * math.pi * math.e)  # nats per frame of unit normals, in standardized units
    frames = float((~data.val.x.isnan().any(-1)).sum()) / 12
    assert float(metrics["val/frames"]) == pytest.approx(frames)
    assert float(metrics["val/nats_per_frame"]) == pytest.approx(float(metrics["val/elbo"]) / frames)
    assert float(metrics["val/elbo"]) > frames * (independent - math.log(data.scale.prod())) - 3
    assert {key for key in metrics if key.startswith("val/kl_dim/")} == {"val/kl_dim/000", "val/kl_dim/001"}
    assert sum(float(metrics[f"val/kl_dim/00{d}"]) for d in (0, 1)) == pytest.approx(float(metrics["val/kl"]), rel=1e-5)
    assert "val/active_units" not in metrics
    assert model.limits.keys() <= CAPABILITIES.keys()
    assert ("impute" in model.limits) == (name == "vrnn")
    x, y = next(iter(data.test_dataloader()))
    model.eval()
    for samples in (1, 3):
        trace = model(x, y, num_samples=samples)
        assert trace.log_px.shape == trace.log_w.shape == (samples, len(x))
        model.zero_grad()
        model.objective(trace)["loss"].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.dim() > 1)
    estimate = model.log_marginal(x[:5], num_samples=40, chunk_size=7)
    assert (estimate > model(x[:5], num_samples=200).elbo - 0.5).all()
    z = model.encode(x)
    assert z.shape == (len(x), *model.latent_shape)
    assert model.latent_kind == "map"
    drawn = data.in_file_units(model.sample(50).sample())
    assert drawn.shape == (50, 6, 3)
    assert 80 < drawn.mean() < 120

    model.config = {"model": node, "seed": 3}
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
    again = load(tmp_path)
    assert torch.equal(again.encode(x), z)
    assert torch.equal(again.decode(z).mean, model.decode(z).mean)

    torch._dynamo.reset()
    values = []
    for compiler in (lambda f: f, lambda f: torch.compile(f, backend="eager", fullgraph=True)):
        torch.manual_seed(1)
        values.append(compiler(lambda x: model.objective(model(x))["loss"])(x[:4]))
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        trace = model(x[:4])
    assert trace.log_px.dtype == trace.kl.dtype == torch.float32


def test_log_p_is_in_the_users_units(file):
    """log p of the frames is that of standardized frames minus the logarithm of each scale, for each frame there is."""
    node, data = nodes("deep_kalman", file)
    torch.manual_seed(0)
    model = build(node, "model").eval()
    bare = build({**node, "likelihood": {"_target_": "vaezoo.families.Normal"}}, "model").eval()
    bare.load_state_dict(model.state_dict(), strict=False)
    x, values = data.test.x[:5], []
    for each in (model, bare):
        torch.manual_seed(1)
        values.append(each(x).log_px[0])
    lengths = (~x.isnan().any(-1)).sum(1)
    torch.testing.assert_close(values[1] - values[0], lengths * float(np.log(data.scale).sum()), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_encoder_is_exported(name, file):
    """The graph of the encoder takes any number of sequences of any length, and gives the model's codes."""
    node, data = nodes(name, file)
    model = build(node, "model").eval()
    function = Encoder(model, Preprocessing(data.describe())).eval()
    x = data.test.x
    with torch.no_grad():
        program = torch.export.export(function, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
        outputs = program.module()(x[:7])
    assert set(outputs) == {"code", "mean", "std"}
    torch.testing.assert_close(outputs["code"], model.encode(x[:7]), rtol=1e-5, atol=1e-6)
