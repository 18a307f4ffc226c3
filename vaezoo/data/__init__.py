"""Data modules: images and their labels in ready-made batches."""

from vaezoo.data.batching import Batches
from vaezoo.data.digits import Digits
from vaezoo.data.dsprites import DSprites
from vaezoo.data.factors import FactorData
from vaezoo.data.images import ImageData
from vaezoo.data.splits import LazyImages, Split
from vaezoo.data.sprites import Sprites
from vaezoo.data.torchvision import CIFAR10, KMNIST, MNIST, FashionMNIST

__all__ = [
    "CIFAR10",
    "KMNIST",
    "MNIST",
    "Batches",
    "DSprites",
    "Digits",
    "FactorData",
    "FashionMNIST",
    "ImageData",
    "LazyImages",
    "Split",
    "Sprites",
]
