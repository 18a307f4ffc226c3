"""torchvision's data sets: found in ``root``, else downloaded there, checked by their checksums."""

from pathlib import Path

import torch
from torch import Tensor

from vaezoo.data.base import ImageData, Split


class TorchvisionData(ImageData):
    """A data set of torchvision's, with its published test split.

    Attributes:
        dataset: the class's name in ``torchvision.datasets``.
    """

    dataset: str

    def prepare_data(self) -> None:
        """Look for the files in ``root``; download what is missing, in one process only."""
        from torchvision import datasets

        make = getattr(datasets, self.dataset)
        try:
            make(self.root, train=True, download=False)
            make(self.root, train=False, download=False)
            return
        except RuntimeError:
            pass  # torchvision's word for "not there, or not whole"
        try:
            Path(self.root).mkdir(parents=True, exist_ok=True)
            make(self.root, train=True, download=True)
            make(self.root, train=False, download=True)
        except (OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise FileNotFoundError(
                f"{self.dataset} is not in data.root={self.root} and could not be downloaded ({reason}): "
                f"put torchvision's files there, name their folder with data.root=FOLDER, or use data=digits, "
                f"which is bundled"
            ) from error

    def read(self) -> tuple[Split, Split]:
        from torchvision import datasets

        make = getattr(datasets, self.dataset)
        train, test = (make(self.root, train=train, download=False) for train in (True, False))
        return self.split(train), self.split(test)

    @staticmethod
    def split(dataset) -> Split:
        images = torch.as_tensor(dataset.data)
        # Grey images come as (N, H, W), colour as (N, H, W, C).
        images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)
        labels: Tensor = torch.as_tensor(dataset.targets)
        return Split(images.contiguous(), labels)


class MNIST(TorchvisionData):
    """MNIST (LeCun et al. 1998): 60,000 and 10,000 handwritten digits, 28x28."""

    dataset = "MNIST"


class FashionMNIST(TorchvisionData):
    """Fashion-MNIST (Xiao et al. 2017, https://arxiv.org/abs/1708.07747): clothing, 28x28."""

    dataset = "FashionMNIST"


class KMNIST(TorchvisionData):
    """Kuzushiji-MNIST (Clanuwat et al. 2018, https://arxiv.org/abs/1812.01718): cursive kana, 28x28."""

    dataset = "KMNIST"


class CIFAR10(TorchvisionData):
    """CIFAR-10 (Krizhevsky 2009): 50,000 and 10,000 colour photographs, 32x32."""

    dataset = "CIFAR10"
