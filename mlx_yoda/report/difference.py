"""Two sentences, and which words of the one are not in the other."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple


class Piece(NamedTuple):
    """Words that belong together, and whether the other text has them too.

    Attributes:
        changed: whether the other text lacks them.
        text: the words.
        space: what white space follows.
    """

    changed: bool
    text: str
    space: str


Pieces = tuple[Piece, ...]


def difference(old: str, new: str) -> tuple[Pieces, Pieces]:
    """Both texts in pieces, compared word by word; the pieces of each, joined, are its text."""
    before, after = _words(old), _words(new)
    matcher = SequenceMatcher(
        None, [word for word, _ in before], [word for word, _ in after], autojunk=False
    )
    left: list[Piece] = []
    right: list[Piece] = []
    for kind, start, end, other_start, other_end in matcher.get_opcodes():
        left += _piece(kind != "equal", before[start:end])
        right += _piece(kind != "equal", after[other_start:other_end])
    return tuple(left), tuple(right)


def unchanged(text: str) -> Pieces:
    """A text that there is nothing to compare with."""
    return (Piece(False, text, ""),)


def _piece(changed: bool, words: Sequence[tuple[str, str]]) -> list[Piece]:
    if not words:
        return []
    *inner, (last, space) = words
    return [Piece(changed, "".join(word + gap for word, gap in inner) + last, space)]


def _words(text: str) -> list[tuple[str, str]]:
    """Words and marks, each with the white space that follows it."""
    return re.findall(r"(^(?=\s)|\w+|[^\w\s])(\s*)", text)
