"""Data modules whose batches are ready-made tensors."""

from vaezoo.data.base import Batches, ImageData, Split
from vaezoo.data.digits import Digits
from vaezoo.data.torchvision import CIFAR10, KMNIST, MNIST, FashionMNIST

__all__ = ["CIFAR10", "KMNIST", "MNIST", "Batches", "Digits", "FashionMNIST", "ImageData", "Split"]
