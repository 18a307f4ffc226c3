"""Read sentences from text files and turn them into tokens and back."""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaezoo.data.memory import check_memory
from vaezoo.data.text_encoding import decode
from vaezoo.errors import ConfigError, suggest

TOKENS = ("word", "character", "byte")
UNKNOWN, END = "<unk>", "<end>"  # tokens 0 and 1 of every vocabulary
END_NUMBER = 1
PADDING = -1  # what follows the end of a sentence
FEWEST_TOKENS = 2


class Lines(NamedTuple):
    """The lines of a text.

    Args:
        lines: the lines that are not empty, without white space at both ends.
        numbers: their numbers among all lines, counted from 1.
        num_empty: number of empty lines, which are left out.
        num_control: number of control characters other than tabs. They are kept; many of them are a sign of a file that
            is no text.
        classes: the class of each line; empty if the lines have none.
    """

    lines: list[str]
    numbers: list[int]
    num_empty: int
    num_control: int
    classes: Sequence[str] = ()


def read_lines(path: str | Path, encoding: str = "utf-8") -> Lines:
    """Read a text file, with or without a byte order mark, or a folder of them. A line ends with LF, CR LF or CR.

    Args:
        path: a text file; or a folder of .txt files, whose names without .txt are the classes of their lines.
        encoding: the encoding of the text, such as ``cp1252``.

    Raises:
        ConfigError: a file does not exist, has another encoding, does not fit into memory, or has no text; or the
            folder has fewer than two .txt files.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.glob("*.txt") if not file.name.startswith("."))
        if len(files) < 2:
            raise ConfigError(
                f"data.path={path} is a folder with {len(files)} .txt files: give a text file, or a folder with at "
                f"least two .txt files, one for each class"
            )
        check_memory(str(path), 8 * sum(file.stat().st_size for file in files), "use fewer files")
        return merge_texts({file.stem: read_lines(file, encoding) for file in files})
    if not path.is_file():
        raise ConfigError(f"data.path={path} is no file: give the path of a text file")
    # Python keeps a text in up to four bytes per character, and a line's object besides.
    check_memory(str(path), 8 * path.stat().st_size, "split the file")
    return split_lines(decode(path, path.read_bytes(), encoding), str(path))


def split_lines(text: str, name: str) -> Lines:
    """Return the lines of a text that are not empty.

    Args:
        text: the text.
        name: where it comes from, for messages.

    Raises:
        ConfigError: no line is left.
    """
    # str.splitlines would also split at other separators, which text files have inside of lines.
    rows = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    kept = {number: line for number, row in enumerate(rows, 1) if (line := row.strip())}
    lines = list(kept.values())
    if not lines:
        raise ConfigError(f"{name} has no text in {len(rows):,} lines: give one sentence or document per line")
    num_control = sum(len(CONTROL.findall(line)) for line in lines)
    return Lines(lines, list(kept), len(rows) - len(lines), num_control)


def merge_texts(texts: Mapping[str, Lines]) -> Lines:
    """Return the lines of several texts, whose names are the classes of their lines."""
    merged = Lines([], [], 0, 0, [name for name, text in texts.items() for _ in text.lines])
    for text in texts.values():
        merged.lines.extend(text.lines)
        merged.numbers.extend(text.numbers)
    num_empty, num_control = (sum(counts) for counts in zip(*(text[2:4] for text in texts.values()), strict=True))
    return merged._replace(num_empty=num_empty, num_control=num_control)


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


# Tokens.


class Separators(dict):
    """A table for ``str.translate`` that puts spaces around each punctuation mark and symbol, except apostrophes."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        apart = unicodedata.category(char)[0] in "PS" and char not in "'\u2019"
        self[code] = f" {char} " if apart else char
        return self[code]


SEPARATORS = Separators()
QUOTES = re.compile(r"(?<!\w)(['\u2019])|(['\u2019])(?!\w)")  # an apostrophe that is not inside of a word


def tokenize(line: str, tokens: str, lower_case: bool = False) -> list[str]:
    """Split a line into tokens.

    * ``word``: words are separated by white space; each punctuation mark and symbol is a token of its own, except
      apostrophes inside of words;
    * ``character``: each character (Unicode code point);
    * ``byte``: each byte of the UTF-8 encoding, written as the character with this number.

    Args:
        line: the text of one line.
        tokens: ``word``, ``character`` or ``byte``.
        lower_case: whether the text is converted to lower case before.

    >>> tokenize("Don't stop: 'go'!", "word")
    ["Don't", 'stop', ':', "'", 'go', "'", '!']
    >>> tokenize("né", "byte")
    ['n', 'Ã', '©']
    """
    if lower_case:
        line = line.lower()
    if tokens == "word":
        return QUOTES.sub(r" \1\2 ", line.translate(SEPARATORS)).split()
    return list(line if tokens == "character" else line.encode().decode("latin-1"))


NO_SPACE_BEFORE = re.compile(r" ([.,;:!?%)\]}\u2026])")
NO_SPACE_AFTER = re.compile(r"([(\[{]) ")


def join_tokens(pieces: Sequence[str], tokens: str) -> str:
    """Join tokens to a text. Splitting it gives the same tokens again.

    Args:
        pieces: the tokens.
        tokens: ``word``, ``character`` or ``byte``.

    >>> join_tokens(["Hello", "(", "world", ")", "!"], "word")
    'Hello (world)!'
    """
    if tokens == "word":
        return NO_SPACE_AFTER.sub(r"\1", NO_SPACE_BEFORE.sub(r"\1", " ".join(pieces)))
    text = "".join(pieces)
    if tokens == "byte":
        # A model may write the unknown token, which is no byte, and bytes that are no UTF-8.
        text = text.encode("latin-1", "replace").decode("utf-8", "replace")
    return text


class Vocabulary:
    """The tokens of a text by their numbers, and how a text is split into them.

    Token 0 is ``<unk>``, for all tokens that are not in the vocabulary; token 1 is ``<end>``, which follows a sentence.

    Args:
        names: all tokens in the order of their numbers.
        tokens: ``word``, ``character`` or ``byte``.
        lower_case: whether texts are converted to lower case.

    >>> vocabulary = Vocabulary(["<unk>", "<end>", "a", "dog"], "word")
    >>> vocabulary.encode("a dog barks")
    [2, 3, 0]
    >>> vocabulary.decode([2, 3, 1, -1])
    'a dog'
    """

    def __init__(self, names: Sequence[str], tokens: str, lower_case: bool = False):
        if tokens not in TOKENS:
            raise ConfigError(f"data.tokens={tokens} is unknown: {suggest(tokens, TOKENS, 'data.tokens=')}")
        self.names, self.tokens, self.lower_case = list(names), tokens, lower_case
        self.numbers = {name: number for number, name in enumerate(self.names)}

    @classmethod
    def build(
        cls, lines: Iterable[str], tokens: str, lower_case: bool = False, size: int | None = None
    ) -> "Vocabulary":
        """Return the vocabulary of a text: its most frequent tokens, equally frequent ones in alphabetical order.

        Bytes are the exception: the vocabulary has all 256 of them, so no text has unknown tokens.

        Args:
            lines: lines of the training set.
            tokens: ``word``, ``character`` or ``byte``.
            lower_case: whether texts are converted to lower case.
            size: largest number of tokens, ``<unk>`` and ``<end>`` included. None: all.

        Raises:
            ConfigError: ``tokens`` is unknown or ``size`` too small.
        """
        empty = cls([UNKNOWN, END], tokens, lower_case)
        if tokens == "byte":
            names = [chr(number) for number in range(256)]
            if size not in (None, 258):
                raise ConfigError(f"data.vocabulary_size={size}, but bytes have 258 tokens: leave it out")
        else:
            counts = Counter(piece for line in lines for piece in empty.split(line))
            names = sorted(counts, key=lambda name: (-counts[name], name))
            if size is not None and size <= FEWEST_TOKENS:
                raise ConfigError(f"data.vocabulary_size={size} should be > {FEWEST_TOKENS}: {UNKNOWN} and {END} count")
        return cls([*empty.names, *names[: None if size is None else size - FEWEST_TOKENS]], tokens, lower_case)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def hash(self) -> str:
        """SHA-256 of the tokens and of how a text is split: two vocabularies with the same hash are the same."""
        content = json.dumps([self.names, self.tokens, self.lower_case], ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def split(self, line: str) -> list[str]:
        """Return the tokens of a line as texts."""
        return tokenize(line, self.tokens, self.lower_case)

    def encode(self, line: str) -> list[int]:
        """Return the numbers of a line's tokens; unknown ones are 0. The end is not added."""
        return [self.numbers.get(piece, 0) for piece in self.split(line)]

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the text of tokens up to the first ``<end>`` or padding."""
        pieces = []
        for number in numbers:
            if number in (PADDING, END_NUMBER):
                break
            pieces.append(self.names[number])
        return join_tokens(pieces, self.tokens)


def pad_sentences(sentences: Sequence[Sequence[int]], max_tokens: int) -> Tensor:
    """Return sentences as rows of one length (N, max_tokens), int64.

    A sentence is followed by ``<end>`` and then by padding (-1). Of a sentence that is too long for its ``<end>``, the
    first ``max_tokens`` tokens are kept; it has no end, since it goes on.

    Args:
        sentences: numbers of the tokens of each sentence, without ``<end>``.
        max_tokens: length of a row, ``<end>`` included.
    """
    x = np.full((len(sentences), max_tokens), PADDING, dtype=np.int64)
    for row, numbers in zip(x, sentences, strict=True):
        kept = [*numbers[:max_tokens], END_NUMBER][:max_tokens]
        row[: len(kept)] = kept
    return torch.from_numpy(x)


def typical_length(lengths: Sequence[int] | NDArray, share: float = 0.99) -> int:
    """Return the length that a share of the sentences do not exceed."""
    return int(np.quantile(np.asarray(lengths), share, method="inverted_cdf"))
