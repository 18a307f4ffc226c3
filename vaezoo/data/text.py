"""Sentences or documents of your own, one per line of a text file."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaezoo.data.own import OwnData
from vaezoo.data.splits import Split, count_labels, digest_rows
from vaezoo.data.text_files import (
    END_NUMBER,
    FEWEST_TOKENS,
    TOKENS,
    Lines,
    Vocabulary,
    read_lines,
    split_lines,
    typical_length,
)
from vaezoo.data.text_forms import FORMS, TextForm
from vaezoo.errors import ConfigError, suggest

PICTURE_SIZE, FONT_SIZE = (256, 64), 12  # of a sentence as a picture, in pixels
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


class TextData(OwnData):
    """Provide the lines of a text file as sequences of tokens.

    x is (B, T) int64: the numbers of the tokens, then ``<end>``, then padding (-1); or counts (``features``). The
    vocabulary has the tokens of the training lines; all others are ``<unk>``.

    Attributes:
        content: a list of sentences or documents in memory, which takes the place of the file.

    Args:
        path: a text file, one sentence or document per line; empty lines are left out. Or a folder of .txt files: their
            names are the classes of their lines.
        encoding: the encoding of the file, such as ``cp1252``.
        tokens: ``word``, ``character`` or ``byte`` (``tokenize``).
        lower_case: whether the text is converted to lower case.
        max_tokens: length T of x, ``<end>`` included. None: 99 % of the training lines fit.
        long: what happens to lines that do not fit. ``cut``: the first T tokens are kept, without ``<end>``; ``drop``:
            they are left out.
        vocabulary_size: largest number of tokens, ``<unk>`` and ``<end>`` included. None: all.
        features: what x is. ``tokens``: the tokens in their order; ``counts``: how often a line has each token of the
            vocabulary but ``<unk>`` and ``<end>``, int64 (B, D), without punctuation marks. No line is cut then.
        **kwargs: arguments of ``OwnData`` and ``DataModule``.

    Raises:
        ConfigError: an option has no possible value.
    """

    noun = "sentence"
    label_place = "data.path names a folder with a file CLASS.txt for each class"
    content: Sequence[str] | None = None
    shows_draws = True  # the most probable words are shorter and more common than sentences are

    def __init__(
        self,
        path: str = "",
        encoding: str = "utf-8",
        tokens: str = "word",
        lower_case: bool = False,
        max_tokens: int | None = None,
        long: str = "cut",
        vocabulary_size: int | None = None,
        features: str = "tokens",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        options = ("tokens", tokens, TOKENS), ("long", long, ("cut", "drop")), ("features", features, list(FORMS))
        for name, value, choices in options:
            if value not in choices:
                raise ConfigError(f"data.{name}={value} is unknown: {suggest(value, choices, f'data.{name}=')}")
        if max_tokens is not None and max_tokens < 2:
            raise ConfigError(f"data.max_tokens={max_tokens} should be >= 2: a token and <end>")
        if features == "counts" and (max_tokens is not None or long != "cut"):
            raise ConfigError("data.features=counts cuts no line: leave out data.max_tokens and data.long")
        self.path, self.file_encoding, self.features = path, encoding, features
        self.tokens, self.lower_case, self.long = tokens, lower_case, long
        self.max_tokens, self.vocabulary_size = max_tokens, vocabulary_size
        self.found_vocabulary: Vocabulary | None = None
        self.found: dict[str, Any] = {}
        self.line_keys: dict[str, np.ndarray] = {}
        self.class_names = []

    @property
    def form(self) -> TextForm:
        """The form of x: tokens or counts."""
        return FORMS[self.features]

    @property
    def data_kind(self) -> str:  # type: ignore[override]  # it depends on an option
        """Kind of data: ``token`` or ``count``."""
        return self.form.kind

    # Reading.

    def read_text(self) -> Lines:
        """Return the lines of the text."""
        if self.content is not None:
            lines = (" ".join(text.splitlines()) for text in self.content)
            return split_lines("\n".join(lines), "the list of texts")
        if not self.path:
            raise ConfigError("data.path is missing: name the text file, data.path=FILE.txt")
        return read_lines(self.path, self.file_encoding)

    def read(self) -> tuple[Split, ...]:
        text = self.read_text()
        lines = self.simplify(text.lines)
        self.line_keys, y = self.use_lines(text)
        digests = np.array([digest_line(line) for line in lines], dtype=np.uint64)
        train = self.divide(digests)["train"].tolist()
        texts = (self.form.counted_part(lines[row], self.tokens) for row in train)
        vocabulary = Vocabulary.build(texts, self.tokens, self.lower_case, self.vocabulary_size)
        sentences = [np.array(vocabulary.encode(line), dtype=np.int32) for line in lines]
        lengths = np.array([len(sentence) + 1 for sentence in sentences])  # with <end>
        typical = typical_length(lengths[train]) if self.features == "tokens" else int(lengths.max())
        length = self.max_tokens or max(2, typical)
        fits = torch.from_numpy(lengths <= length)
        if self.long == "drop":
            self.rows = {name: rows[fits[rows]] for name, rows in self.rows.items()}
        sets = tuple(self.rows.values())
        if min(len(rows) for rows in sets) == 0:
            raise ConfigError(f"data.max_tokens={length} leaves nothing of a set: use a larger one, or data.long=cut")
        self.found_vocabulary = vocabulary
        means = [round(float(np.minimum(lengths[rows], length).mean()), 4) for rows in sets]
        self.found = {
            "lines": len(lines),
            "empty lines left out": text.num_empty,
            "control characters": text.num_control,
            "duplicate lines": len(digests) - len(np.unique(digests)),
            f"lines of more than {length} tokens, {'cut' if self.long == 'cut' else 'left out'}": int((~fits).sum()),
            "longest line in tokens": int(lengths.max()),
            "tokens per sentence": dict(zip(("training", "validation", "test"), means, strict=True)),
            "vocabulary": len(vocabulary),
            "vocabulary's hash": vocabulary.hash,
            "unknown tokens in validation and test": self.unknown_share(sentences, sets[1:]),
        }
        if self.class_names:
            self.found["classes"] = count_labels(y, self.class_names)
        return tuple(self.make_split([sentences[row] for row in rows.tolist()], y[rows], length) for rows in sets)

    def fits(self, description: Mapping[str, Any]) -> bool:
        return "vocabulary" in description

    def read_new(self, description: Mapping[str, Any]) -> tuple[Split, np.ndarray]:
        text = self.read_text()
        self.found_vocabulary = vocabulary = vocabulary_of(description)
        self.tokens, self.lower_case = vocabulary.tokens, vocabulary.lower_case
        self.features = description.get("features", "tokens")
        sentences = [np.array(vocabulary.encode(line), dtype=np.int32) for line in self.simplify(text.lines)]
        length = description["shape"][0]
        kept = [i for i, row in enumerate(sentences) if self.long == "cut" or len(row) < length]
        if not kept:
            raise ConfigError(f"no line of {self.path} has fewer than {length} tokens: use data.long=cut")
        keys, y = self.use_lines(text)
        self.line_keys = {name: column[kept] for name, column in keys.items()}
        unknown = self.unknown_share([sentences[i] for i in kept], [torch.arange(len(kept))])
        print(f"{len(kept):,} lines; {100 * unknown:.3g} % of their tokens are not in the vocabulary of the training")
        split = self.make_split([sentences[i] for i in kept], y[kept], length)
        return split, digest_rows(split.x[:].numpy())

    def use_lines(self, text: Lines) -> tuple[dict[str, np.ndarray], Tensor]:
        """Set ``class_names``, and return the columns of ``all_keys`` and the labels of all lines, (N,)."""
        self.class_names = sorted(set(text.classes))
        numbers = {name: number for number, name in enumerate(self.class_names)}
        y = torch.tensor([numbers[name] for name in text.classes] or [-1] * len(text.lines))
        return {"line": np.array(text.numbers), "text": np.array(text.lines, dtype=object)}, y

    def all_keys(self) -> dict[str, np.ndarray]:
        """Return the number of each line in its file, counted from 1, and its text."""
        return self.line_keys

    def simplify(self, lines: list[str]) -> list[str]:
        """Return lines that are equal if they have the same tokens: in lower case, or with single spaces."""
        if self.lower_case:
            lines = [line.lower() for line in lines]
        if self.tokens == "word":  # lines that differ in white space only have equal tokens, so they belong in one set
            lines = [" ".join(line.split()) for line in lines]
        return lines

    def make_split(self, sentences: Sequence[np.ndarray], y: Tensor, length: int) -> Split:
        """Return sentences as x, with their labels."""
        return Split(self.form.make([row.tolist() for row in sentences], self.vocabulary, length), y)

    @staticmethod
    def unknown_share(sentences: Sequence[np.ndarray], sets: Sequence[Tensor]) -> float:
        """Return the share of ``<unk>`` among the tokens of the given sets."""
        tokens = np.concatenate([sentences[row] for rows in sets for row in rows.tolist()])
        return round(float((tokens == 0).mean()), 4) if len(tokens) else math.nan

    # Tokens.

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens by their numbers. The text is read if it was not."""
        if self.found_vocabulary is None:
            self.inspect()
        assert self.found_vocabulary is not None
        return self.found_vocabulary

    def encode_line(self, line: str) -> Tensor:
        """Return a text as the model sees it, int64 (T,)."""
        numbers = self.vocabulary.encode(line)
        assert self.shape is not None
        return self.form.make([numbers], self.vocabulary, self.shape[0])[0]

    def decode_tokens(self, x: Tensor) -> str:
        """Return the text of one example (T,)."""
        return self.form.to_text(x, self.vocabulary)

    def likelihood_config(self) -> dict[str, Any]:
        if self.features == "counts":
            return super().likelihood_config()
        family = {"_target_": "vaezoo.families.TokenSequence", "num_tokens": len(self.vocabulary)}
        assert self.shape is not None
        return family | {"length": self.shape[0], "end_token": END_NUMBER}

    def input_config(self) -> dict[str, Any] | None:
        if self.features == "counts":
            return super().input_config()
        return {"_target_": "vaezoo.nets.TokenInput", "num_tokens": len(self.vocabulary)}

    # For people.

    def describe(self) -> dict[str, Any]:
        vocabulary = self.vocabulary
        options = {"tokens": self.tokens, "lower_case": self.lower_case, "vocabulary_hash": vocabulary.hash}
        features = {} if self.features == "tokens" else {"features": self.features}  # tokens: as in earlier versions
        names = {"vocabulary": vocabulary.names, "class_names": self.class_names}
        return super().describe() | options | features | names

    def encoding(self, description: Mapping[str, Any]) -> Any:
        features = {"features": description["features"]} if "features" in description else {}
        return {key: description.get(key) for key in ("tokens", "lower_case", "vocabulary")} | features

    def report(self) -> dict[str, Any]:
        return self.found

    def to_columns(self, x: Tensor) -> dict[str, np.ndarray]:
        return {"reconstruction": np.array([self.decode_tokens(row) for row in x], dtype=object)}

    def to_images(self, x: Tensor) -> Tensor:
        """Return the texts as pictures, black on white, (N, 1, 64, 256)."""
        return draw_texts([self.decode_tokens(row) for row in x])

    def save_examples(self, x: Tensor, path: Path) -> list[Path]:
        """Write the texts as .txt, one per line; counts as .csv, with a column for each word."""
        return [self.form.save(x, self.vocabulary, path)]

    def save_labelled(self, x: Tensor, y: Tensor, path: Path) -> list[Path]:
        """Write the texts as .txt, one per line after its class and a tab; counts with a table of their labels."""
        if self.features != "tokens":
            return super().save_labelled(x, y, path)
        (file,) = self.save_examples(x, path)
        columns = self.label_columns(y)
        lines = file.read_text(encoding="utf-8").split("\n")
        texts = zip(columns.get("class", columns["label"]), lines, strict=False)  # nothing follows the last line
        file.write_text("".join(f"{name}\t{line}\n" for name, line in texts), encoding="utf-8")
        return [file]

    @property
    def entry_names(self) -> list[str] | None:
        return None if self.features == "tokens" else self.vocabulary.names[FEWEST_TOKENS:]


def prepare_texts(texts: Sequence[str], description: Mapping[str, Any]) -> Tensor:
    """Return x, int64 (N, T) or (N, D), of new texts, prepared exactly as those that a model was trained with.

    Args:
        texts: sentences or documents. Of a longer one than T tokens, the first T are kept.
        description: what ``TextData.describe`` returned for the training texts, ``model.data_description``.
    """
    vocabulary = vocabulary_of(description)
    numbers = [vocabulary.encode(text.strip()) for text in texts]
    return FORMS[description.get("features", "tokens")].make(numbers, vocabulary, description["shape"][0])


def vocabulary_of(description: Mapping[str, Any]) -> Vocabulary:
    """Return the vocabulary of a trained model from what ``TextData.describe`` returned for its data."""
    return Vocabulary(description["vocabulary"], description["tokens"], description["lower_case"])


def digest_line(line: str) -> int:
    """Return a digest of a text of 64 bits."""
    return int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest(), "little")


def draw_texts(texts: Sequence[str], size: tuple[int, int] = PICTURE_SIZE, font_size: int = FONT_SIZE) -> Tensor:
    """Draw texts, black on white, (N, 1, height, width), in a few lines. The rest of a longer one is an ellipsis.

    Args:
        texts: the texts; a line is broken between words if it is too long.
        size: width and height in pixels.
        font_size: size of the font in pixels.
    """
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    width, height = size
    num_lines = height // (font_size + 4)
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    font = ImageFont.truetype(str(file), font_size, layout_engine=ImageFont.Layout.BASIC)
    pictures = np.empty((len(texts), 1, height, width), np.uint8)
    for picture, text in zip(pictures, texts, strict=True):
        lines = [""]
        for word in text.split(" "):
            longer = f"{lines[-1]} {word}".strip()
            if not lines[-1] or font.getlength(longer) <= width - 8:
                lines[-1] = longer
            else:
                lines.append(word)
        if len(lines) > num_lines:
            lines = [*lines[: num_lines - 1], f"{lines[num_lines - 1]} {ELLIPSIS}"]
            while font.getlength(lines[-1]) > width - 8:
                lines[-1] = f"{lines[-1][:-2]}{ELLIPSIS}"
        image = Image.new("L", (width, height), 255)
        ImageDraw.Draw(image).multiline_text((4, 0), "\n".join(lines), 0, font, spacing=2)
        picture[0] = np.asarray(image)
    return torch.from_numpy(pictures).float() / 255
