"""From a dataset's name to rows of tokens and to held-out questions."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_yoda.config.schema import Config
from mlx_yoda.data.chat import Encoded, encode
from mlx_yoda.data.columns import Conversation, conversations
from mlx_yoda.data.packing import PackedRows, pack
from mlx_yoda.data.sources import load_splits
from mlx_yoda.errors import UserError
from mlx_yoda.train.best import metric_name


@dataclass(frozen=True)
class Question:
    """A held-out conversation that ends with the assistant's turn.

    Attributes:
        messages: the turns before it, as {"role", "content"}.
        reference: what the assistant should say.
    """

    messages: tuple[dict[str, str], ...]
    reference: str

    @property
    def prompt(self) -> str:
        """The user's last words."""
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class Dataset:
    """Everything that a run takes from its data.

    Attributes:
        train: rows to train on, packed as configured.
        validation: held-out rows, one example each; may be empty.
        questions: the held-out rows as questions with reference answers, for generation.
        notes: remarks for the user, such as how many rows were cut.
    """

    train: PackedRows
    validation: PackedRows
    questions: list[Question]
    notes: list[str]


def prepare(config: Config, tokenizer: TokenizerWrapper, longest: int | None = None) -> Dataset:
    """Read, split, encode and pack the configured data.

    Args:
        config: the run.
        tokenizer: the model's.
        longest: most tokens of a row that the model can be trained on; None for any.

    Raises:
        UserError: the data cannot be read, holds nothing to train on, or nothing is held out
            although the best model is asked for.
    """
    splits = load_splits(config.data, config.train.seed)
    if not splits.validation and metric_name(config.train):
        raise UserError(
            f"{splits.name} has no held-out rows to tell the best model by: hold some out with "
            "--set data.validation_split=0.1, or leave load_best_model_at_end, "
            "early_stopping_patience, metric_for_best_model and save_strategy=best out."
        )
    training = conversations(splits.train, config.data)
    held_out = conversations(splits.validation, config.data)
    train = _encode(training, config, tokenizer)
    validation = _encode(held_out, config, tokenizer)
    notes = [
        f"{encoded.truncated} of {len(encoded.examples)} {name} rows are longer than "
        f"data.max_length = {config.data.max_length} tokens and were cut"
        for name, encoded in (("training", train), ("validation", validation))
        if encoded.truncated
    ]
    packed = pack(train.examples, config.data.packing, config.data.max_length)
    measured = pack(validation.examples, "none", config.data.max_length)
    check_lengths(packed, longest)
    check_lengths(measured, longest)
    asked = questions(held_out)
    if metric_name(config.train) in ("exact_match", "chrf") and not asked:
        raise UserError(
            f"train.metric_for_best_model: the held-out rows of {splits.name} are no questions "
            "with answers, so there are none to score; take loss."
        )
    return Dataset(packed, measured, asked, notes)


def check_lengths(rows: PackedRows, limit: int | None) -> None:
    """Refuse rows longer than `mlx_yoda.model.family.longest_row`.

    Raises:
        UserError: a row is longer than the model's LongRoPE has one set of factors for.
    """
    longest = int(rows.lengths.max(initial=0))
    if limit and longest > limit:
        raise UserError(
            f"a row has {longest} tokens, and beyond {limit} this model turns positions another "
            f"way (longrope), which is not trained here: set data.max_length={limit} or less."
        )


def questions(held_out: Sequence[Conversation]) -> list[Question]:
    """The conversations that end with an answer, taken apart into question and answer."""
    found = []
    for conversation in held_out:
        messages = conversation.messages
        if messages and len(messages) > 1 and messages[-1].role == "assistant":
            before = tuple({"role": m.role, "content": m.content} for m in messages[:-1])
            found.append(Question(before, messages[-1].content))
    return found


def _encode(rows: Sequence[Conversation], config: Config, tokenizer: TokenizerWrapper) -> Encoded:
    # concat cuts the chained tokens itself, so no example may be cut before.
    max_length = None if config.data.packing == "concat" else config.data.max_length
    return encode(rows, tokenizer, train_on=config.data.train_on, max_length=max_length)
