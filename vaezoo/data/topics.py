"""Sentences of Python's own documentation, which is part of Python."""

import hashlib
import platform
import re
from collections import Counter
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


NUM_TOPICS, OTHER = 4, "other"


class Topics(TextData):
    """Provide the sentences of Python's help on its language, ``pydoc_data.topics``; no download.

    The classes are the four topics with most sentences, such as "debugger", and "other". A sentence that stands in
    several topics belongs to the first one.

    About 1,700 sentences. They change with the version of Python: compare models of one version only (the report has
    the version and a hash of the sentences).

    Args:
        **kwargs: arguments of ``TextData``.
    """

    def read_text(self) -> Lines:
        from pydoc_data.topics import topics

        topic_of: dict[str, str] = {}
        for topic, text in topics.items():
            for sentence in extract_sentences([text]):
                topic_of.setdefault(sentence, topic)
        large = {topic for topic, _ in Counter(topic_of.values()).most_common(NUM_TOPICS)}
        classes = [topic if topic in large else OTHER for topic in topic_of.values()]
        numbers = list(range(1, len(topic_of) + 1))
        return Lines(list(topic_of), numbers, num_empty=0, num_control=0, classes=classes)

    def report(self) -> dict[str, Any]:
        content = "\n".join(self.read_text().lines)
        version = {"Python": platform.python_version(), "sentences' hash": hashlib.sha256(content.encode()).hexdigest()}
        return version | super().report()
