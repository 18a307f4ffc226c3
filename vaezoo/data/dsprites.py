"""The published dSprites file."""

import zipfile
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaezoo.data.factors import FactorData
from vaezoo.data.splits import Split, pixel_sum

FILE_NAME = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
SOURCE = "https://github.com/google-deepmind/dsprites-dataset"
FACTORS = ("color", "shape", "scale", "orientation", "x", "y")


def read_array(archive: zipfile.ZipFile, key: str) -> NDArray:
    """Read an array of an .npz file. Pickled arrays are refused, since they could run code."""
    with archive.open(f"{key}.npy") as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def read_rows(archive: zipfile.ZipFile, key: str, rows: int = 8192) -> Iterator[NDArray]:
    """Read an array of an .npz file in parts of ``rows`` rows: the images of dSprites take 3 GB."""
    with archive.open(f"{key}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = header(stream)
        if fortran_order:
            raise ValueError(f"{key} is stored in column order")
        for start in range(0, shape[0], rows):
            part = (min(rows, shape[0] - start), *shape[1:])
            yield np.frombuffer(bytearray(stream.read(prod(part) * dtype.itemsize)), dtype).reshape(part)


class DSprites(FactorData):
    """dSprites: 737,280 binary images, 64x64, of five factors.

    Matthey et al. 2017, dSprites: Disentanglement testing Sprites dataset,
    https://github.com/google-deepmind/dsprites-dataset. The published file is read from ``root``; nothing is
    downloaded. Factors: shape, scale, orientation, position x, position y; the color has one class and is left out.
    A pixel takes one bit of memory, all images 377 MB.

    Args:
        test_size: number of test images.
        **kwargs: arguments of ``ImageData``.
    """

    @property
    def file(self) -> Path:
        """Path of the published file."""
        return Path(self.root, FILE_NAME)

    def prepare_data(self) -> None:
        """Raise an error if the file is missing."""
        if not self.file.is_file():
            raise FileNotFoundError(
                f"{FILE_NAME} is not in data.root={self.root}: put the file from {SOURCE} there, name its folder with "
                f"data.root=FOLDER, or use data=sprites, a similar data set that is drawn when it is needed"
            )

    def read(self) -> tuple[Split, Split]:
        try:
            with zipfile.ZipFile(self.file) as archive:
                self.unpack(archive)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
            raise ValueError(f"{self.file} is not the published file ({error}): get it from {SOURCE}") from error
        return super().read()

    def unpack(self, archive: zipfile.ZipFile) -> None:
        """Read the factors and the images from the published file.

        Raises:
            ValueError: the file does not hold the full grid of the factors.
        """
        classes, values = read_array(archive, "latents_classes"), read_array(archive, "latents_values")
        sizes = classes.max(0) + 1
        if not np.array_equal(classes, np.indices(sizes).reshape(len(sizes), -1).T):
            raise ValueError("its images are not the full grid of their factors in order")
        first = [np.unique(column, return_index=True)[1] for column in classes.T]  # one example of each class
        tables = [torch.from_numpy(values[rows, i]) for i, rows in enumerate(first)]
        named = [(name, table) for name, table in zip(FACTORS, tables, strict=True) if len(table) > 1]
        self.set_factors(*zip(*named, strict=True))
        packed, totals = [], []
        for part in read_rows(archive, "imgs"):
            packed.append(torch.from_numpy(np.packbits(part.reshape(len(part), -1), axis=1)))
            totals.append(pixel_sum(torch.from_numpy(part).unsqueeze(1)))
        self.packed, self.grid_sum = torch.cat(packed), 255 * torch.stack(totals).sum(0)
        if len(self.packed) != len(classes):
            raise ValueError(f"it has {len(self.packed)} images for {len(classes)} labels")

    def make(self, index: Tensor) -> Tensor:
        size = self.grid_sum.shape  # (1, H, W)
        bits = np.unpackbits(self.packed[index].numpy(), axis=1, count=size.numel())
        return torch.from_numpy(bits).mul_(255).reshape(-1, *size)
