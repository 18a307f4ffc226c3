"""Tests of text files: lines, tokens, vocabularies, and sentences as rows of numbers."""

import re

import pytest
import torch

from vaezoo.data import memory
from vaezoo.data.text_files import Vocabulary, join_tokens, pad_sentences, read_lines, tokenize, typical_length
from vaezoo.errors import ConfigError

SENTENCES = ["The cat sat.", "Größe — naïve façade", "日本語 の 文", "a (b) 'c' don't; 50%!", "emoji 😀, é"]


def write(folder, content):
    (folder / "a.txt").write_bytes(content)
    return folder / "a.txt"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_of_utf8(end, mark, tmp_path):
    """With and without byte order mark, for the line ends of all systems, and with or without a last line end."""
    for last in ("", end):
        found = read_lines(write(tmp_path, mark + (end.join(SENTENCES) + last).encode()))
        assert found == (SENTENCES, list(range(1, len(SENTENCES) + 1)), 0, 0, ())


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-8"])
def test_lines_of_another_encoding(encoding, tmp_path):
    path = write(tmp_path, "Größe\r\n— naïve façade".encode(encoding))
    assert read_lines(path, encoding).lines == ["Größe", "— naïve façade"]
    with pytest.raises(ConfigError, match=r"data.encoding=klingon is unknown: use utf-8, cp1252"):
        read_lines(path, "klingon")


def test_empty_lines_are_left_out_and_counted(tmp_path):
    """Lines of white space count as empty; white space at the ends of a line is removed."""
    found = read_lines(write(tmp_path, "\n one \n\n \t\ntwo\u3000\n\n".encode()))
    assert found == (["one", "two"], [2, 5], 4, 0, ())


def test_separators_inside_of_a_line_do_not_end_it(tmp_path):
    """Form feeds and Unicode's line separators are characters of a line; control characters are counted, tabs not."""
    line = "a\x0cb\u2028c\x85d\te\x07"
    assert read_lines(write(tmp_path, f"{line}\nf".encode())) == ([line, "f"], [1, 2], 0, 3, ())


def test_one_very_long_line(tmp_path):
    """A document of a million words is one line."""
    (line,) = read_lines(write(tmp_path, b"word " * 1_000_000)).lines
    assert len(Vocabulary.build([line], "word")) == 3
    assert len(tokenize(line, "word")) == 1_000_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "eins\r\nzwei\rdrei Größe\n".encode("latin-1"),
            "line 3 has the byte 0xf6, which is not utf-8: name the encoding of the file, such as data.encoding=cp1252",
        ),
        ("é".encode()[:1], "line 1 has the byte 0xc3"),
        ("text".encode("utf-16"), "is UTF-16, not UTF-8: use data.encoding=utf-16"),
        ("text\n".encode("utf-16-le"), "line 1 has a zero byte"),
        (b"", "has no text in 1 lines"),
        (b"\n \n\n", "has no text in 3 lines"),
    ],
)
def test_texts_that_are_refused(content, words, tmp_path):
    """One sentence with the file, and the line if there is one."""
    with pytest.raises(ConfigError, match=re.escape(words)) as error:
        read_lines(write(tmp_path, content))
    assert str(error.value).startswith(str(tmp_path / "a.txt"))


def test_files_that_are_missing_or_too_large(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"data.path=\S+b.txt is no file"):
        read_lines(tmp_path / "b.txt")
    monkeypatch.setattr(memory, "available_memory", lambda: 20)
    with pytest.raises(ConfigError, match=r"a.txt needs .* GB of memory"):
        read_lines(write(tmp_path, b"abc"))


@pytest.mark.parametrize(
    ("line", "pieces"),
    [
        ("The cat, (a dog)...", ["The", "cat", ",", "(", "a", "dog", ")", ".", ".", "."]),
        ("don't 'stop' O’Neil rock 'n' roll", ["don't", "'", "stop", "'", "O’Neil", "rock", "'", "n", "'", "roll"]),  # noqa: RUF001
        ("«Größe» — 5€+3", ["«", "Größe", "»", "—", "5", "€", "+", "3"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs are parts of words
        ("a\u00a0b\tc", ["a", "b", "c"]),
    ],
)
def test_words(line, pieces):
    """White space separates words; punctuation and symbols are apart."""
    assert tokenize(line, "word") == pieces
    assert tokenize(line, "word", lower_case=True) == [piece.lower() for piece in pieces]


def test_characters_and_bytes():
    assert tokenize("é a", "character") == ["é", " ", "a"]
    assert [ord(piece) for piece in tokenize("é a", "byte")] == list("é a".encode())


@pytest.mark.parametrize("tokens", ["word", "character", "byte"])
def test_decoding_inverts_encoding(tokens):
    """The text of a line's tokens has the same tokens; for characters and bytes it is the line itself."""
    vocabulary = Vocabulary.build(SENTENCES, tokens)
    for line in SENTENCES:
        numbers = vocabulary.encode(line)
        text = vocabulary.decode(numbers)
        assert vocabulary.encode(text) == numbers
        assert 0 not in numbers
        if tokens != "word":
            assert text == line
    assert vocabulary.decode([*vocabulary.encode("cat"), 1, *vocabulary.encode("sat")]) in ("cat", "c")
    if tokens == "byte":
        assert vocabulary.decode([2 + 0xC3]) == "\ufffd"  # half of a character
        assert vocabulary.decode([0, 2 + 65]).endswith("A")


def test_texts_look_as_they_are_written():
    assert join_tokens(["Hello", ",", "(", "world", ")", "!"], "word") == "Hello, (world)!"


def test_a_vocabulary_has_the_most_frequent_tokens():
    """In the order of frequency, then of the alphabet; ``size`` counts the two special tokens."""
    lines = ["b d c", "b c", "b a"]
    assert Vocabulary.build(lines, "word").names == ["<unk>", "<end>", "b", "c", "a", "d"]
    small = Vocabulary.build(lines, "word", size=4)
    assert small.names == ["<unk>", "<end>", "b", "c"]
    assert small.encode("a b c x") == [0, 2, 3, 0]
    assert small.decode([2, 0, 3]) == "b <unk> c"
    assert small.decode([2, -1, -1]) == "b"
    assert len(Vocabulary.build(lines, "byte")) == 258
    assert Vocabulary.build(["B b"], "word", lower_case=True).names[2:] == ["b"]


def test_the_hash_tells_vocabularies_apart():
    """It is the same for the same corpus, and another one for other tokens, another order or another rule."""
    names = ["<unk>", "<end>", "b", "c"]
    hashes = [
        Vocabulary(names, "word").hash,
        Vocabulary([*names, "d"], "word").hash,
        Vocabulary([*names[:2], "c", "b"], "word").hash,
        Vocabulary(names, "character").hash,
        Vocabulary(names, "word", lower_case=True).hash,
    ]
    assert len(set(hashes)) == 5
    assert Vocabulary.build(["b c", "b"], "word").hash == hashes[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokens": "words"}, "did you mean data.tokens=word"),
        ({"tokens": "word", "size": 2}, "data.vocabulary_size=2 should be > 2"),
        ({"tokens": "byte", "size": 100}, "bytes have 258 tokens"),
    ],
)
def test_options_of_a_vocabulary_that_are_refused(options, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        Vocabulary.build(["a"], **options)


def test_sentences_as_rows():
    """After a sentence its end, then padding; a sentence that is cut has no end."""
    x = pad_sentences([[5, 6], [5, 6, 7], [5, 6, 7, 8], [5, 6, 7, 8, 9], []], 4)
    assert x.tolist() == [[5, 6, 1, -1], [5, 6, 7, 1], [5, 6, 7, 8], [5, 6, 7, 8], [1, -1, -1, -1]]
    assert x.dtype == torch.int64


def test_typical_length_covers_the_share():
    """The least length that 99 % of the sentences do not exceed."""
    assert typical_length(range(1, 101)) == 99
    assert typical_length(range(1, 151)) == 149
    assert typical_length([3] * 98 + [50] * 2) == 50
    assert typical_length([3] * 99 + [50]) == 3
