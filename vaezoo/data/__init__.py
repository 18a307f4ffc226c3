"""Data modules: examples and their labels in ready-made batches."""

from vaezoo.data.array import ArrayData
from vaezoo.data.audio import AudioData
from vaezoo.data.base import DataModule
from vaezoo.data.batching import Batches
from vaezoo.data.bundled_tables import BundledTable
from vaezoo.data.captions import GlyphNames, SpriteCaptions
from vaezoo.data.digit_labels import DigitLabels
from vaezoo.data.digits import Digits
from vaezoo.data.dsprites import DSprites
from vaezoo.data.factors import FactorData
from vaezoo.data.folder import FolderData
from vaezoo.data.glyphs import Glyphs
from vaezoo.data.images import ImageData
from vaezoo.data.own import OwnData
from vaezoo.data.sequences import SequenceData
from vaezoo.data.splits import LazyExamples, Split
from vaezoo.data.sprites import Sprites
from vaezoo.data.table import TableData, prepare_rows
from vaezoo.data.text import TextData, prepare_texts
from vaezoo.data.topics import Topics
from vaezoo.data.torchvision import CIFAR10, KMNIST, MNIST, FashionMNIST

__all__ = [
    "CIFAR10",
    "KMNIST",
    "MNIST",
    "ArrayData",
    "AudioData",
    "Batches",
    "BundledTable",
    "DSprites",
    "DataModule",
    "DigitLabels",
    "Digits",
    "FactorData",
    "FashionMNIST",
    "FolderData",
    "GlyphNames",
    "Glyphs",
    "ImageData",
    "LazyExamples",
    "OwnData",
    "SequenceData",
    "Split",
    "SpriteCaptions",
    "Sprites",
    "TableData",
    "TextData",
    "Topics",
    "prepare_rows",
    "prepare_texts",
]
