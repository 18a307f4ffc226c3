"""Handwritten digits that are part of scikit-learn."""

import torch

from vaezoo import seeding
from vaezoo.data.images import ImageData
from vaezoo.data.splits import Split


class Digits(ImageData):
    """Digits: 1,797 handwritten digits, 8x8, 17 gray levels, no download.

    The test set of "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998,
    https://doi.org/10.24432/C50P49), which is part of scikit-learn. It has no published split: 360 test images were
    drawn once, the same for all seeds.
    """

    known_shape = (1, 8, 8)
    default_binarize = "dynamic"
    test_size = 360

    def read(self) -> tuple[Split, Split]:
        from sklearn.datasets import load_digits  # imported here, since it takes a second

        images, labels = load_digits(return_X_y=True)
        bytes_ = torch.from_numpy(images).mul(255 / 16).round().to(torch.uint8).reshape(-1, 1, 8, 8)
        split = Split(bytes_, torch.from_numpy(labels))
        order = torch.randperm(len(bytes_), generator=seeding.generator(0, "digits"))
        test, train = order[: self.test_size].sort().values, order[self.test_size :].sort().values
        return split.select(train), split.select(test)
