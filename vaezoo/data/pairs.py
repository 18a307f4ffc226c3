"""Pairs of an image and something that belongs to it, such as its label or a caption."""

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaezoo.data.base import DataModule
from vaezoo.data.images import ImageData
from vaezoo.data.own import hash_content
from vaezoo.data.splits import Split, digest_rows
from vaezoo.data.text import draw_texts
from vaezoo.errors import ConfigError, count_noun, suggest
from vaezoo.layout import Layout

MIN_PICTURE_SIZE, TEXT_HEIGHT = 112, 44  # of an image with the text below it, in pixels


class ImagePairs(DataModule):
    """Provide pairs of an image and a few whole numbers, such as a label or the tokens of a caption.

    x is flat floats with the parts ``image`` and ``part`` (``layout``), to be scored by ``families.Joint``. A subclass
    defines ``read_pairs``, ``part_family`` and ``part_texts``. A part that is missing has NaN in all of its entries;
    the padding after a caption is -1, which is no missing entry.

    Attributes:
        part: name of the part beside the image.
        layout: shapes of the two parts, known when the data have been read.

    Args:
        images: the images, a data module with their binarization.
        hide: ``image`` or the name of the other part: it is missing in validation and test, so that ``task=impute``
            makes it from the other one. None: nothing is hidden.
        **kwargs: arguments of ``DataModule``.

    Raises:
        ConfigError: there is no part with the name of ``hide``.
    """

    noun = "pair"
    data_kind = "mixed"
    part: str
    layout: Layout

    def __init__(self, images: ImageData, hide: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        parts = ("image", self.part)
        if hide not in (*parts, None):
            raise ConfigError(
                f"data.hide={hide} is no part of the {self.noun}s, {suggest(str(hide), parts, 'data.hide=')}"
            )
        self.images, self.hide = images, hide
        self.has_missing = hide is not None
        self.digests: dict[str, np.ndarray] = {}
        self.found: dict[str, Any] = {}

    # What a subclass defines.

    @abstractmethod
    def read_pairs(self) -> list[tuple[Split, Tensor]]:
        """Return the training and the test set, each as images with labels and the numbers (N, T)."""

    @abstractmethod
    def part_family(self) -> dict[str, Any]:
        """Return the config node of the family of the part beside the image."""

    @abstractmethod
    def part_texts(self, numbers: Tensor) -> list[str]:
        """Return the texts for people of numbers (N, T), int64, in which -1 is missing or padding."""

    # Reading.

    def read(self) -> tuple[Split, ...]:
        sets = self.read_pairs()
        image_shape = tuple(sets[0][0].x.shape[1:])
        self.images.known_shape = image_shape
        self.layout = Layout({"image": image_shape, self.part: tuple(sets[0][1].shape[1:])})
        splits = []
        for name, ((images, y), numbers) in zip(("train", "test"), sets, strict=True):
            pixels = images[torch.arange(len(y))].flatten(1)
            x = torch.cat([pixels.to(torch.int16), numbers.to(torch.int16)], 1)
            self.digests[name] = digest_rows(x.numpy())
            splits.append(Split(x, y))
        return tuple(splits)

    def check_examples(self, split: Split, name: str) -> None:
        """Do nothing: the images are bytes, and the numbers are made by this class."""

    def take_apart(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (N, C, H, W) as bytes and numbers (N, T) of stored pairs (N, D)."""
        image, numbers = x.split(self.layout.sizes, -1)
        return image.to(torch.uint8).unflatten(-1, self.layout.shapes["image"]), numbers

    def prepare_split(self, split: Split, name: str) -> Split:
        image, numbers = self.take_apart(split.x[:])
        image = self.images.prepare_split(Split(image, split.y), name).x[:]
        return Split(torch.cat([image.flatten(1).to(torch.int16), numbers], 1), split.y)

    def to_model(self, x: Tensor, draw: Callable[[], torch.Generator], train: bool = False) -> Tensor:
        image, numbers = self.take_apart(x)
        pair = torch.cat([self.images.to_model(image, draw, train).flatten(1), numbers.float()], 1)
        return self.hidden(pair, None if train else self.hide)

    def hidden(self, x: Tensor, name: str | None) -> Tensor:
        """Return pairs (B, D) in which the part of this name, if one is named, is missing."""
        parts = self.layout.split(x)
        if name is not None:
            parts[name] = torch.full_like(parts[name], torch.nan)
        return self.layout.join(parts)

    # What a model reads.

    def likelihood_config(self) -> dict[str, Any]:
        self.inspect()
        layout = {name: list(shape) for name, shape in self.layout.shapes.items()}
        families = {"image": self.images.likelihood_config(), self.part: self.part_family()}
        return {"_target_": "vaezoo.families.Joint", "layout": layout, "families": families}

    def input_config(self) -> None:
        """Return None: the encoders of a multimodal VAE leave out a part that is missing."""

    def mask(self, name: str) -> Tensor:
        """Return which entries of x are in the part of this name, bool (D,)."""
        zeros = {key: torch.zeros(shape) for key, shape in self.layout.shapes.items()}
        return self.layout.join(zeros | {name: torch.ones(self.layout.shapes[name])}) > 0

    @property
    def is_category(self) -> Tensor:
        """The numbers are categories. Pixels are none: the expectation of a bit is a shade of grey, to be looked at."""
        return self.mask(self.part)

    # For people.

    @property
    def test_set(self) -> str:  # type: ignore[override]  # it depends on the data
        """A hash of the test pairs, of what is hidden, and of what the numbers mean, 16 hexadecimal digits."""
        self.inspect()
        return hash_content(self.digests["test"], json.dumps([self.encoding(self.describe()), self.hide]))[:16]

    def describe(self) -> dict[str, Any]:
        layout = {name: list(shape) for name, shape in self.layout.shapes.items()}
        content = hash_content(np.concatenate(list(self.digests.values())))
        return super().describe() | {"parts": layout, "content_hash": content, "class_names": self.class_names}

    def encoding(self, description: Mapping[str, Any]) -> Any:
        return {key: description.get(key) for key in ("parts", "words")}

    def report(self) -> dict[str, Any]:
        return self.found

    def texts(self, x: Tensor) -> list[str]:
        """Return the texts beside the images of pairs (N, D), as the model sees them; "?" for one that is missing."""
        numbers = self.layout.split(x)[self.part].cpu()
        known = ~numbers.isnan().all(-1)
        texts = self.part_texts(numbers.nan_to_num(nan=-1).long())
        return [text if is_known else "?" for text, is_known in zip(texts, known.tolist(), strict=True)]

    def to_images(self, x: Tensor) -> Tensor:
        """Return pictures of the pairs: each image, enlarged, with the text below it; a missing image is grey."""
        image = self.layout.split(x)["image"].float().cpu().nan_to_num(nan=0.5)
        factor = -(-MIN_PICTURE_SIZE // image.shape[-1])
        image = image.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
        text = draw_texts(self.texts(x), (image.shape[-1], TEXT_HEIGHT), 10)
        return torch.cat([image, text.expand(-1, image.shape[1], -1, -1)], -2)

    def save_examples(self, x: Tensor, path: Path) -> list[Path]:
        """Write the texts as .txt, one per line."""
        file = path.with_name(f"{path.name}.txt")
        file.write_text("".join(f"{text}\n" for text in self.texts(x)), encoding="utf-8")
        return [file]

    def count_holes(self, holes: Tensor) -> str:
        parts = self.layout.split(holes)
        counts = {name: int(part.reshape(len(holes), -1).any(1).sum()) for name, part in parts.items()}
        return " and ".join(count_noun(num, f"missing {name}") for name, num in counts.items() if num)

    def save_filled(self, x: Tensor, name: str, which: Tensor, path: Path) -> list[Path]:
        """Write the texts as .csv, with the key of each pair and its own text.

        The arguments are those of ``DataModule.save_filled``.
        """
        import pandas

        keys = {head: column[which.numpy()] for head, column in self.keys(name).items()}
        file = path.with_name(f"{path.name}.csv")
        pandas.DataFrame(keys | {f"imputed_{self.part}": self.texts(x)}).to_csv(file, index=False)
        return [file]

    def to_arrays(self, x: Tensor) -> dict[str, Tensor]:
        image, numbers = self.layout.split(x).values()
        return {"images": image, f"{self.part}_numbers": numbers}

    def to_columns(self, x: Tensor) -> dict[str, np.ndarray]:
        return {f"reconstructed_{self.part}": np.array(self.texts(x), dtype=object)}

    def keys(self, name: str) -> dict[str, np.ndarray]:
        numbers = self.take_apart(getattr(self, name).x)[1]
        return super().keys(name) | {self.part: np.array(self.part_texts(numbers.long()), dtype=object)}

    def imputation_errors(self, x: Tensor, name: str, which: Tensor) -> dict[str, dict[str, Any]]:
        """Return the share of the texts that are not exactly right, or the error of the pixels.

        The baseline is the most frequent text of the training, or its mean image.
        """
        if self.hide is None:
            return {}
        truth, train = getattr(self, name).x[which], self.training_split.x[:]
        guess = self.layout.split(x)[self.hide]
        if self.hide == "image":
            pixels = self.take_apart(truth)[0].double()
            pixels = pixels / 255 if self.images.is_unbinarized else pixels
            mean = self.layout.split(self.mean)["image"]
            model, baseline = ((pixels - value).square().mean().sqrt() for value in (guess, mean))
            kind = "RMSE"
        else:
            numbers = self.take_apart(truth)[1].long()
            values, counts = self.take_apart(train)[1].unique(dim=0, return_counts=True)
            wrong = [(numbers != value).any(1) for value in (guess.nan_to_num(nan=-1).long(), values[counts.argmax()])]
            model, baseline = (part.double().mean() for part in wrong)
            kind = "error rate"
        return {self.hide: {"kind": kind, "model": float(model), "baseline": float(baseline), "num": len(truth)}}
