"""What stands in which cell of a picture, what is marked, and what scale and theme change, to the pixel."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from torch.distributions import Bernoulli, Independent, Normal

from vaezoo.callbacks.images import Images
from vaezoo.data import Digits
from vaezoo.distributions import Deterministic
from vaezoo.models import CVAE, VAE
from vaezoo.pictures import (
    Display,
    LatentAxes,
    Look,
    add_labels,
    describe_classes,
    heading_height,
    make_grid,
    samples,
    to_rgb,
    traversals,
)
from vaezoo.pictures.display import image_pairs
from vaezoo.pictures.grid import MIN_IMAGE_SIZE, NUM_COLUMNS
from vaezoo.pictures.look import COLORS, GAP, MIN_WIDTH, TEXT_LINE, TITLE_LINE, load_font, wrap_text
from vaezoo.pictures.model import class_heads, nearest_steps
from vaezoo.pictures.plane import class_colors
from vaezoo.pictures.table import cell_colors, draw_cells
from vaezoo.seeding import isolated
from vaezoo.types import Batch, Cells

STEP = MIN_IMAGE_SIZE + GAP


@pytest.fixture(scope="module")
def data():
    digits = Digits(val_size=100, batch_size=335, binarize="none")
    digits.setup()
    return digits


@pytest.fixture(scope="module")
def batch(data):
    return next(iter(data.val_dataloader()))


def cells(part: np.ndarray, rows: int, columns: int, left: int = 0) -> np.ndarray:
    """The images (rows, columns, 8, 8) that a grid at the lower end of a picture shows, gray."""
    grid = part[len(part) - rows * STEP :, left + GAP : left + GAP + columns * STEP, 0]
    images = grid.reshape(rows, STEP, columns, STEP).swapaxes(1, 2)[:, :, :MIN_IMAGE_SIZE, :MIN_IMAGE_SIZE]
    return images[:, :, ::7, ::7]


def split_parts(picture: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The means and the draws of a picture of samples with ``rows`` rows each, without the headings."""
    body = picture[heading_height(picture) :]
    middle = len(body) // 2
    assert np.array_equal(body[:2], body[middle : middle + 2])
    return body[:middle], body[middle:]


@pytest.mark.parametrize("kind", ["plain", "classes"])
def test_samples_are_means_and_draws_of_the_same_z(kind, data, batch):
    """z and the draws are computed here, from the same seed; one column for each class."""
    torch.manual_seed(0)
    model = CVAE((1, 8, 8), num_classes=10, latent_dim=3) if kind == "classes" else VAE((1, 8, 8), latent_dim=3)
    model.eval()
    model.prior.scale.fill_(3.0)  # so that the images differ
    columns = 10 if kind == "classes" else NUM_COLUMNS
    with torch.no_grad(), isolated(model.device, 5):
        picture = samples(model, batch, 32, "now", Display(data))
    with torch.no_grad(), isolated(model.device, 5):
        px = model.sample(32, torch.arange(32) % 10)
        means, draws = px.mean, px.sample()
    rows = 3 if kind == "classes" else 4
    for part, expected in zip(split_parts(picture, rows), (means, draws), strict=True):
        shown = cells(part, rows, columns).reshape(-1, 8, 8)
        assert np.array_equal(shown, to_rgb(expected)[: rows * columns, ..., 0])
    assert {*np.unique(to_rgb(draws))} == {0, 255}
    assert len(np.unique(to_rgb(means))) > 20


class Known:
    """A model whose p(x | z) is given."""

    conditional = uses_labels = False

    def __init__(self, px):
        self.px = px

    def sample(self, num, context=None):
        return (
            self.px.expand((num,)) if hasattr(self.px, "base_dist") else Deterministic(self.px.expand(num, 1, 8, 8), 3)
        )


def test_draws_of_a_known_distribution(batch):
    """The draws of N(0.5, 0.1^2) have these moments, and their mean is shown without noise."""
    px = Independent(Normal(torch.full((1, 8, 8), 0.5), 0.1), 3)
    with isolated(torch.device("cpu"), 0):
        means, draws = split_parts(samples(Known(px), batch, 32, "now"), 4)
    assert (cells(means, 4, 8) == 128).all()
    values = cells(draws, 4, 8) / 255
    assert abs(values.mean() - 0.5) < 4 * 0.1 / values.size**0.5
    assert abs(values.std() - 0.1) < 4 * 0.1 / (2 * values.size) ** 0.5


def test_a_deterministic_decoder_has_means_only(batch):
    picture = samples(Known(torch.full((1, 1, 8, 8), 0.25)), batch, 8, "now")
    body = picture[heading_height(picture) :]
    assert len(body) < 2 * STEP
    assert (cells(body, 1, 8) == 64).all()


def test_many_classes_say_how_many_are_shown(batch, monkeypatch):
    titles = []
    monkeypatch.setattr(
        "vaezoo.pictures.display.add_heading", lambda picture, title, *_: titles.append(title) or picture
    )
    model = Known(Independent(Bernoulli(torch.full((1, 8, 8), 0.5)), 3))
    model.conditional = True
    for num_classes, words in ((26, "10 of 26"), (10, "all classes"), (3, "letter 1, letter 2 (3 of 4)")):
        names = [f"letter {i}" for i in range(4 if num_classes == 3 else num_classes)]
        display = Display(SimpleNamespace(class_names=names))
        samples(model, Batch(batch.x, torch.arange(100) % num_classes), 32, "now", display)
        assert words in titles.pop()
    assert class_heads(torch.tensor([2, 0, 2]), 9, ["a", "b", "c"]) == ["a", "c"]
    assert class_heads(torch.tensor([2, 0, -1]), 2) == ["-1", "0"]


def test_a_grid_by_classes_shows_all_examples():
    """25 examples of 10 classes: the last row has five."""
    images = (torch.arange(25) % 10 / 10).reshape(25, 1, 1, 1).expand(25, 1, 8, 8)
    picture = Display().grid(images, "title", heads=[str(i) for i in range(10)])
    shown = cells(picture, 3, 10)
    assert np.array_equal(shown[..., 0, 0].flatten()[:25], to_rgb(images)[:, 0, 0, 0])
    assert (shown[2, 5:] == 255).all()


@pytest.mark.parametrize(("num", "columns"), [(1, 8), (2, 8), (3, 6), (4, 8), (5, 5), (10, 10)])
def test_few_classes_have_several_columns_each(num, columns, monkeypatch):
    """The images keep their size and order, and each column has one class; the title names up to four."""
    heads = []
    monkeypatch.setattr(
        "vaezoo.pictures.display.add_labels",
        lambda picture, title, rows=(), columns=(), **_: heads.extend(columns) or picture,
    )
    images = (torch.arange(64) / 64).reshape(64, 1, 1, 1).expand(64, 1, 8, 8)
    names = [f"class {i}" for i in range(num)]
    picture = Display().grid(images, "title", heads=names)
    rows = -(-64 // columns)
    assert picture.shape[1] == GAP + columns * STEP
    assert np.array_equal(cells(picture, rows, columns)[..., 0, 0].flatten()[:64], to_rgb(images)[:, 0, 0, 0])
    assert heads == ([] if num == 1 else [f"class {i % num}" for i in range(columns)])
    assert describe_classes(names) == ("" if num > 4 else f", class{'es' if num > 1 else ''} {', '.join(names)}")
    assert Display().grid(images[:3], "title", heads=["a", "b"]).shape[1] == GAP + 2 * STEP


def test_wide_images_have_a_row_for_each_class():
    """Rows are classes: each of 3 classes has its own gray, and 5 images of 256 pixels fit."""
    images = (torch.arange(32) % 3 / 2).reshape(32, 1, 1, 1).expand(32, 1, 64, 256)
    picture = Display().grid(images, "title", heads=["a", "b", "c"])
    body = picture[heading_height(picture) + GAP :]
    for row in range(3):
        for column in range(5):
            top, right = row * (64 + GAP), picture.shape[1] - (5 - column) * (256 + GAP)
            assert (body[top : top + 64, right : right + 256] == (0, 128, 255)[row]).all()


def test_the_marked_cell_is_nearest_to_the_code(batch, data):
    """Codes that are given: 0.9 and -5.0, in standard deviations of each axis."""
    torch.manual_seed(0)
    model = VAE((1, 8, 8), latent_dim=2).eval()
    axes = LatentAxes(
        torch.tensor([0.1, 0.9]), "KL (nats)", torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.3]), "prior"
    )
    code = axes.center + axes.scale * torch.tensor([1.0, -5.0])
    steps = torch.linspace(-3, 3, 11)
    assert nearest_steps(axes, code, steps) == [7, 0]  # 1.2 and -3
    model.encode = lambda x, context=None: code[None]
    with torch.no_grad():
        picture = traversals(model, batch, axes, "now", display=Display(data))
        z = code.repeat(2, 11, 1)
        z[0, :, 1], z[1, :, 0] = -1.0 + 0.3 * steps, 0.5 + 2.0 * steps
        expected = to_rgb(model.decode(z.flatten(0, 1)).mean)[..., 0].reshape(2, 11, 8, 8)
    left = picture.shape[1] - GAP - 11 * STEP
    assert np.abs(cells(picture, 2, 11, left).astype(int) - expected).max() <= 1
    is_mark = (picture == COLORS["light"].mark).all(-1)
    top = len(picture) - 2 * STEP
    for row, column in ((0, 0), (1, 7)):  # z1 is used most
        y, x = top + row * STEP, left + GAP + column * STEP
        frame = is_mark[y - 3 : y + MIN_IMAGE_SIZE + 3, x - 3 : x + MIN_IMAGE_SIZE + 3].copy()
        assert all(side.all() for side in (frame[0], frame[-1], frame[:, 0], frame[:, -1]))
        assert not frame[3:-3, 3:-3].any()
        is_mark[y - 3 : y + MIN_IMAGE_SIZE + 3, x - 3 : x + MIN_IMAGE_SIZE + 3] = False
    assert not is_mark.any()


def draw_all(model, data, **kwargs):
    callback = Images("unused", **kwargs)
    callback.data = data
    with torch.no_grad(), isolated(model.device, 0):
        return callback.pictures(model.eval(), data.val_dataloader(), "4 steps (1 epoch)")


@pytest.fixture(scope="module")
def drawn(data):
    torch.manual_seed(0)
    model = VAE((1, 8, 8), latent_dim=2)
    looks = {"light": {}, "dark": {"theme": "dark"}, "large": {"scale": 2}}
    return {name: draw_all(model, data, **kwargs) for name, kwargs in looks.items()}


def test_scale_doubles_the_size(drawn):
    assert {*drawn["large"]} == {"reconstructions", "samples", "traversals", "manifold", "scatter"}
    for kind, picture in drawn["large"].items():
        small = drawn["light"][kind]
        assert np.abs(np.array(picture.shape[:2]) - 2 * np.array(small.shape[:2])).max() <= 30, kind  # widths of labels
        assert heading_height(picture) == 2 * heading_height(small)
    bodies = [drawn[name]["reconstructions"] for name in ("light", "large")]
    small, large = (body[heading_height(body) :] for body in bodies)
    assert np.array_equal(large[:, : 2 * small.shape[1]], small.repeat(2, 0).repeat(2, 1)[:, : large.shape[1]])
    assert load_font(24).getlength("elbo") == pytest.approx(2 * load_font(12).getlength("elbo"), rel=0.05)


def test_the_theme_changes_no_data_pixel(drawn):
    """All images are equal to the bit, and the rest has the background of the theme."""
    light, dark = drawn["light"], drawn["dark"]
    for kind, rows, columns in (("samples", 4, 8), ("traversals", 2, 11)):
        shown = [
            cells(picture, rows, columns, left)
            for picture in (light[kind], dark[kind])
            for left in [picture.shape[1] - GAP - 11 * STEP if kind == "traversals" else 0]
        ]
        assert np.array_equal(*shown)
        assert len(np.unique(shown[0])) > (1 if kind == "samples" else 20)
        assert tuple(dark[kind][-1, -1]) == COLORS["dark"].background
    images = to_rgb(torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)))
    for look in (Look(), Look(theme="dark"), Look(3, "dark")):
        grid, step = make_grid(images, 3, look=look), 4 + GAP * look.scale
        assert np.array_equal(grid[GAP * look.scale + step :, GAP * look.scale :][:4, :4], images[3])
        assert tuple(grid[0, 0]) == look.colors.background


def test_the_theme_changes_no_cell_of_a_table():
    """Each colour of a cell has its pixels in both themes, and four times as many at scale 2."""
    levels = np.array([[-2.0, 0.5, np.nan], [1.0, 3.0, 2.0]])
    table = Cells(["a", "b", "c"], levels, [[""] * 3] * 2, [False, False, True])
    light, dark, large = (draw_cells(table, "", look=look) for look in (Look(), Look(theme="dark"), Look(2)))
    assert light.shape == dark.shape
    assert tuple(dark[0, 0]) == COLORS["dark"].background
    for color in np.uint8(255 * cell_colors(table)[0][..., :3].reshape(-1, 3)):
        numbers = [int((np.abs(picture.astype(int) - color) <= 1).all(-1).sum()) for picture in (light, dark, large)]
        assert numbers[0] > 1500
        assert numbers[1] == pytest.approx(numbers[0], rel=0.05)  # pixels at the edge are mixed with the background
        assert numbers[2] == pytest.approx(4 * numbers[0], rel=0.1)
    assert np.abs(np.array(large.shape[:2]) - 2 * np.array(light.shape[:2])).max() <= 3


def test_titles_are_wrapped_and_never_cut_off():
    """No letter touches the edge, and each word is in a line; p(x | z) is not divided."""
    picture = np.zeros((10, 20, 3), np.uint8)
    title = "means of p(x | z) " * 12 + "x" * 300
    for look in (Look(), Look(2, "dark")):
        titled = add_labels(picture, title, subtitle="a " * 200, look=look)
        assert titled.shape[1] <= MIN_WIDTH * look.scale
        edge = titled[: heading_height(titled) - look.scale, -2:]
        assert (edge == look.colors.background).all()
        lines = wrap_text(title, look.font(15), MIN_WIDTH * look.scale - 8 * look.scale)
        small = wrap_text("a " * 200, look.font(12), MIN_WIDTH * look.scale - 8 * look.scale)
        assert "".join(lines).replace(" ", "") == title.replace(" ", "")
        assert all(line.count("(") == line.count(")") for line in lines)
        expected = look.scale * (26 + TITLE_LINE * (len(lines) - 1) + TEXT_LINE * len(small))
        assert heading_height(titled) == expected
        assert np.array_equal(titled[expected:, :20], picture)


@pytest.mark.parametrize("kind", ["plain", "classes"])
def test_headings_say_what_is_shown_and_of_what(kind, data, monkeypatch):
    """Means are not called samples, and p(x | z, y) is that of a model with classes; model, data, length follow."""
    seen = []
    for module in ("grid", "display", "plane", "table"):
        monkeypatch.setattr(
            f"vaezoo.pictures.{module}.add_heading",
            lambda p, title, subtitle="", *_: seen.append((title, subtitle)) or p,
        )
    model = CVAE((1, 8, 8), num_classes=10, latent_dim=2) if kind == "classes" else VAE((1, 8, 8), latent_dim=2)
    model.config = {"name": "mlp_vae", "seed": 7}
    draw_all(model, data)
    assert len(seen) == 5
    assert {subtitle for _, subtitle in seen} == {"mlp_vae on Digits, seed 7, 4 steps (1 epoch)"}
    titles = [title for title, _ in seen]
    assert not any("sample" in title for title in titles)
    other, density = ("p(x | z)", "p(x | z, y)") if kind == "classes" else ("p(x | z, y)", "p(x | z)")
    assert sum(density in title for title in titles) == 4  # the scatter has none
    assert not any(other in title for title in titles)
    assert f"validation images, and below each its reconstruction: the mean of {density} at its code z" in titles


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"scale": 0}, "1 to 8, got 0"), ({"scale": 1.5}, "got 1.5"), ({"theme": "pink"}, "got pink")],
)
def test_a_wrong_look_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Images("unused", **kwargs)


def test_ten_classes_have_colors_that_all_people_tell_apart():
    """The sequence of Petroff 2021 for ten; 20 different ones for more."""
    assert [to_hex(color) for color in class_colors(10)[:2]] == ["#3f90da", "#ffa90e"]
    assert len({str(color) for color in class_colors(20)}) == 20


def test_keys_and_names_of_rows(monkeypatch):
    """Rows of a table are labelled by the keys of the examples."""
    seen = []
    monkeypatch.setattr("vaezoo.pictures.display.draw_cells", lambda cells, title, labels, *_: seen.append(labels))
    display = Display(SimpleNamespace(to_cells=lambda x: x))
    x = torch.zeros(2, 3)
    display.pairs(x, x, "title", name="imputed", keys=["row 4", "row 9"])
    display.pairs(x, x, "title")
    assert seen[0] == ["row 4 input", "row 4 imputed", "row 9 input", "row 9 imputed"]
    assert seen[1] == ["1 input", "1 reconstruction", "2 input", "2 reconstruction"]
    assert image_pairs(torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8), "title").shape[2] == 3
