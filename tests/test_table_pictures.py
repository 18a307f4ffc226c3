"""Pictures of rows of a table: the colours of the cells, and the figures of a run on a table."""

import warnings

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from vaezoo.pictures.table import MISSING_COLOR, cell_colors, describe_colors, draw_cells
from vaezoo.types import Cells

LEVELS = np.array([[0.0, 2.0], [-9.0, 0.0], [3.0, np.nan]])
CELLS = Cells(["a", "b"], LEVELS, [["1", "x"], ["2", "y"], ["3", ""]], [False, True])


def test_colors():
    """Numbers are limited to 3 standard deviations around the mean; categories differ; missing entries are grey."""
    colors, is_dark = cell_colors(CELLS)
    bar = colormaps["RdBu_r"]
    assert np.allclose(colors[:, 0], [bar(0.5), bar(0.0), bar(1.0)])
    assert is_dark[:, 0].tolist() == [False, True, True]
    assert np.allclose(colors[:2, 1, :3], np.array(colormaps["Pastel1"].colors)[[2, 0]])
    assert tuple(colors[2, 1]) == MISSING_COLOR
    assert len(describe_colors(CELLS, 100)) == 3
    assert len(describe_colors(CELLS._replace(levels=LEVELS[:2, :1], is_category=[False]), 100)) == 1


def test_the_colors_of_the_cells_are_in_the_figure():
    picture = draw_cells(CELLS, "samples")
    colors = {tuple(color) for color in picture.reshape(-1, 3)}
    for color in cell_colors(CELLS)[0].reshape(-1, 4)[:, :3]:
        assert tuple(np.uint8(np.round(color * 255))) in colors or tuple(np.uint8(color * 255)) in colors


@pytest.mark.parametrize("dims", [1, 12, 13, 300])
def test_any_number_of_columns(dims):
    levels = np.zeros((4, dims))
    cells = Cells([f"a name {i}" for i in range(dims)], levels, [["1"] * dims] * 4, [False] * dims)
    for group in (1, 2):
        picture = draw_cells(cells, "a title " * 20, group=group)
        assert picture.dtype == np.uint8
        assert picture.shape[1] <= 1700


def test_names_are_text_not_formulas():
    """A dollar sign would begin a formula, and a control character has no glyph (a warning is an error here)."""
    names = ["$\\nothing$ a", "price in $", "a\nb\x1b[31m"]
    cells = Cells(names, np.zeros((1, 3)), [["$x^$", "$", "\x07"]], [False] * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draw_cells(cells, "samples").shape[2] == 3


def test_pictures_of_a_run_on_a_table(cli):
    """The callback and the tasks draw the same kind of figures; a plane of rows is not drawn."""
    small = ("data=tables/wine", "model.latent_dim=2", "trainer.max_epochs=1", "data.batch_size=16", "logger=none")
    code, _, err, run = cli(*small)
    assert code == 0, err
    kinds = ("reconstructions", "samples", "scatter", "traversals")
    assert sorted(path.name for path in (run / "panels").iterdir()) == [f"{kind}-0001.png" for kind in kinds]
    for task in ("sample", "reconstruct"):
        code, _, err, _ = cli(f"task={task}", f"run={run}", "num=4")
        assert code == 0, err
    pictures = [path for path in run.parent.parent.rglob("*.png") if path.stem in ("samples", "reconstructions")]
    assert len(pictures) == 2
    assert all(len(np.unique(np.asarray(Image.open(path)).reshape(-1, 3), axis=0)) > 20 for path in pictures)
