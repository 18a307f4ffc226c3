"""The data module of images."""

from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaezoo import seeding
from vaezoo.data.base import DataModule
from vaezoo.data.conditions import CONDITIONS, join, make_pairs
from vaezoo.data.options import require
from vaezoo.data.picture_files import SUFFIXES, PictureSettings, decode, describe_error
from vaezoo.data.splits import LazyExamples, Split, pixel_sum
from vaezoo.errors import ConfigError
from vaezoo.types import Shape

BINARIZE_MODES = ("auto", "dynamic", "static", "threshold", "none")


class ImageData(DataModule):
    """Provide training, validation and test images, stored as uint8 (N, C, H, W). A subclass defines ``read`` only.

    Modes of binarization:

    * ``dynamic``: each training pixel is drawn as a bit, 1 with probability pixel / 255, anew in each epoch
      (Salakhutdinov & Murray 2008, On the Quantitative Analysis of Deep Belief Networks,
      https://dl.acm.org/doi/10.1145/1390156.1390266); validation and test are drawn once, by ``split_seed``;
    * ``static``: all splits are drawn once, by ``split_seed``;
    * ``threshold``: a bit is 1 if pixel > 127;
    * ``none``: pixels stay bytes, given to the model as pixel / 255;
    * ``auto``: ``dynamic`` for a likelihood of bits only, else ``none``; if the likelihood follows the data, the mode
      of the class, ``default_binarize`` (``resolve_binarize``).

    Attributes:
        binary: whether all pixels are 0 or 255, so that all modes agree and nothing is drawn.
        default_binarize: the mode if neither ``binarize`` nor a likelihood was chosen.

    Args:
        shape: (C, H, W) of the images, checked when they are read. None: the shape of the images that are read.
        binarize: mode of binarization: ``auto``, ``dynamic``, ``static``, ``threshold`` or ``none``.
        condition: ``upper``, ``edges``, ``grey`` or ``small``: the batches are pairs (x, c), in which a condition c
            that is made from the image takes the place of the labels (``make_pairs``). ``shape`` is then that of x,
            which may be a part of an image. None: the batches have labels.
        **kwargs: arguments of ``DataModule``.

    Raises:
        ValueError: ``binarize`` is unknown or a number is too small.
    """

    noun = "image"
    file_suffixes = SUFFIXES
    binary = False
    default_binarize = "none"

    def __init__(
        self, shape: Shape | None = None, binarize: str = "dynamic", condition: str | None = None, **kwargs: Any
    ):
        super().__init__(shape, **kwargs)
        if condition is not None:
            require(condition in CONDITIONS, "condition", condition, f"null, {', '.join(CONDITIONS)}")
            self.known_shape = None if shape is None else self.known_shape
        self.condition = condition
        if binarize not in BINARIZE_MODES:
            raise ValueError(f"data.binarize={binarize} is not one of {', '.join(BINARIZE_MODES)}")
        self.binarize = binarize

    # Splits.

    def resolve_binarize(self, supported_data: Set[str] | None) -> str:
        """Replace ``binarize="auto"`` by the mode that suits a likelihood, and return the mode.

        Args:
            supported_data: kinds of data that the likelihood can score (``vaezoo.families``). None: the likelihood
                follows the data, and the mode is ``default_binarize``.
        """
        if self.binarize == "auto":
            by_likelihood = "dynamic" if supported_data == {"binary"} else "none"
            self.binarize = self.default_binarize if supported_data is None else by_likelihood
        return self.binarize

    def check_options(self) -> None:
        if self.binarize == "auto":
            raise ValueError(
                "data.binarize=auto depends on the likelihood: call resolve_binarize first, or choose one of "
                f"{', '.join(BINARIZE_MODES[1:])}"
            )

    def check_examples(self, split: Split, name: str) -> None:
        images = split.x
        if len(images.shape) != 4:
            raise ValueError(f"the images of {name} have the shape {tuple(images.shape)}: give (N, C, H, W)")
        sample = images[:1] if isinstance(images, LazyExamples) else images
        if sample.dtype != torch.uint8:
            raise ValueError(f"the images of {name} {describe_pixels(sample)}")

    def prepare_split(self, split: Split, name: str) -> Split:
        """Return the split with pixels that stay the same in every epoch: bytes, thresholded bits or bits drawn once.

        Training images of the mode ``dynamic`` stay bytes.
        """
        if self.is_unbinarized or (self.binarize == "dynamic" and name == "train"):
            return split
        if not isinstance(split.x, Tensor):
            raise ConfigError(
                f"data.binarize={self.binarize} needs the {self.noun}s in memory: use data.binarize=none, or "
                f"data.in_memory=true if there is enough of it"
            )
        if self.binarize == "threshold":
            return Split((split.x > 127).to(torch.uint8), split.y)
        draw = seeding.generator(self.split_seed, "binarize", name)
        bits = torch.empty_like(split.x)
        for images, part in zip(split.x.split(1000), bits.split(1000), strict=True):  # to save memory
            part.copy_(bernoulli(images, draw))
        return Split(bits, split.y)

    def pair(self, split: Split) -> Split:
        return split if self.condition is None else make_pairs(split, self.condition, self.noun)

    def to_model(self, x: Tensor, draw: Callable[[], torch.Generator], train: bool = False) -> Tensor:
        if self.is_unbinarized:
            return x.float().div_(255)
        return bernoulli(x, draw()).float() if train and self.binarize == "dynamic" else x.float()

    # One picture file.

    def picture_settings(self) -> PictureSettings:
        """Return how a picture file becomes an image of this shape: scaled to cover it, and cut."""
        assert self.shape is not None
        channels, height, width = self.shape
        return PictureSettings((height, width), channels)

    def read_example(self, path: Path) -> Tensor:
        if self.condition is not None or self.shape is None or len(self.shape) != 3 or self.shape[0] not in (1, 3):
            return super().read_example(path)
        try:
            return torch.tensor(decode(path, self.picture_settings()).pixels)[None]
        except Exception as error:  # Pillow raises errors of many kinds
            raise ConfigError(f"the picture cannot be read: {describe_error(path, error)}") from error

    # What people see.

    def with_context(self, images: Tensor, context: Tensor) -> Tensor:
        return images if self.condition is None else join(images, context, self.condition)

    def label_columns(self, y: Tensor) -> dict[str, np.ndarray]:
        return super().label_columns(y) if self.condition is None else {}

    # What a model reads.

    def describe(self) -> dict[str, Any]:
        return super().describe() | ({} if self.condition is None else {"condition": self.condition})

    @property
    def data_kind(self) -> str:  # type: ignore[override]  # it depends on an option
        """Kind of data in the batches: ``binary`` or ``byte`` (``vaezoo.families``)."""
        return "byte" if self.binarize == "none" else "binary"

    @property
    def is_unbinarized(self) -> bool:
        """Return whether the splits hold the images as they were read."""
        return self.binary or self.binarize == "none"

    @property
    def mean(self) -> Tensor:
        """Mean training image as the model sees it, (C, H, W)."""
        images = self.training_split.x
        bits = self.binarize in ("static", "threshold") and not self.binary
        return (pixel_sum(images) / (len(images) * (1 if bits else 255))).float()


def bernoulli(images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw bits that are 1 with probability pixel / 255, exactly: bool, of the images' shape."""
    # A draw is uniform over the 255 values 0 ... 254, of which exactly `pixel` are below the pixel.
    return images > torch.empty_like(images).random_(0, 255, generator=generator)


def describe_pixels(images: Tensor) -> str:
    """Say what is wrong with images that are not uint8, and how to convert them."""
    if not (finite := images.isfinite()).all():
        row = int((~finite).flatten(1).any(1).nonzero()[0])
        return f"hold NaN or infinity in row {row}: repair or remove that image"
    low, high = images.min().item(), images.max().item()
    if low >= 0 and high <= 1:
        advice = "multiply by 255 and convert to uint8, (255 * images).round().to(torch.uint8)"
    elif low >= 0 and high <= 255:
        advice = "convert to uint8, images.round().to(torch.uint8)"
    else:
        advice = "scale to 0 ... 255 and convert to uint8"
    return f"are {images.dtype} in [{low:g}, {high:g}]: {advice}"
