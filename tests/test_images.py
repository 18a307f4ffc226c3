"""The callback Images: pictures are correct to the pixel, and drawing them does not change the training."""

import os
import random
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image
from torch.distributions import Bernoulli, Independent, MixtureSameFamily, Normal
from torch.utils.data import DataLoader

from vaezoo import pictures
from vaezoo.callbacks.checkpoints import Last
from vaezoo.callbacks.images import Images
from vaezoo.data import Digits, ImageData, Split
from vaezoo.families import FixedScaleNormal
from vaezoo.models import VAE
from vaezoo.pictures import (
    TITLE_HEIGHT,
    add_labels,
    fit_to_grid,
    heading_height,
    make_grid,
    resize_for_grid,
    to_rgb,
)
from vaezoo.pictures.grid import MAX_SIZE, MIN_IMAGE_SIZE
from vaezoo.pictures.look import GAP
from vaezoo.report.read import drawn_at, read_pictures
from vaezoo.runs.signals import Stopped, handling_signals, stop_request
from vaezoo.trace import Latent, Trace
from vaezoo.types import Batch


def small_digits(**kwargs) -> Digits:
    data = Digits(**{"val_size": 100, "batch_size": 335, **kwargs})
    data.eval_batch_size = 40
    return data


def small_vae(latent_dim: int = 3, seed: int = 0, cls: type[VAE] = VAE, **kwargs) -> VAE:
    torch.manual_seed(seed)
    return cls((1, 8, 8), latent_dim=latent_dim, **kwargs)


def trained(
    model: pl.LightningModule, *callbacks: pl.Callback, epochs: int = 2, data=None, resume: Path | None = None, **kwargs
) -> pl.Trainer:
    options = {"logger": False, "enable_checkpointing": False, "num_sanity_val_steps": 1, **kwargs}
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **options,
    )
    trainer.fit(model, datamodule=data or small_digits(), ckpt_path=resume)
    return trainer


def drawn(model: pl.LightningModule, data=None, when="4 steps (1 epoch)", **kwargs) -> dict[str, np.ndarray]:
    """Return the pictures of a model in its present state."""
    data = data or small_digits()
    data.setup()
    callback = Images("unused", **kwargs)
    callback.data = data
    with torch.no_grad():
        return callback.pictures(model.eval(), data.val_dataloader(), when)


def below(picture: np.ndarray) -> np.ndarray:
    """The picture without its heading."""
    return picture[heading_height(picture) :]


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


class Watched(Images):
    """Records after how many steps each epoch is drawn."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.steps: dict[int, int] = {}

    def draw(self, trainer, pl_module, epoch):
        assert epoch not in self.steps
        self.steps[epoch] = trainer.global_step
        super().draw(trainer, pl_module, epoch)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def frames(monkeypatch) -> dict[str, dict]:
    """What ``add_labels`` was given, by the first word of the title; a part without one is "part 0", "part 1", ..."""
    seen = {}

    def spy(picture, title, rows=(), columns=(), corner="", **kwargs):
        name = title.split()[0].rstrip(",:") if title else f"part {sum(key.startswith('part') for key in seen)}"
        seen[name] = {"picture": picture, "rows": rows, "columns": columns, "corner": corner, "title": title, **kwargs}
        return add_labels(picture, title, rows, columns, corner, **kwargs)

    for module in ("display", "model"):
        monkeypatch.setattr(f"vaezoo.pictures.{module}.add_labels", spy)
    return seen


# The training does not change.


class Unnamed(VAE):
    """Does not seed its noise: then every other draw from the default generator changes its training."""

    def seed_noise(self, *keys: str | int) -> None:
        pass


class Loaded(Digits):
    """Validates through torch's DataLoader, which draws a number from the default generator in each pass."""

    def val_dataloader(self):
        return DataLoader(list(zip(*next(iter(super().val_dataloader())), strict=True)), 20, collate_fn=self.collate)

    @staticmethod
    def collate(pairs):
        return Batch(*map(torch.stack, zip(*pairs, strict=True)))


@pytest.mark.parametrize("cls", [VAE, Unnamed])
def test_weights_are_equal_to_the_bit_with_and_without_pictures(tmp_path, cls):
    weights = []
    for callbacks in [], [Images(str(tmp_path), every_n_epochs=1)]:
        model = small_vae(2, cls=cls)
        trained(model, *callbacks, epochs=3, data=Loaded(val_size=100, batch_size=335))
        weights.append(model.state_dict())
    assert len(names(tmp_path)) == 3 * 5
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_random_state_and_modes_are_restored(tmp_path):
    class Checked(Watched):
        def draw(self, trainer, pl_module, epoch):
            before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
            pl_module.encoder.eval()  # a part in another mode than the rest
            modes = [module.training for module in pl_module.modules()]
            super().draw(trainer, pl_module, epoch)
            assert torch.equal(before[0], torch.get_rng_state())
            assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())
            assert modes == [module.training for module in pl_module.modules()]

        def pictures(self, model, loader, when):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            return super().pictures(model, loader, when)

    at_end, amid = Checked(str(tmp_path)), Checked(str(tmp_path))
    trained(small_vae(2), at_end, limit_val_batches=0)  # drawn in training mode, when training ends
    trained(small_vae(2), amid, epochs=1)  # drawn in validation
    assert (at_end.steps, amid.steps) == ({2: 8}, {1: 4})


# When it draws.


def test_the_first_every_nth_and_the_last_epoch_are_drawn(tmp_path):
    trained(small_vae(), Images(str(tmp_path / "new" / "folder"), every_n_epochs=2, num_images=4), epochs=5)
    epochs = ("0001", "0002", "0004", "0005")
    kinds = ("reconstructions", "samples", "traversals")
    assert names(tmp_path / "new" / "folder") == {f"{kind}-{epoch}.png" for kind in kinds for epoch in epochs}
    for path in (tmp_path / "new" / "folder").iterdir():
        picture = read(path)
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert len(np.unique(picture)) > 20


def test_an_epoch_is_drawn_when_it_is_complete(tmp_path):
    watched = Watched(str(tmp_path), every_n_epochs=1)
    trained(small_vae(), watched, val_check_interval=0.5, epochs=3)
    assert watched.steps == {1: 4, 2: 8, 3: 12}


def test_with_rare_validations_the_next_epoch_is_drawn(tmp_path):
    watched = Watched(str(tmp_path), every_n_epochs=4)
    trained(small_vae(), watched, check_val_every_n_epoch=3, epochs=10)
    assert list(watched.steps) == [3, 6, 9, 10]


def test_the_last_epoch_is_drawn_when_training_stops_early(tmp_path):
    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 2

    trained(small_vae(), Images(str(tmp_path)), Stop(), epochs=9)
    assert {name[-8:] for name in names(tmp_path)} == {"0001.png", "0003.png"}


def test_validating_after_training_draws_nothing(tmp_path):
    watched = Watched(str(tmp_path), every_n_epochs=1)
    trainer = trained(small_vae(), watched, epochs=1)
    trainer.validate(trainer.lightning_module, small_digits(), verbose=False)
    assert watched.steps == {1: 4}


@pytest.mark.parametrize("epochs", [3, 4])
def test_a_resumed_run_draws_what_an_uninterrupted_one_does(tmp_path, epochs):
    trained(small_vae(), whole := Watched(str(tmp_path), every_n_epochs=5), epochs=6)
    trainer = trained(small_vae(), Watched(str(tmp_path), every_n_epochs=5), epochs=epochs)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = Watched(str(tmp_path), every_n_epochs=5)
    trained(small_vae(), resumed, epochs=6, resume=tmp_path / "last.ckpt")
    assert whole.steps == {1: 4, 5: 20, 6: 24}
    assert resumed.steps == {5: 20, 6: 24}


@pytest.mark.parametrize("first", [True, False])
def test_averaged_weights_are_drawn_for_any_order_of_callbacks(tmp_path, first):
    model, average = small_vae(), EMAWeightAveraging(decay=0.5)
    callbacks = [average, Images(str(tmp_path))] if first else [Images(str(tmp_path)), average]
    trained(model, *callbacks, epochs=1)  # leaves the average in the model
    expected = drawn(model)["reconstructions"]
    assert np.array_equal(read(tmp_path / "reconstructions-0001.png"), expected)


@pytest.mark.parametrize(("kwargs", "message"), [({"every_n_epochs": 0}, "got 0"), ({"num_images": 1}, "got 1")])
def test_wrong_numbers_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Images("unused", **kwargs)


def test_examples_that_are_no_images_give_no_pictures():
    """Vectors have no picture; a data module that draws them gives all of the pictures."""
    model = VAE((64,), latent_dim=3).eval()
    batch = Batch(torch.rand(5, 64).round(), torch.zeros(5))
    callback = Images("unused")
    callback.data = SimpleNamespace()
    assert callback.pictures(model, [batch], "epoch 1") == {}
    drawn = SimpleNamespace(represent=lambda px: px.mean, to_images=lambda x: x.reshape(-1, 1, 8, 8))
    callback.data = drawn
    pictures = callback.pictures(model, [batch], "epoch 1")
    assert pictures.keys() == {"reconstructions", "samples", "traversals"}
    callback.data = None
    whole = VAE((1, 8, 8), latent_dim=3).eval()
    shapes = {name: value.shape for name, value in whole.state_dict().items()}
    whole.load_state_dict({name: value.reshape(shapes[name]) for name, value in model.state_dict().items()})
    callback.batch = None
    expected = callback.pictures(whole, [Batch(batch.x.reshape(-1, 1, 8, 8), batch.y)], "epoch 1")
    assert all(np.array_equal(below(pictures[kind]), below(expected[kind])) for kind in pictures)


def test_a_training_without_a_data_module_is_refused():
    with pytest.raises(ValueError, match="data module"):
        Images("unused").setup(pl.Trainer(logger=False, accelerator="cpu"), small_vae(), "fit")


# What it draws.


def test_values_outside_the_unit_interval_are_clamped():
    images = torch.tensor([-0.01, -3.0, 0.0, 0.5, 1.0, 1.004, 7.0]).reshape(1, 1, 1, 7)
    assert to_rgb(images)[0, 0, :, 0].tolist() == [0, 0, 0, 128, 255, 255, 255]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_channels_become_colours(channels):
    images = torch.rand(2, channels, 3, 5, generator=torch.Generator().manual_seed(0))
    red, green, blue = to_rgb(images).transpose(3, 0, 1, 2)
    planes = (images * 255).round().numpy().transpose(1, 0, 2, 3)
    if channels == 1:
        assert all(np.array_equal(colour, planes[0]) for colour in (red, green, blue))
    elif channels == 2:
        assert np.array_equal(red, planes[0])
        assert np.array_equal(green, planes[1])
        assert not blue.any()
    elif channels == 4:
        over_white = (images[:, 0] * images[:, 3] + 1 - images[:, 3]) * 255
        assert np.allclose(red, over_white.numpy(), atol=0.51)
    else:
        assert np.array_equal(np.stack([red, green, blue]), planes[:3])


def test_every_byte_is_shown_unchanged():
    byte = torch.arange(256).reshape(1, 1, 16, 16)
    assert np.array_equal(to_rgb(byte * (1 / 255))[0, ..., 0], byte[0, 0].numpy())


@pytest.mark.parametrize("side", [1, 8, 9, 28, 32, 33, 64, 100, 300])
@pytest.mark.parametrize("cells", [(1, 1), (4, 8), (20, 20), (16, 8)])
def test_grids_are_large_enough_and_not_too_large(side, cells):
    images = np.zeros((2, side, side, 3), np.uint8)
    cell = resize_for_grid(images, *cells).shape[1]
    assert cell * max(cells) <= MAX_SIZE
    assert cell >= min(MIN_IMAGE_SIZE, side) or side * max(cells) > MAX_SIZE
    assert side != 64 or cells == (16, 8) or cell in (64, 32)


def test_large_images_are_averaged():
    images = np.zeros((1, MAX_SIZE * 2, 7, 3), np.uint8)
    images[:, ::2] = 200
    small = resize_for_grid(images, 1, 1)
    assert small.shape == (1, MAX_SIZE, 4, 3)
    assert (small == 100).all()


def test_grid_places_images_by_row():
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1).repeat(3, 3)
    assert make_grid(images, 3, gap=1)[1::2, 1::2, 0].tolist() == [[0, 1, 2], [3, 4, 255]]
    assert make_grid(images, 3, gap=1).shape == (5, 7, 3)


def test_frame_keeps_the_picture_whole():
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for title in "t", "a title much longer than the picture below is wide":
        sheet = add_labels(picture, title, rows=["z7  2.31", "z12  0.10"], columns=["-3", "0", "3"], corner="KL (nats)")
        windows = np.lib.stride_tricks.sliding_window_view(sheet, picture.shape)[:, :, 0]
        assert (windows == picture).all(axis=(2, 3, 4)).sum() == 1
    assert np.array_equal(add_labels(picture, "t")[TITLE_HEIGHT:, :40], picture)
    assert heading_height(add_labels(picture, "t")) == TITLE_HEIGHT


def test_inputs_stand_exactly_above_their_reconstructions(frames):
    data, model = small_digits(binarize="none"), small_vae().eval()
    drawn(model, data, num_images=20)
    x, y = next(iter(data.val_dataloader()))
    with torch.no_grad():
        outputs = to_rgb(model.decode(model.encode(x[:10], y[:10])).mean)
    pixel = MIN_IMAGE_SIZE // 8
    picture = frames["validation"]["picture"]
    assert picture.shape == (GAP + 2 * (2 * MIN_IMAGE_SIZE + 1 + GAP), GAP + 8 * (MIN_IMAGE_SIZE + GAP), 3)
    for i in range(10):
        top, left = GAP + i // 8 * (2 * MIN_IMAGE_SIZE + 1 + GAP), GAP + i % 8 * (MIN_IMAGE_SIZE + GAP)
        cell = picture[top : top + 2 * MIN_IMAGE_SIZE + 1, left : left + MIN_IMAGE_SIZE]
        upper, line, lower = cell[:MIN_IMAGE_SIZE], cell[MIN_IMAGE_SIZE], cell[MIN_IMAGE_SIZE + 1 :]
        assert (line == 255).all()
        for part, image in (upper, to_rgb(x[i : i + 1])[0]), (lower, outputs[i]):
            assert np.array_equal(part, image.repeat(pixel, 0).repeat(pixel, 1))


def test_samples_use_the_same_noise_every_time():
    model = small_vae()
    first, again, other = drawn(model), drawn(model), drawn(model, seed=1)
    assert np.array_equal(first["samples"], again["samples"])
    assert not np.array_equal(first["samples"], other["samples"])


def test_samples_are_the_same_at_every_epoch_of_a_frozen_model(tmp_path):
    frozen = small_vae(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    trained(frozen, Images(str(tmp_path), every_n_epochs=1), epochs=3)
    one, two, three = (below(read(tmp_path / f"samples-{epoch:04d}.png")) for epoch in (1, 2, 3))
    assert np.array_equal(one, two)
    assert np.array_equal(one, three)


def test_traversals_are_sorted_by_kl(frames):
    data, model = small_digits(), small_vae(12).eval()
    with torch.no_grad():
        model.encoder.net.layers[-1].weight.mul_(torch.linspace(0, 8, 24).unsqueeze(1))
    drawn(model, data, num_images=40)
    x, y = next(iter(data.val_dataloader()))
    with torch.no_grad():
        kl = model(x, y).latent.kl_per_dim.mean(0)
        code = model.encode(x[:1])
        order = kl.argsort(descending=True)[:10].tolist()
        z = code.repeat(11, 1)
        z[:, order[2]] = torch.linspace(-3, 3, 11)
        expected = to_rgb(model.decode(z).mean)
    shown = frames["traversals"]
    assert shown["rows"] == [f"z{d}  {kl[d]:.2f}" for d in order]
    values = [float(label.split()[1]) for label in shown["rows"]]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]
    assert (shown["columns"][0], shown["columns"][5], shown["columns"][-1]) == ("-3", "0", "3")
    assert shown["corner"] == "validation KL (nats)"
    pixel, step = MIN_IMAGE_SIZE // 8, MIN_IMAGE_SIZE + GAP
    row = shown["picture"][GAP + 2 * step :, GAP:][:MIN_IMAGE_SIZE:pixel]
    for i in range(11):
        assert np.abs(row[:, i * step : i * step + MIN_IMAGE_SIZE : pixel].astype(int) - expected[i]).max() <= 1


@pytest.mark.parametrize(
    ("num", "height", "width", "columns", "shrunk"),
    [(64, 8, 8, 8, 1), (64, 128, 128, 8, 1), (64, 64, 256, 5, 1), (3, 64, 256, 3, 1), (64, 256, 256, 5, 1),
     (64, 130, 30, 8, 1), (64, 40, 160, 8, 1), (64, 40, 161, 7, 1), (64, 64, 257, 8, 2), (64, 512, 512, 8, 4)],
)  # fmt: skip
def test_images_up_to_256_pixels_are_not_scaled_down(num, height, width, columns, shrunk):
    """Wide images, such as texts, get fewer columns. Smaller and larger ones are in 8 columns, as ever."""
    images = np.random.default_rng(0).integers(0, 256, (num, height, width, 3), np.uint8)
    fitted, found = fit_to_grid(images, num)
    assert found == columns
    assert columns * fitted.shape[2] <= MAX_SIZE
    if max(height, width) <= 128 or shrunk > 1:
        assert np.array_equal(fitted, resize_for_grid(images, -(-num // 8), 8))
        assert fitted.shape[2] == -(-width // shrunk) * (56 // width if width < 56 else 1)
    else:
        assert np.array_equal(fitted, images)


def test_pairs_of_wide_images(monkeypatch):
    """Each input is above its own output, also in fewer columns."""
    inputs, outputs = (torch.linspace(low, 1, 7).reshape(7, 1, 1, 1).expand(7, 1, 16, 256) for low in (0.0, 0.5))
    picture = pictures.image_pairs(inputs, outputs, "title")[TITLE_HEIGHT:, ::]
    assert picture.shape[1] == 5 * 260 + 4
    cells = [picture[4 + 37 * (i // 5) :, 4 + 260 * (i % 5) :] for i in range(7)]
    for cell, above, below in zip(cells, inputs, outputs, strict=True):
        assert (cell[:16, :256] == to_rgb(above[None])[0]).all()
        assert (cell[17:33, :256] == to_rgb(below[None])[0]).all()


def test_two_dimensions_make_a_manifold_and_a_scatter(frames):
    model = small_vae(2)
    pictures = drawn(model)
    assert {"manifold", "scatter"} <= pictures.keys()
    assert not {"manifold", "scatter"} & drawn(small_vae(3)).keys()
    manifold = frames["manifold"]["picture"]
    assert manifold.shape == (20 * 58 + 2, 20 * 58 + 2, 3)
    low, high = Normal(0, 1).icdf(torch.tensor([0.025, 0.975])).tolist()
    with torch.no_grad():  # z0 to the right, z1 upwards
        corners = to_rgb(model.decode(torch.tensor([[low, high], [high, high], [low, low], [high, low]])).mean)
    cells = manifold[2:, 2:].reshape(20, 58, 20, 58, 3)[:, :56:7, :, :56:7]
    for (row, column), corner in zip([(0, 0), (0, 19), (19, 0), (19, 19)], corners, strict=True):
        assert np.abs(cells[row, :, column].astype(int) - corner).max() <= 1
    colours = {tuple(colour) for colour in pictures["scatter"].reshape(-1, 3)}
    assert {(63, 144, 218), (255, 169, 14)} <= colours  # the legend's dots: the first two of ten colours of Petroff
    values = Normal(0, 1).icdf((torch.arange(20) + 0.5) / 20)
    assert frames["manifold"]["columns"] == [f"{value:.2f}" for value in values]
    assert frames["manifold"]["rows"] == [f"{value:.2f}" for value in values.flip(0)]


@pytest.mark.parametrize("num_labels", [1, 15, 100])
def test_scatter_takes_any_number_of_labels(num_labels):
    codes = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    picture = pictures.scatter(codes, torch.arange(200) % num_labels, "epoch 1")
    assert picture.dtype == np.uint8
    assert max(picture.shape) <= MAX_SIZE
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3


class Noise(ImageData):
    """Random bytes of any shape."""

    eval_batch_size = 3

    def __init__(self, shape: tuple[int, int, int]):
        super().__init__(shape, batch_size=16, val_size=8, binarize="none")

    def read(self):
        draw = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (40, *self.shape), generator=draw, dtype=torch.uint8)
        return (Split(images, torch.arange(40) % 3),) * 2


@pytest.mark.parametrize("shape", [(1, 33, 17), (3, 28, 20), (4, 16, 16), (2, 9, 9), (3, 64, 64), (1, 1, 40)])
def test_any_shape_is_drawn(tmp_path, shape):
    model = VAE(shape, latent_dim=2, likelihood=FixedScaleNormal())
    trained(model, Images(str(tmp_path), num_images=6), epochs=1, data=Noise(shape))
    assert len(names(tmp_path)) == 5
    for path in tmp_path.iterdir():
        picture = read(path)
        assert 50 < max(picture.shape) <= MAX_SIZE + 150
        assert len(np.unique(picture)) > 20


def test_double_precision_is_drawn(tmp_path):
    trained(small_vae(2), Images(str(tmp_path)), epochs=1, precision="64-true")
    assert len(names(tmp_path)) == 5


# Other kinds of model.


class Conditional(VAE):
    """Records the labels it gets and shows them: the grey level of an image is its label / 10."""

    conditional = True

    def forward(self, x, context=None, num_samples=None):
        self.seen["forward"] = context
        return super().forward(x, context, num_samples)

    def encode(self, x, context=None):
        assert len(x) == len(context)
        return super().encode(x, context)

    def decode(self, z, context=None):
        assert len(z) == len(context)
        grey = (context / 10).reshape(-1, 1, 1, 1).expand(len(z), *self.data_shape)
        return Independent(Bernoulli(grey), 3)

    def sample(self, num, context=None):
        self.seen["sample"] = context
        return self.decode(torch.zeros(num, *self.latent_shape), context)


def test_labels_reach_conditional_models(frames):
    data, model = small_digits(), small_vae(2, cls=Conditional)
    data.eval_batch_size = 100
    model.seen = {}
    drawn(model, data, num_images=24)
    _, y = next(iter(data.val_dataloader()))
    assert torch.equal(model.seen["forward"], y)
    assert model.seen["sample"].tolist() == [i % 10 for i in range(24)]
    assert frames["manifold"]["title"].endswith(f"of class {y[0]}")
    assert len(np.unique(frames["manifold"]["picture"])) == 2  # one class and the separators


class Stack(pl.LightningModule):
    """Two stochastic layers."""

    data_shape, latent_shape = (1, 8, 8), (4,)
    conditional = uses_labels = False

    def forward(self, x, context=None, num_samples=None):
        p = Independent(Normal(torch.zeros(4), 1.0), 1)
        latents = [Latent(p.expand((len(x),)), p, p.sample((1, len(x)))) for _ in range(2)]
        return Trace(x, self.decode(latents[0].z), tuple(latents))

    def encode(self, x, context=None):
        return x.reshape(-1, 16, 4)[:, 0]

    def decode(self, z, context=None):
        grey = z.mean(-1).sigmoid()[..., None, None, None]
        return Independent(Bernoulli(grey.expand(*z.shape[:-1], *self.data_shape)), 3)

    def autoencode(self, x, context=None):
        return self.decode(self.encode(x, context), context)

    def sample(self, num, context=None):
        return self.decode(torch.randn(num, 4))


def test_hierarchies_have_no_traversals():
    assert drawn(Stack()).keys() == {"reconstructions", "samples"}


class Mixed(VAE):
    """A prior that does not factorize: no KL by dimension."""

    def forward(self, x, context=None, num_samples=None):
        trace = super().forward(x, context, num_samples)
        parts = Independent(Normal(torch.zeros(2, *self.latent_shape), 1.0), 1)
        prior = MixtureSameFamily(torch.distributions.Categorical(torch.ones(2)), parts)
        return Trace(x, trace.px, (Latent(trace.latent.q, prior, trace.latent.z),))


def test_without_kl_by_dimension_the_codes_rank(frames):
    data, model = small_digits(), small_vae(4, cls=Mixed)
    assert "traversals" in drawn(model, data)
    x, _ = next(iter(data.val_dataloader()))
    with torch.no_grad():
        variance = model.encode(x).var(0).sort(descending=True).values
    assert frames["traversals"]["corner"] == "validation variance"
    assert [label.split()[1] for label in frames["traversals"]["rows"]] == [f"{value:.2f}" for value in variance]


# Loggers.


def test_wandb_gets_the_same_picture(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "log").mkdir()
    logger = WandbLogger(mode="offline", save_dir=tmp_path / "log")
    calls = []
    try:
        run, log = logger.experiment, logger.experiment.log
        monkeypatch.setattr(run, "log", lambda *args, **kwargs: (calls.append((*args, kwargs)), log(*args, **kwargs)))
        trained(small_vae(2), Images(str(tmp_path / "panels")), epochs=1, logger=logger)
        files = Path(run.dir)
    finally:
        wandb.finish()
    ((values, options),) = (call for call in calls if "images/samples" in call[0])
    assert options == {}  # a step of our own would make W&B drop later rows
    assert values.pop("trainer/global_step") == 3  # of 4, as the values of the validation
    assert len(values) == 5
    for path in (tmp_path / "panels").iterdir():
        kind = path.name.split("-")[0]
        (logged,) = files.glob(f"media/images/images/{kind}_*.png")
        assert np.array_equal(read(logged), read(path))
        assert read(logged).mean() > 20
        assert values[f"images/{kind}"]._caption == "4 steps (1 epoch)"


def test_tensorboard_gets_the_same_picture(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path / "log")
    trained(small_vae(2), Images(str(tmp_path / "panels")), epochs=1, logger=logger)
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    assert len(events.Tags()["images"]) == 5
    for path in (tmp_path / "panels").iterdir():
        (image,) = events.Images(f"images/{path.name.split('-')[0]}")
        logged = tmp_path / "image.png"
        logged.write_bytes(image.encoded_image_string)
        assert image.step == 3
        assert np.array_equal(read(logged), read(path))


def test_a_picture_within_an_epoch_says_so(tmp_path):
    """If it is drawn within an epoch, or if the last epoch is not complete: in its name, its title and the report."""
    trained(small_vae(), Images(str(tmp_path / "amid")), epochs=2, val_check_interval=3)
    assert {name[-12:] for name in names(tmp_path / "amid")} >= {"0001.750.png"}
    model = small_vae()
    trained(model, Images(str(tmp_path / "cut")), epochs=-1, max_steps=1)
    assert names(tmp_path / "cut") == {f"{kind}-0000.250.png" for kind in ("reconstructions", "samples", "traversals")}
    expected = drawn(model, when="1 step (0.25 epochs)")["samples"]
    assert np.array_equal(read(tmp_path / "cut" / "samples-0000.250.png"), expected)
    (tmp_path / "cut" / "samples-0000.100.png").touch()
    newest = read_pictures(tmp_path / "cut")["samples"]
    assert drawn_at(newest) == 0.25


@pytest.mark.parametrize("in_validation", [True, False])
def test_a_signal_ends_drawing_and_the_training_saves(tmp_path, in_validation):
    """No picture is written, and a resumed run draws them all."""

    class Slow(Images):
        def pictures(self, model, loader, when):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    slow, last = Slow(str(tmp_path / "panels")), Last(str(tmp_path), every_seconds=0)
    start = time.monotonic()
    with handling_signals():
        # After the last epoch the training ends, and the test that follows stops.
        with pytest.raises(Stopped, match=r"last\.ckpt") if in_validation else nullcontext():
            trained(small_vae(), last, slow, enable_checkpointing=True, limit_val_batches=None if in_validation else 0)
        assert stop_request.signum == signal.SIGTERM
    assert time.monotonic() - start < 30
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert (0 if in_validation else 7) < checkpoint["global_step"] <= (4 if in_validation else 8)
    assert checkpoint["callbacks"]["Panels"] == {"drawn": 0}
    assert not (tmp_path / "panels").exists()
