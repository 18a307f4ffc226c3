"""torchvision's data sets: found in ``root``, else downloaded there.

A download is checked by its checksum. What lies there already is checked when it is read: the number and the size of
the images, and the labels; CIFAR-10's files by their checksums.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaezoo.data.images import ImageData
from vaezoo.data.splits import Split


class TorchvisionData(ImageData):
    """A data set of torchvision's, with its published test split.

    Attributes:
        dataset: the class's name in ``torchvision.datasets``.
        files: those that are read, below ``root``.
    """

    dataset: str
    files: tuple[str, ...]

    def prepare_data(self) -> None:
        """Look for the files in ``root``; download what is missing, in one process only.

        Until a download is complete it lies in a temporary folder on the same disk, so that one that fails leaves
        nothing, neither folders nor parts of files.
        """
        root = Path(self.root)
        missing = [name for name in self.files if not (root / name).is_file()]
        if not missing:
            return
        from torchvision import datasets

        there = next(folder for folder in (root, *root.absolute().parents) if folder.is_dir())
        try:
            with tempfile.TemporaryDirectory(prefix=".vaezoo-", dir=there) as fresh:
                getattr(datasets, self.dataset)(fresh, download=True)
                for name in missing:
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    Path(fresh, name).replace(root / name)
        except (OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise FileNotFoundError(
                f"{self.dataset} is not in data.root={self.root} and could not be downloaded ({reason}): "
                f"put torchvision's files there, name their folder with data.root=FOLDER, or use data=digits, "
                f"which is bundled"
            ) from error

    def file_error(self, name: str, reason: str) -> ValueError:
        """The error for a file that is not what the data set has there."""
        return ValueError(
            f"{Path(self.root, name)} is not {self.dataset}'s file, {reason}: delete it, and it is downloaded again"
        )


class IdxData(TorchvisionData):
    """A data set in MNIST's format: four idx files, images of 28x28 and labels below 10.

    Attributes:
        sizes: number of training and of test images, as published.
    """

    sizes = (60_000, 10_000)

    def __init_subclass__(cls) -> None:
        kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
        cls.files = tuple(f"{cls.dataset}/raw/{part}-{kind}" for part in ("train", "t10k") for kind in kinds)

    def read(self) -> tuple[Split, Split]:
        from torchvision.datasets.mnist import read_image_file, read_label_file

        splits = []
        for images, labels, size in zip(self.files[::2], self.files[1::2], self.sizes, strict=True):
            pixels = self.read_idx(images, read_image_file, (size, 28, 28))
            classes = self.read_idx(labels, read_label_file, (size,))
            if int(classes.max()) > 9:
                raise self.file_error(labels, f"a label is {int(classes.max())} and should be one of 0 to 9")
            splits.append(Split(pixels.unsqueeze(1), classes))
        return splits[0], splits[1]

    def read_idx(self, name: str, read: Callable[[str], Tensor], shape: tuple[int, ...]) -> Tensor:
        """The content of an idx file."""
        path = Path(self.root, name)
        try:
            content = read(str(path))
        except OSError:
            raise
        except Exception as error:  # torchvision asserts, indexes and views, whatever the bytes are
            size = path.stat().st_size
            raise self.file_error(name, f"its {size:,} bytes cannot be read ({type(error).__name__})") from error
        if content.shape != shape:
            raise self.file_error(name, f"it holds {tuple(content.shape)} values and should hold {shape}")
        return content


class MNIST(IdxData):
    """MNIST (LeCun et al. 1998): 60,000 and 10,000 handwritten digits, 28x28."""

    dataset = "MNIST"


class FashionMNIST(IdxData):
    """Fashion-MNIST (Xiao et al. 2017, https://arxiv.org/abs/1708.07747): clothing, 28x28."""

    dataset = "FashionMNIST"


class KMNIST(IdxData):
    """Kuzushiji-MNIST (Clanuwat et al. 2018, https://arxiv.org/abs/1812.01718): cursive kana, 28x28."""

    dataset = "KMNIST"


class CIFAR10(TorchvisionData):
    """CIFAR-10 (Krizhevsky 2009): 50,000 and 10,000 colour photographs, 32x32."""

    dataset = "CIFAR10"
    files = (
        *(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)),
        "cifar-10-batches-py/test_batch",
        "cifar-10-batches-py/batches.meta",
    )

    def read(self) -> tuple[Split, Split]:
        from torchvision.datasets import CIFAR10 as Images
        from torchvision.datasets.utils import check_integrity

        sums = [*Images.train_list, *Images.test_list, [Images.meta["filename"], Images.meta["md5"]]]
        for name, checksum in sums:
            if not check_integrity(str(Path(self.root, Images.base_folder, name)), checksum):
                raise self.file_error(f"{Images.base_folder}/{name}", "its checksum is another one")
        train, test = (Images(self.root, train=train) for train in (True, False))
        return self.split(train), self.split(test)

    @staticmethod
    def split(dataset: Any) -> Split:
        """The images (N, H, W, C) as (N, C, H, W), and the labels."""
        return Split(torch.as_tensor(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.as_tensor(dataset.targets))
