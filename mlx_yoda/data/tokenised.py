"""Rows become tokens: in memory, or where they are many once for all runs, on disk."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data import store
from mlx_yoda.data.chat import Example, encode_each
from mlx_yoda.data.columns import Conversation, read_conversations
from mlx_yoda.data.fingerprint import fingerprint
from mlx_yoda.data.packing import pieces
from mlx_yoda.data.questions import Question, question_of
from mlx_yoda.data.remarks import Kind, Remark
from mlx_yoda.data.rows import Row
from mlx_yoda.data.segments import Segments, Writer, in_memory
from mlx_yoda.data.streams import Streamed, changed
from mlx_yoda.data.workers import encode_in_processes, processes

_MOST_QUESTIONS = 1000  # that are kept of streamed rows
_TELL_EVERY = 1000  # rows
_MANY = 50_000  # rows from which on several processes pay, which take seconds to start

Told = Callable[[int, int], None]  # rows done, and all rows


@dataclass
class Found:
    """What is told of rows besides their tokens.

    Attributes:
        rows: how many.
        truncated: how many of them were cut.
        questions: those that ask something, the first ones.
        remarks: what else there is to say of them, and of how many.
    """

    rows: int = 0
    truncated: int = 0
    questions: list[Question] = field(default_factory=list)
    remarks: Counter[Remark] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """As JSON has it, which `from_json` reads again."""
        remarks = [[*remark, count] for remark, count in self.remarks.items()]
        return {**vars(self), "questions": list(map(asdict, self.questions)), "remarks": remarks}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "Found":
        """What `as_json` gave."""
        questions = [
            Question(tuple(q["messages"]), tuple(q["reference"]), q["tools"] and tuple(q["tools"]))
            for q in kept["questions"]
        ]
        remarks = Counter({Remark(Kind(kind), name): n for kind, name, n in kept["remarks"]})
        return cls(kept["rows"], kept["truncated"], questions, remarks)


@dataclass(frozen=True)
class Tokenised:
    """The tokens of some rows, as the configured packing needs them.

    Attributes:
        segments: the tokens.
        found: what else there is to tell.
        cached: the folder that the tokens are kept in, or None if they are in memory.
    """

    segments: Segments
    found: Found
    cached: Path | None = None


def tokenise_rows(
    rows: Collection[Row],
    config: DataConfig,
    tokenizer: Any,
    *,
    held_out: bool,
    told: Told,
    waiting: Callable[[], None],
) -> Tokenised:
    """Tokenise rows; of streamed ones the tokens are kept, and found again by a fingerprint.

    Args:
        rows: as they were read.
        config: which columns they have, and how they become tokens. Of `packing` it only counts
            whether it is `concat`, whose segments are rows already and for which nothing is cut.
        tokenizer: a Hugging Face tokenizer, or mlx-lm's wrapper around one.
        held_out: whether each row is to be measured by itself, however the others are packed, and
            asked: of rows in a list all, of streamed ones the first.
        told: hears now and then how far it is.
        waiting: is called if another program is about to make the same tokens.

    Raises:
        UserError: a row cannot be read or encoded, the files change meanwhile, or there is no
            room for the tokens.
    """
    if not isinstance(rows, Streamed):
        write = partial(_write, rows, config, tokenizer, held_out, len(rows), told)
        return Tokenised(*in_memory(write))

    name = fingerprint(rows, config, tokenizer, held_out)

    def build(writer: Writer) -> dict[str, Any]:
        most = _MOST_QUESTIONS
        found = _write(rows, config, tokenizer, held_out, most, told, writer)
        if fingerprint(rows, config, tokenizer, held_out) != name:  # the name of other tokens
            raise changed(rows.files)
        return found.as_json()

    folder = store.folder(name)
    segments, kept = store.cached(folder, 1 + max(tokenizer.get_vocab().values()), build, waiting)
    return Tokenised(segments, Found.from_json(kept), folder)


def _write(
    rows: Collection[Row],
    config: DataConfig,
    tokenizer: Any,
    held_out: bool,
    most_questions: int,
    told: Told,
    writer: Writer,
) -> Found:
    """Tokenise all rows into the writer."""
    found = Found()
    # concat cuts the chained tokens itself, so no example may be cut before.
    max_length = None if config.packing == "concat" else config.max_length

    def asked() -> Iterator[Conversation]:
        for conversation in read_conversations(rows, config):
            wanted = held_out and len(found.questions) < most_questions
            if wanted and (question := question_of(conversation, tokenizer)):
                found.questions.append(question)
            yield conversation

    def examples() -> Iterator[Example]:
        many = isinstance(rows, Streamed) and len(rows) >= _MANY
        encode = partial(encode_in_processes, count=processes()) if many else encode_each
        how: Any = {"train_on": config.train_on, "max_length": max_length}
        for example, whole in encode(asked(), tokenizer, **how):
            if found.rows % _TELL_EVERY == 0:
                told(found.rows, len(rows))
            found.rows += 1
            found.truncated += len(example.tokens) < whole
            found.remarks.update(example.remarks)
            yield example

    packing = "none" if held_out else config.packing
    writer.add_all(pieces(examples(), packing, config.max_length))
    return found
