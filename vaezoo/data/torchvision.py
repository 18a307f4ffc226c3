"""Data sets of torchvision, which are downloaded to ``root`` if they are missing.

torchvision checks the checksum of a download. Files that are already there are checked when they are read: number and
size of the images, and the labels; for CIFAR-10 the checksums of the files.
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
    """Provide a data set of torchvision with its published test split.

    Attributes:
        dataset: name of the class in ``torchvision.datasets``.
        files: paths of the files that are read, relative to ``root``.
    """

    dataset: str
    files: tuple[str, ...]

    def prepare_data(self) -> None:
        """Download the files that are missing in ``root``. Lightning calls this in one process only.

        A download goes to a temporary folder on the same disk until it is complete, so a failed one leaves neither
        folders nor incomplete files.

        Raises:
            FileNotFoundError: the files are missing and cannot be downloaded.
        """
        root = Path(self.root)
        missing = [name for name in self.files if not (root / name).is_file()]
        if not missing:
            return
        from torchvision import datasets

        parent = next(folder for folder in (root, *root.absolute().parents) if folder.is_dir())
        try:
            with tempfile.TemporaryDirectory(prefix=".vaezoo-", dir=parent) as fresh:
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
        """Return the error for a file that is not the published one."""
        return ValueError(
            f"{Path(self.root, name)} is not {self.dataset}'s file, {reason}: delete it, and it is downloaded again"
        )


class IdxData(TorchvisionData):
    """Provide a data set in the format of MNIST: four idx files, images of 28x28 and labels from 0 to 9.

    Attributes:
        sizes: published numbers of training and of test images.
    """

    known_shape = (1, 28, 28)
    default_binarize = "dynamic"
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
        """Read an idx file.

        Args:
            name: path of the file, relative to ``root``.
            read: torchvision's function that reads it.
            shape: shape that its content must have.

        Raises:
            ValueError: the file cannot be read or has another shape.
        """
        path = Path(self.root, name)
        try:
            content = read(str(path))
        except OSError:
            raise
        except Exception as error:  # torchvision raises many kinds of errors for broken bytes
            size = path.stat().st_size
            raise self.file_error(name, f"its {size:,} bytes cannot be read ({type(error).__name__})") from error
        if content.shape != shape:
            raise self.file_error(name, f"it holds {tuple(content.shape)} values and should hold {shape}")
        return content


class MNIST(IdxData):
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, 28x28.

    LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition, https://doi.org/10.1109/5.726791
    """

    dataset = "MNIST"


class FashionMNIST(IdxData):
    """Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28x28.

    Xiao et al. 2017, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms,
    https://arxiv.org/abs/1708.07747
    """

    dataset = "FashionMNIST"


class KMNIST(IdxData):
    """Kuzushiji-MNIST: 60,000 training and 10,000 test images of cursive kana, 28x28.

    Clanuwat et al. 2018, Deep Learning for Classical Japanese Literature, https://arxiv.org/abs/1812.01718
    """

    dataset = "KMNIST"


class CIFAR10(TorchvisionData):
    """CIFAR-10: 50,000 training and 10,000 test color photographs, 32x32.

    Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images,
    https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf
    """

    known_shape = (3, 32, 32)
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
        return self.to_split(train), self.to_split(test)

    @staticmethod
    def to_split(dataset: Any) -> Split:
        """Convert torchvision's images (N, H, W, C) to (N, C, H, W), with their labels."""
        return Split(torch.as_tensor(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.as_tensor(dataset.targets))
