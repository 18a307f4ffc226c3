"""Procedural sprites: images on the grid of dSprites, drawn by this module."""

from functools import cached_property
from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor

from vaezoo.data.factors import FactorData

SUPERSAMPLING = 8  # points along a pixel's side; a pixel is lit if most of its points are in the shape


def square(x: Tensor, y: Tensor) -> Tensor:
    """Tell which points are in the square. Like all shapes here, it touches the circle of radius 1 from within."""
    return torch.maximum(x.abs(), y.abs()) < 0.5**0.5


def ellipse(x: Tensor, y: Tensor) -> Tensor:
    """Tell which points are in the ellipse, twice as long as wide."""
    return x.square() + (2 * y).square() < 1


def heart(x: Tensor, y: Tensor) -> Tensor:
    """Tell which points are in the heart: a square on its corner, with half a disc on each upper side."""
    # The unit is half the side of the square, the origin its center, y points upwards. The corner and the discs touch
    # the circle of radius 1.7836 around (0, 0.3694): sqrt(2) + b = 1 + sqrt(1/2 + (1/sqrt(2) - b)^2) for b = 0.3694.
    x, y = (1.7836 * x).abs(), 0.3694 - 1.7836 * y
    lobe = 0.5**0.5
    return (x + y.abs() < 2**0.5) | ((x - lobe).square() + (y - lobe).square() < 1)


SHAPES = {"square": square, "ellipse": ellipse, "heart": heart}


def draw_shape(shape: str, scales: Tensor, angles: Tensor, radius: float) -> Tensor:
    """Draw a shape in all scales and orientations, centered in the middle pixel.

    Args:
        shape: one of ``SHAPES``.
        scales: factors of the radius, (S,).
        angles: clockwise, in radians, (A,).
        radius: radius of the circle around a shape of scale 1, in pixels.

    Returns:
        Whether each pixel is lit, bool (S, A, P, P); P is the odd number of pixels that a shape of scale 1 needs.
    """
    reach = int(radius + 0.5)  # pixels on each side of the middle one
    side = (2 * reach + 1) * SUPERSAMPLING
    line = ((torch.arange(side, dtype=torch.float64) + 0.5) / SUPERSAMPLING - side / SUPERSAMPLING / 2) / radius
    y, x = torch.meshgrid(line, line, indexing="ij")
    lit = torch.empty(len(scales), len(angles), 2 * reach + 1, 2 * reach + 1, dtype=torch.bool)
    for i, scale in enumerate(scales):
        for j, angle in enumerate(angles):
            cos, sin = angle.cos() / scale, angle.sin() / scale
            inside = SHAPES[shape](cos * x + sin * y, cos * y - sin * x)
            points = inside.reshape(2 * reach + 1, SUPERSAMPLING, 2 * reach + 1, SUPERSAMPLING)
            lit[i, j] = 2 * points.sum((1, 3)) >= SUPERSAMPLING**2
    return lit


class Sprites(FactorData):
    """Sprites: 737,280 binary images, 64x64, of five factors, drawn by this class.

    The factors are those of dSprites (Matthey et al. 2017, https://github.com/google-deepmind/dsprites-dataset):

    * shape: square, ellipse, heart;
    * scale: 6 values from 0.5 to 1;
    * orientation: 40 angles from 0 to 2 pi, both included;
    * x and y: 32 positions each.

    The pixels differ from the published ones: rankings of models can be compared with results on dSprites, numbers
    cannot. As in dSprites, orientations 0 and 2 pi give the same image, and squares and ellipses look almost the same
    after a quarter and half a turn, so no model can tell all classes apart.

    Positions are one pixel apart, which gives size / 2 of them along each axis; the largest sprite touches the border.
    Only the 720 combinations of shape, scale and orientation are drawn, in a second or two. An image is a window that
    is cut out of one of these drawings.

    Args:
        size: height and width of the images in pixels: a multiple of 4, >= 32.
        colors: number of channels. 1: white sprites. 2 or 3: a further factor, the first one, is the channel (red,
            green, blue) that the sprite is in.
        test_size: number of test images.
        **kwargs: arguments of ``ImageData``.

    Raises:
        ValueError: ``size`` or ``colors`` is out of range, or ``shape`` contradicts them.
    """

    def __init__(self, size: int = 64, colors: int = 1, test_size: int = 10_000, **kwargs):
        super().__init__(test_size=test_size, **kwargs)
        if size < 32 or size % 4:
            raise ValueError(f"data.size must be a multiple of 4 and >= 32, got {size}")
        if colors not in (1, 2, 3):
            raise ValueError(f"data.colors must be 1, 2 or 3, got {colors}")
        if self.known_shape not in (None, (colors, size, size)):
            given = list(self.known_shape or ())
            raise ValueError(f"data.shape={given} contradicts data.size={size} and data.colors={colors}")
        self.known_shape = (colors, size, size)
        self.size, self.colors = size, colors
        shape = torch.arange(1, 4)
        scale = torch.linspace(0.5, 1, 6, dtype=torch.float64)
        orientation = torch.linspace(0, 2 * pi, 40, dtype=torch.float64)
        position = torch.linspace(0, 1, size // 2, dtype=torch.float64)
        names, values = ["shape", "scale", "orientation", "x", "y"], [shape, scale, orientation, position, position]
        if colors > 1:
            names, values = ["color", *names], [torch.arange(1, colors + 1), *values]
        self.set_factors(names, values)

    @cached_property
    def canvases(self) -> Tensor:
        """Drawings of all shapes, scales and orientations, each with a margin that fits all positions of the window."""
        *_, scale, orientation, _, position = self.factor_values
        radius, margin = self.size // 4, len(position) - 1
        # 2 pi becomes 0, so that both images are equal to the last bit.
        drawings = torch.stack([draw_shape(name, scale, orientation % (2 * pi), radius) for name in SHAPES])
        return F.pad(drawings.flatten(0, 2).to(torch.uint8) * 255, (margin, margin, margin, margin))

    def windows(self, canvases: Tensor) -> Tensor:
        """Return all windows of canvases (N, side, side), as views: (N, tops, lefts, size, size)."""
        return canvases.unfold(1, self.size, 1).unfold(2, self.size, 1)

    @cached_property
    def grid_sum(self) -> Tensor:  # type: ignore[override]  # computed when first needed
        image = self.windows(self.canvases.sum(0, dtype=torch.long).unsqueeze(0)).sum((0, 1, 2))
        return image.expand(self.colors, -1, -1)

    def make(self, index: Tensor) -> Tensor:
        *colors, shape, scale, orientation, x, y = torch.unravel_index(index, self.factor_sizes)
        _, scales, orientations, across, down = self.factor_sizes[-5:]
        number = (shape * scales + scale) * orientations + orientation
        images = self.windows(self.canvases)[number, down - 1 - y, across - 1 - x].unsqueeze(1)
        if colors:
            images = images * (colors[0].unsqueeze(1) == torch.arange(self.colors))[..., None, None]
        return images
