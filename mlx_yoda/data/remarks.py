"""What happened to rows on their way to tokens, counted, so that nothing happens silently."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from mlx_yoda.data.rows import shown


class Kind(StrEnum):
    """What can be said of a row."""

    UNUSED = "unused"  # a column with a value is not read
    LEFT_OUT = "left out"  # the chat template does not render it
    ARGUMENTS = "arguments"
    END = "end"
    SPELT = "spelt"
    EMPTY = "empty"
    WEIGHT = "weight"


class Remark(NamedTuple):
    """Something to say of a row.

    Attributes:
        kind: what.
        name: of the column, key or token that it is about.
    """

    kind: Kind
    name: str = ""


_MOST = 20  # names in a sentence
_SENTENCES = {
    Kind.UNUSED: "columns that are not used: {names}",
    Kind.LEFT_OUT: "the model's chat template leaves out: {names}",
    Kind.ARGUMENTS: "tool calls whose arguments are JSON text, read as objects: {names}",
    Kind.END: "answers that end with the model's own end token, which is taken for the end of "
    "the turn: {names}",
    Kind.SPELT: "control tokens that a speaker spells out, encoded as text: {names}",
    Kind.EMPTY: "empty answers, which teach the model to end its turn at once: {names}",
    Kind.WEIGHT: "turns of weight 0, which carry no loss: {names}",
}


def notes(counts: Mapping[Remark, int]) -> Iterator[str]:
    """One sentence for each kind, with the number of rows of which each remark was made."""
    for kind, sentence in _SENTENCES.items():
        found = {remark.name: n for remark, n in counts.items() if remark.kind == kind}
        if found:
            named = [_named(name, n) for name, n in list(found.items())[:_MOST]]
            more = [f"and {len(found) - _MOST:,} more"] if len(found) > _MOST else []
            yield sentence.format(names=", ".join([*named, *more]))


def _named(name: str, rows: int) -> str:
    count = "1 row" if rows == 1 else f"{rows:,} rows"
    return f"{shown(name)} in {count}" if name else count
