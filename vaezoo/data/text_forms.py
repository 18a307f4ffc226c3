"""The forms that a text has as x: its tokens in their order, or the count of each word."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaezoo.data.text_files import FEWEST_TOKENS, Vocabulary, pad_sentences, tokenize

MOST_WORDS = 10  # that stand for a text of which only the counts are known


class TextForm(ABC):
    """A form of x.

    Attributes:
        kind: the kind of data (``vaezoo.families``).
    """

    kind: str

    def counted_part(self, line: str, tokens: str) -> str:
        """Return what of a line makes the vocabulary."""
        return line

    @abstractmethod
    def make(self, sentences: Sequence[Sequence[int]], vocabulary: Vocabulary, length: int) -> Tensor:
        """Return x, int64 (N, *shape), of the numbers of the tokens of sentences.

        Args:
            sentences: the numbers of each, without ``<end>``.
            vocabulary: the tokens by their numbers.
            length: largest number of tokens, ``<end>`` included.
        """

    @abstractmethod
    def to_text(self, x: Tensor, vocabulary: Vocabulary) -> str:
        """Return the text of one x for people."""

    @abstractmethod
    def save(self, x: Tensor, vocabulary: Vocabulary, path: Path) -> Path:
        """Write examples (N, *shape) in a form for people, and return the file. ``path`` has no suffix."""


class Tokens(TextForm):
    """x is the numbers of the tokens, then ``<end>``, then padding (-1), (T,)."""

    kind = "token"

    def make(self, sentences: Sequence[Sequence[int]], vocabulary: Vocabulary, length: int) -> Tensor:
        return pad_sentences(sentences, length)

    def to_text(self, x: Tensor, vocabulary: Vocabulary) -> str:
        return vocabulary.decode(x.long().tolist())

    def save(self, x: Tensor, vocabulary: Vocabulary, path: Path) -> Path:
        """Write the texts as .txt, one per line."""
        file = path.with_name(f"{path.name}.txt")
        texts = [" ".join(self.to_text(row, vocabulary).splitlines()) for row in x]  # bytes may be the end of a line
        file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        return file


class Counts(TextForm):
    """x is the count of each token of the vocabulary but ``<unk>`` and ``<end>``, (D,)."""

    kind = "count"

    def counted_part(self, line: str, tokens: str) -> str:
        """Return a line without its punctuation marks, which say nothing of its topic."""
        if tokens != "word":
            return line
        return " ".join(piece for piece in tokenize(line, tokens) if any(map(str.isalnum, piece)))

    def make(self, sentences: Sequence[Sequence[int]], vocabulary: Vocabulary, length: int) -> Tensor:
        x = np.zeros((len(sentences), len(vocabulary)), dtype=np.int64)
        for row, numbers in zip(x, sentences, strict=True):
            np.add.at(row, numbers, 1)
        return torch.from_numpy(x[:, FEWEST_TOKENS:].copy())

    def to_text(self, x: Tensor, vocabulary: Vocabulary) -> str:
        """Return the most frequent words with their counts, or with the means of their counts."""
        largest = x.argsort(descending=True, stable=True)[:MOST_WORDS]
        words = [(vocabulary.names[FEWEST_TOKENS + i], float(x[i])) for i in largest.tolist()]
        return ", ".join(f"{name} {count:.2g}" for name, count in words if count > 0)

    def save(self, x: Tensor, vocabulary: Vocabulary, path: Path) -> Path:
        """Write the counts as .csv, with a column for each word."""
        import pandas

        file = path.with_name(f"{path.name}.csv")
        pandas.DataFrame(x.numpy(), columns=vocabulary.names[FEWEST_TOKENS:]).to_csv(file, index=False)
        return file


FORMS: dict[str, TextForm] = {"tokens": Tokens(), "counts": Counts()}
