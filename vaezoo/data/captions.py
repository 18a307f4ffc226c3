"""Pairs of an image and a caption: letters with their names, and sprites that are described."""

import unicodedata
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaezoo import seeding
from vaezoo.data.glyphs import SCRIPTS, Glyphs
from vaezoo.data.images import ImageData
from vaezoo.data.pairs import ImagePairs
from vaezoo.data.splits import Split, digest_rows, mix_bits
from vaezoo.data.sprites import SHAPES, Sprites
from vaezoo.data.text import digest_line
from vaezoo.data.text_files import END_NUMBER, Vocabulary, pad_sentences
from vaezoo.errors import ConfigError


class CaptionedImages(ImagePairs):
    """Provide pairs of an image and its caption: the parts ``image`` and ``caption``, (T,). A subclass defines
    ``read_captioned``.

    A caption has two properties, and combinations of them are held out: the test set has all images of these captions
    and the training set none, so that a model must combine what it has seen apart.

    Args:
        images: the images, a data module with their binarization.
        held_out: share of the combinations that are held out, in (0, 1).
        **kwargs: arguments of ``ImagePairs``.

    Raises:
        ConfigError: ``held_out`` is out of range.
    """

    part = "caption"

    def __init__(self, images: ImageData, held_out: float = 0.1, **kwargs: Any):
        super().__init__(images, **kwargs)
        if not 0 < held_out < 1:
            raise ConfigError(f"data.held_out={held_out} should be in (0, 1)")
        self.held_out = held_out
        self.vocabulary: Vocabulary

    @abstractmethod
    def read_captioned(self) -> tuple[Split, list[str], list[tuple[str, str] | None]]:
        """Return the images with labels, their captions, and the two properties of each caption.

        None in place of the properties: this caption is no combination and is not held out.
        """

    def read_pairs(self) -> list[tuple[Split, Tensor]]:
        images, captions, properties = self.read_captioned()
        chosen = hold_out({pair for pair in properties if pair is not None}, self.held_out, self.split_seed)
        is_test = np.array([pair in chosen for pair in properties])
        # An image that the training set has with another caption has no single right one.
        digests = digest_rows(images.x[:].numpy())
        is_ambiguous = is_test & np.isin(digests, digests[~is_test])
        sets = [np.flatnonzero(~is_test), np.flatnonzero(is_test & ~is_ambiguous)]
        if min(map(len, sets)) == 0:
            raise ConfigError(f"data.held_out={self.held_out} leaves nothing of a set: choose another share")
        self.vocabulary = Vocabulary.build((captions[row] for row in sets[0]), "word", lower_case=True)
        numbers = [self.vocabulary.encode(caption) for caption in captions]
        length = 1 + max(map(len, numbers))
        self.found = {
            "captions": len(set(captions)),
            "held-out captions": len({captions[row] for row in sets[1]}),
            "test images left out, which training has with another caption": int(is_ambiguous.sum()),
            "words": len(self.vocabulary),
            "tokens of the longest caption": length,
        }
        return [
            (images.select(torch.from_numpy(rows)), pad_sentences([numbers[row] for row in rows], length))
            for rows in sets
        ]

    def part_family(self) -> dict[str, Any]:
        family = {"_target_": "vaezoo.families.TokenSequence", "num_tokens": len(self.vocabulary)}
        return family | {"length": self.layout.shapes["caption"][0], "end_token": END_NUMBER}

    def part_texts(self, numbers: Tensor) -> list[str]:
        return [self.vocabulary.decode(row) for row in numbers.tolist()]

    @property
    def grouped_entries(self) -> list[Tensor]:
        return [self.mask(self.part)]

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"words": self.vocabulary.names}


def hold_out(pairs: set[tuple[str, str]], share: float, seed: int) -> set[tuple[str, str]]:
    """Return about this share of pairs of properties, so that each property also stands in a pair that is left.

    They are chosen by a hash of their content and of ``seed``.

    >>> pairs = {(size, shape) for size in ("small", "large") for shape in ("square", "heart")}
    >>> len(hold_out(pairs, 0.25, seed=0))
    1
    """
    key = np.uint64(seeding.derive(seed, "content") % 2**64)
    place = {pair: int(mix_bits(np.array([np.uint64(digest_line("\n".join(pair))) ^ key]))[0]) for pair in pairs}
    left: dict[tuple[int, str], int] = {}
    for pair in pairs:
        for item in enumerate(pair):
            left[item] = left.get(item, 0) + 1
    chosen: set[tuple[str, str]] = set()
    for pair in sorted(pairs, key=place.__getitem__):
        if len(chosen) >= round(share * len(pairs)):
            break
        if all(left[item] > 1 for item in enumerate(pair)):
            chosen.add(pair)
            for item in enumerate(pair):
                left[item] -= 1
    return chosen


class GlyphNames(CaptionedImages):
    """Provide pairs of a letter or a digit and its name in Unicode, such as "latin small letter e with acute".

    The images are those of ``Glyphs``. Held out are combinations of a letter and its accents: "latin small letter e" is
    seen with other accents and "with acute" on other letters. The labels are the scripts.

    Args:
        size: height and width of the images in pixels; >= 8.
        binarize: mode of binarization of the image (``ImageData``).
        **kwargs: arguments of ``CaptionedImages``.
    """

    def __init__(self, size: int = 32, binarize: str = "dynamic", **kwargs: Any):
        split_seed = {key: kwargs[key] for key in ("split_seed",) if key in kwargs}
        super().__init__(Glyphs(size=size, binarize=binarize, **split_seed), **kwargs)
        self.class_names = [script.capitalize() for script in SCRIPTS]

    def read_captioned(self) -> tuple[Split, list[str], list[tuple[str, str] | None]]:
        glyphs: Any = self.images
        split, _ = glyphs.read_all()
        names = [unicodedata.name(glyphs.letters[number]) for number in split.y.tolist()]
        labels = torch.tensor([SCRIPTS.index(name.split(" ")[0]) for name in names])
        captions = [name.lower() for name in names]
        return Split(split.x, labels), captions, [split_name(caption) for caption in captions]


def split_name(name: str) -> tuple[str, str] | None:
    """Return a letter and its accents, if it has some.

    >>> split_name("latin small letter e with acute")
    ('latin small letter e', 'with acute')
    """
    letter, _, accents = name.partition(" with ")
    return (letter, f"with {accents}") if accents else None


SIZE_WORDS = ("small", "small", "medium", "medium", "large", "large")  # of the six scales
ROWS, COLUMNS = ("top", "", "bottom"), ("left", "", "right")


class SpriteCaptions(CaptionedImages):
    """Provide pairs of a sprite and a sentence about it, such as "a large heart at the top left".

    The images are those of ``Sprites``, drawn at random from its grid. Held out are combinations of a size with a shape
    ("large heart") and a place ("top left"). The labels are the shapes.

    Args:
        size: height and width of the images in pixels: a multiple of 4, >= 32.
        num: number of pairs, before those that are ambiguous are left out.
        **kwargs: arguments of ``CaptionedImages``.

    Raises:
        ConfigError: ``num`` is too small.
    """

    def __init__(self, size: int = 32, num: int = 20_000, **kwargs: Any):
        super().__init__(Sprites(size=size, binarize="threshold"), **kwargs)
        if num < 100:
            raise ConfigError(f"data.num={num} should be >= 100")
        self.num, self.class_names = num, list(SHAPES)

    def read_captioned(self) -> tuple[Split, list[str], list[tuple[str, str] | None]]:
        sprites: Any = self.images
        draw = seeding.generator(self.split_seed, "sprite_captions")
        index = torch.randint(0, int(np.prod(sprites.factor_sizes)), (self.num,), generator=draw)
        factors = torch.stack(torch.unravel_index(index, sprites.factor_sizes), 1)
        properties = [describe_sprite(row, sprites.factor_sizes) for row in factors.tolist()]
        captions = [f"a {what} at the {where}" for what, where in properties]
        return Split(sprites.make(index), factors[:, 0]), captions, list(properties)


def describe_sprite(factors: Sequence[int], sizes: Sequence[int]) -> tuple[str, str]:
    """Return the words for the size and the shape of a sprite, and for its place.

    >>> describe_sprite([2, 5, 0, 0, 0], [3, 6, 40, 16, 16]), describe_sprite([0, 0, 0, 8, 8], [3, 6, 40, 16, 16])
    (('large heart', 'top left'), ('small square', 'center'))

    Args:
        factors: the numbers of shape, scale, orientation, x and y.
        sizes: the numbers of their values.
    """
    shape, scale, _, x, y = factors
    place = f"{ROWS[3 * y // sizes[4]]} {COLUMNS[3 * x // sizes[3]]}".strip()
    return f"{SIZE_WORDS[scale]} {list(SHAPES)[shape]}", place or "center"
