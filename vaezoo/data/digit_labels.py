"""Handwritten digits with their labels."""

from typing import Any

import torch
from torch import Tensor

from vaezoo.data.digits import Digits
from vaezoo.data.pairs import ImagePairs
from vaezoo.data.splits import Split
from vaezoo.data.torchvision import MNIST
from vaezoo.errors import ConfigError, suggest

SOURCES = {"digits": Digits, "mnist": MNIST}


class DigitLabels(ImagePairs):
    """Provide pairs of a handwritten digit and its label: the parts ``image`` and ``label``, (1,).

    Args:
        source: ``digits``, the 1,797 digits of scikit-learn; or ``mnist``, which is read from ``root``, and downloaded
            if it is missing.
        binarize: mode of binarization of the image (``ImageData``).
        hide: ``image`` or ``label``: it is missing in validation and test. None: nothing is hidden.
        **kwargs: arguments of ``DataModule``.

    Raises:
        ConfigError: ``source`` is unknown.
    """

    part = "label"

    def __init__(self, source: str = "digits", binarize: str = "dynamic", hide: str | None = None, **kwargs: Any):
        if source not in SOURCES:
            raise ConfigError(f"data.source={source} is unknown: {suggest(source, SOURCES, 'data.source=')}")
        images = SOURCES[source](
            binarize=binarize, **{key: kwargs[key] for key in ("root", "split_seed") if key in kwargs}
        )
        super().__init__(images, hide, **kwargs)
        self.class_names = list("0123456789")

    def prepare_data(self) -> None:
        self.images.prepare_data()

    def read_pairs(self) -> list[tuple[Split, Tensor]]:
        return [(split, split.y.unsqueeze(1)) for split in self.images.read()]

    def part_family(self) -> dict[str, Any]:
        return {"_target_": "vaezoo.families.IndexCategorical", "num_categories": 10}

    def part_texts(self, numbers: Tensor) -> list[str]:
        return [str(number) if number >= 0 else "?" for number in torch.flatten(numbers).tolist()]
