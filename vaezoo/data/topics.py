"""Sentences of Python's own documentation, which is part of Python."""

import re
from collections.abc import Iterable

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
            joined = re.sub(r"(?<=\w-)\n\s*", "", paragraph.strip())
            joined = re.sub(r"^(\*|\d+\.) ", "", " ".join(joined.split()))
            for sentence in SENTENCE_END.split(joined):
                is_whole = sentence[:1].isupper() and sentence[-1:] in ".!?" and not CODE.search(sentence)
                if is_whole and fewest <= len(sentence.split()) <= most:
                    found[sentence] = None
    return list(found)
