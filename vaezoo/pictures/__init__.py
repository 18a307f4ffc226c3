"""Pictures of a model: reconstructions, samples, traversals and maps of the latent space, as labeled grids."""

from vaezoo.pictures.axes import LatentAxes, measure_latent_axes
from vaezoo.pictures.display import IMAGES, Display, describe_classes, image_pairs
from vaezoo.pictures.grid import NUM_COLUMNS, add_labels, fit_to_grid, make_grid, resize_for_grid, to_rgb
from vaezoo.pictures.look import (
    LOOK,
    TITLE_HEIGHT,
    Look,
    Picture,
    add_caption,
    add_heading,
    check_look,
    heading_height,
    stack,
)
from vaezoo.pictures.model import (
    class_heads,
    cycle_classes,
    describe_density,
    draw_samples,
    first_batches,
    manifold,
    reconstructions,
    samples,
    show_samples,
    takes_labels,
    title_reconstructions,
    traversals,
)
from vaezoo.pictures.plane import scatter

__all__ = [
    "IMAGES",
    "LOOK",
    "NUM_COLUMNS",
    "TITLE_HEIGHT",
    "Display",
    "LatentAxes",
    "Look",
    "Picture",
    "add_caption",
    "add_heading",
    "add_labels",
    "check_look",
    "class_heads",
    "cycle_classes",
    "describe_classes",
    "describe_density",
    "draw_samples",
    "first_batches",
    "fit_to_grid",
    "heading_height",
    "image_pairs",
    "make_grid",
    "manifold",
    "measure_latent_axes",
    "reconstructions",
    "resize_for_grid",
    "samples",
    "scatter",
    "show_samples",
    "stack",
    "takes_labels",
    "title_reconstructions",
    "to_rgb",
    "traversals",
]
