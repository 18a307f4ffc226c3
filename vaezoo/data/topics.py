"""Sentences of Python's own documentation, which is part of Python."""

import hashlib
import platform
import re
from collections.abc import Iterable
from typing import Any

from vaezoo.data.text import TextData
from vaezoo.data.text_files import Lines

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
CODE = re.compile(r"[=<>{}|^~\\]|\.\.\.")  # what programs and grammars have and sentences have not


def extract_sentences(texts: Iterable[str], fewest: int = 4, most: int = 30) -> list[str]:
    r"""Return the sentences of texts with headings, lists and programs, each one once, in order.

    A sentence begins with a capital letter, ends with a period, an exclamation mark or a question mark, and has no
    signs of a program.

    Args:
        texts: texts whose paragraphs are separated by empty lines.
        fewest: least number of words.
        most: largest number of words.

    >>> extract_sentences(["Names\n*****\n\nNames refer to\nobjects. They are short.\n\n   x = 1\n"])
    ['Names refer to objects.']
    """
    found: dict[str, None] = {}
    for text in texts:
        for paragraph in re.split(r"\n\s*\n", text):
            # A line may end at the hyphen of a word.
            text_line = re.sub(r"(?<=\w-)\n\s*", "", paragraph.strip())
            text_line = re.sub(r"^(\*|\d+\.) ", "", " ".join(text_line.split()))
            for sentence in SENTENCE_END.split(text_line):
                is_whole = sentence[:1].isupper() and sentence[-1:] in ".!?" and not CODE.search(sentence)
                if is_whole and fewest <= len(sentence.split()) <= most:
                    found[sentence] = None
    return list(found)


class Topics(TextData):
    """Provide the sentences of Python's help on its language, ``pydoc_data.topics``; no download.

    About 1,700 sentences. They change with the version of Python: compare models of one version only (the report has
    the version and a hash of the sentences).

    Args:
        **kwargs: arguments of ``TextData``.
    """

    def read_text(self) -> Lines:
        from pydoc_data.topics import topics

        sentences = extract_sentences(topics.values())
        return Lines(sentences, list(range(1, len(sentences) + 1)), num_empty=0, num_control=0)

    def report(self) -> dict[str, Any]:
        content = "\n".join(self.read_text().lines)
        version = {"Python": platform.python_version(), "sentences' hash": hashlib.sha256(content.encode()).hexdigest()}
        return version | super().report()
