"""Tests of the procedural sprites and of dSprites: geometry, the grid of factors, and the data modules."""

from itertools import product
from math import pi

import numpy as np
import pytest
import torch
from conftest import config

from vaezoo.data import DSprites, Sprites
from vaezoo.data.dsprites import FILE_NAME
from vaezoo.data.splits import pixel_sum
from vaezoo.data.sprites import SHAPES, draw_shape
from vaezoo.instantiate import build


def ready(data):
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture(scope="module")
def small():
    """184,320 images of 32x32 pixels."""
    return ready(Sprites(size=32))


@pytest.mark.parametrize(("shape", "area"), [("square", 2.0), ("ellipse", pi / 2), ("heart", (4 + pi) / 1.7836**2)])
def test_areas(shape, area):
    """The number of lit pixels is the area of the shape times radius^2, for every scale and orientation."""
    radius = 80.0
    scales, angles = torch.tensor([0.5, 0.8, 1.0]), torch.tensor([0.2, 0.4, 1.0, 2.0, 4.5])
    lit = draw_shape(shape, scales, angles, radius).sum((2, 3))
    exact = area * (radius * scales[:, None]) ** 2
    assert (lit / exact - 1).abs().max() < 0.005


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fit_the_circle(shape):
    """No pixel center is outside the circle of scale 1, and pixels at its border are lit."""
    angles = torch.linspace(0, 2 * pi, 40)
    lit = draw_shape(shape, torch.ones(1), angles, 80.0)[0]
    line = torch.arange(161) - 80
    distance = (line[:, None] ** 2 + line**2).sqrt()
    reach = (lit * distance).amax((1, 2))
    assert (reach <= 80.5).all()
    assert (reach >= 78).all()


def test_orientation_is_clockwise():
    """A quarter turn moves the tip of the heart from the bottom to the left, and the ellipse stands upright."""
    angles = torch.tensor([0, pi / 2, pi], dtype=torch.float64)
    heart = draw_shape("heart", torch.ones(1), angles, 16.0)[0]
    for turned, lit in enumerate(heart):
        assert torch.equal(lit, torch.rot90(heart[0], -turned))
    assert heart[0, 20:, :].sum() < heart[0, :13, :].sum()  # the tip is at the bottom
    assert torch.equal(heart[0], heart[0].flip(1))
    ellipse = draw_shape("ellipse", torch.ones(1), angles, 16.0)[0]
    assert (ellipse.any(1).sum(1)).tolist() == ellipse.any(2).sum(1)[[1, 0, 1]].tolist() == [33, 17, 33]


def test_grid_has_the_order_of_dsprites():
    """737,280 images in the order shape, scale, orientation, x, y, the last one fastest."""
    data = Sprites()
    assert data.factor_names == ("shape", "scale", "orientation", "x", "y")
    assert data.factor_sizes == (3, 6, 40, 32, 32)
    whole = data.grid()
    assert whole.x.shape == (737280, 1, 64, 64)
    rows = torch.tensor(list(product(range(3), range(6), [0, 7, 39], [0, 31], [0, 5])))
    places = (((rows[:, 0] * 6 + rows[:, 1]) * 40 + rows[:, 2]) * 32 + rows[:, 3]) * 32 + rows[:, 4]
    assert torch.equal(whole.y[places], rows)
    assert torch.equal(whole.x[places].float() / 255, data.render(rows))
    values = dict(zip(data.factor_names, data.factor_values, strict=True))
    assert values["scale"].tolist() == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert values["orientation"][[0, 1, -1]].tolist() == pytest.approx([0, 2 * pi / 39, 2 * pi])
    assert values["x"][[0, -1]].tolist() == values["y"][[0, -1]].tolist() == [0, 1]


def test_no_sprite_is_clipped(small):
    """A sprite has equally many pixels in every position; a step moves it by one pixel."""
    x, y = (grid.flatten() for grid in torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij"))
    for shape, scale, orientation in product(range(3), (0, 5), (0, 4, 9, 17, 33)):
        fixed = torch.tensor([shape, scale, orientation]).expand(256, 3)
        images = small.render(torch.cat([fixed, x[:, None], y[:, None]], 1))[:, 0]
        assert images.sum((1, 2)).unique().numel() == 1
        line = torch.arange(32.0)
        across = (images.sum(1) * line).sum(1) / images.sum((1, 2))
        down = (images.sum(2) * line).sum(1) / images.sum((1, 2))
        assert torch.allclose(across - across[0], x.float(), atol=1e-4)
        assert torch.allclose(down - down[0], y.float(), atol=1e-4)


def test_orientations_differ_except_for_the_full_turn():
    """0 and 2 pi give the same image; all other large ellipses and hearts differ, as do 669 of 720 images."""
    data = Sprites()
    middle = torch.tensor(list(product(range(3), range(6), range(40), [16], [16])))
    images = data.render(middle).reshape(3, 6, 40, -1)
    assert torch.equal(images[:, :, 0], images[:, :, 39])
    assert [len(images[shape, 5].unique(dim=0)) for shape in (1, 2)] == [39, 39]
    assert len(images.flatten(0, 2).unique(dim=0)) == 669


@pytest.mark.parametrize("binarize", ["dynamic", "static", "threshold", "none"])
def test_binarization_changes_nothing(small, binarize):
    """Images are bits in every mode, the same ones in every epoch, with their labels."""
    data = ready(Sprites(size=32, binarize=binarize))
    assert data.data_kind == ("byte" if binarize == "none" else "binary")
    batch, again = data.examples(200), small.examples(200)
    assert torch.equal(batch.x, again.x)
    assert set(batch.x.unique().tolist()) == {0, 1}
    assert torch.equal(data.render(batch.y), batch.x)
    test = next(iter(data.test_dataloader()))
    assert torch.equal(data.render(test.y), test.x)


def test_split_is_fixed(small):
    """Each image is in one of the splits; the test split is the same for all seeds."""
    other = ready(Sprites(size=32, seed=1, split_seed=1, val_size=50))
    assert torch.equal(small.test.y, other.test.y)
    assert [len(s.x) for s in (small.train, small.val, small.test)] == [173_320, 1000, 10_000]
    places = torch.cat([s.x.index for s in (small.train, small.val, small.test)])
    assert torch.equal(places.sort().values, torch.arange(184_320))
    assert small.num_train == 173_320
    for split in (small.train, small.val, small.test):  # mixed: a first page of pictures shows all shapes
        assert len(split.y[:32, 0].unique()) == 3
    share = small.test.y[:, 0].bincount() / 10_000
    assert (share - 1 / 3).abs().max() < 0.02


@pytest.mark.parametrize("colors", [1, 3])
def test_mean_is_exact(colors):
    """The mean from the sum of the grid equals the mean from the sum of the training images."""
    data = ready(Sprites(size=32, colors=colors, test_size=150_000, val_size=5_000))
    brute = pixel_sum(data.train.x).double() / 255 / data.num_train
    torch.testing.assert_close(data.mean.double(), brute, rtol=1e-6, atol=0)


def test_pixel_sum_is_exact():
    """Sums above 2^24 are exact."""
    images = torch.full((70_001, 1, 1, 2), 255, dtype=torch.uint8)
    images[0, ..., 1] = 254
    assert pixel_sum(images).flatten().tolist() == [255 * 70_001, 255 * 70_001 - 1]


def test_colors():
    """The color is the first factor, and the channel of the sprite."""
    white, rgb = Sprites(size=32), ready(Sprites(size=32, colors=3, shape=(3, 32, 32)))
    assert rgb.factor_names == ("color", *white.factor_names)
    assert rgb.factor_sizes == (3, *white.factor_sizes)
    batch = rgb.examples(50)
    assert batch.x.shape == (50, 3, 32, 32)
    for x, y in zip(batch.x, batch.y, strict=True):
        assert torch.equal(x[y[0]], white.render(y[None, 1:])[0, 0])
        assert x.sum() == x[y[0]].sum()


def test_config():
    """`data.size` and `data.colors` change the shape that the model is built for."""
    assert config("data", "data=sprites")["shape"] == [1, 64, 64]
    small = config("data", "data=sprites", "data.size=32", "data.colors=3", "data.binarize=dynamic")
    assert small["shape"] == [3, 32, 32]
    assert ready(build(small, "data", seed=0)).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 30}, "data.size must be a multiple of 4 and >= 32, got 30"),
        ({"colors": 4}, "data.colors must be 1, 2 or 3, got 4"),
        ({"shape": (1, 28, 28)}, r"data.shape=\[1, 28, 28\] contradicts data.size=64 and data.colors=1"),
        ({"test_size": 0}, "data.test_size must be >= 1, got 0"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        Sprites(**settings)


def test_bad_sizes_and_factors(small):
    with pytest.raises(ValueError, match=r"data\.test_size=184320 leaves nothing of 184320 images"):
        ready(Sprites(size=32, test_size=184_320))
    for factors in ([[0, 6, 0, 0, 0]], [[0, -1, 0, 0, 0]], [[0, 0, 0, 0]], [0, 0, 0, 0, 0]):
        words = r"factors must be a tensor \(B, 5\) of classes >= 0 and < \(3, 6, 40, 16, 16\)"
        with pytest.raises(ValueError, match=words):
            small.render(torch.tensor(factors))


def published(folder, sizes=(1, 3, 2, 4, 5, 6), **changed):
    """Write a small file in the format of dSprites: random bits; return its arrays."""
    rng = np.random.default_rng(0)
    classes = np.indices(sizes).reshape(len(sizes), -1).T
    arrays = {
        "metadata": np.array({"title": "pickled, and never read"}),
        "imgs": rng.integers(0, 2, (len(classes), 9, 7), dtype=np.uint8),
        "latents_classes": classes,  # by columns in the file, as any transposed array
        "latents_values": classes * 0.25 + 1,
        **changed,
    }
    np.savez_compressed(folder / FILE_NAME, **arrays)
    return arrays


def test_published_file(tmp_path):
    """The images and factors of the file, without the color, by every access."""
    arrays = published(tmp_path)
    data = ready(DSprites(root=str(tmp_path), val_size=50, test_size=100, batch_size=32))
    assert data.factor_names == ("shape", "scale", "orientation", "x", "y")
    assert data.factor_sizes == (3, 2, 4, 5, 6)
    assert [table.tolist() for table in data.factor_values] == [[1 + k / 4 for k in range(n)] for n in (3, 2, 4, 5, 6)]
    classes, images = torch.from_numpy(arrays["latents_classes"]), torch.from_numpy(arrays["imgs"]).unsqueeze(1)
    assert torch.equal(data.render(classes[:, 1:]), images.float())
    assert data.shape == (1, 9, 7)
    seen = torch.cat([torch.cat([b.x.flatten(1), b.y], 1) for b in data.train_dataloader().batches])
    assert len(seen) == data.num_train == 720 - 150
    torch.testing.assert_close(data.mean.flatten(), seen[:, :63].mean(0))
    assert torch.equal(data.render(seen[:, 63:].long()).flatten(1), seen[:, :63])


def test_sprites_in_the_published_format_are_the_same_data(tmp_path, small):
    """Sprites written to a file of the published format give the same data set and splits."""
    whole = small.grid()
    images = np.concatenate([whole.x[i : i + 10_000][:, 0].numpy() // 255 for i in range(0, 184_320, 10_000)])
    classes = np.pad(whole.y.numpy(), ((0, 0), (1, 0)))
    published(tmp_path, imgs=images, latents_classes=classes, latents_values=classes * 1.0)
    data = ready(DSprites(root=str(tmp_path)))
    assert torch.equal(data.mean, small.mean)
    for mine, theirs in zip(data.examples(500), small.examples(500), strict=True):
        assert torch.equal(mine, theirs)


def test_missing_or_broken_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"{FILE_NAME} is not in data.root=.*github.*data=sprites"):
        DSprites(root=str(tmp_path)).prepare_data()

    def refused(words):
        with pytest.raises(ValueError, match=f"{FILE_NAME} is not the published file .*{words}.*: get it from"):
            ready(DSprites(root=str(tmp_path), val_size=5, test_size=5))

    classes = published(tmp_path)["latents_classes"]
    content = (tmp_path / FILE_NAME).read_bytes()
    (tmp_path / FILE_NAME).write_bytes(content[: len(content) // 2])
    refused("zip")
    (tmp_path / FILE_NAME).write_bytes(content[:2000] + bytes(1000) + content[3000:])
    refused("")
    published(tmp_path, latents_classes=classes[::-1])
    refused("not the full grid of their factors in order")
    published(tmp_path, imgs=np.zeros((700, 9, 7), np.uint8))
    refused("700 images for 720 labels")
    np.savez(tmp_path / FILE_NAME, imgs=np.zeros(3))
    refused("latents_classes")
