"""From a dataset's name to rows of tokens and to held-out questions."""

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_yoda.config.schema import Config, DataConfig, TrainConfig
from mlx_yoda.data.packing import PackedRows, grouped
from mlx_yoda.data.questions import Question
from mlx_yoda.data.remarks import notes as remark_notes
from mlx_yoda.data.rows import Row
from mlx_yoda.data.sources import load_splits
from mlx_yoda.data.store import size
from mlx_yoda.data.tokenised import Tokenised, tokenise_rows
from mlx_yoda.errors import UserError
from mlx_yoda.generation import prompt_tokens
from mlx_yoda.model.limits import Limits
from mlx_yoda.report.events import Reporter, Working
from mlx_yoda.train.best import metric_name

_OF_ANSWERS = ("exact_match", "chrf")  # what is measured on generated answers
_EVERY = 10.0  # seconds between two words about progress


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


def prepare(
    config: Config,
    tokenizer: TokenizerWrapper,
    limits: Limits | None = None,
    report: Reporter = lambda event: None,
) -> Dataset:
    """Read, split, encode and pack the configured data.

    Args:
        config: the run.
        tokenizer: the model's.
        limits: what the model can be given; None leaves the rows unchecked.
        report: told what takes a while.

    Raises:
        UserError: the data cannot be read, holds nothing to train on or what the model cannot be
            given, or nothing is held out although the best model is asked for.
    """
    splits = load_splits(config.data, config.train.seed)
    if not splits.validation and metric_name(config.train):
        raise UserError(
            f"{splits.name} has no held-out rows to tell the best model by: hold some out with "
            "--set data.validation_split=0.1, or leave load_best_model_at_end, "
            "early_stopping_patience, metric_for_best_model and save_strategy=best out."
        )
    train = _tokenise("training", splits.train, config.data, tokenizer, report)
    validation = _tokenise("validation", splits.validation, config.data, tokenizer, report)
    packed = grouped(train.segments, config.data.packing, config.data.max_length)
    measured = grouped(validation.segments, "none", config.data.max_length)
    asked = validation.found.questions
    if metric_name(config.train) in _OF_ANSWERS and not asked:
        raise UserError(
            f"train.metric_for_best_model: the held-out rows of {splits.name} are no questions "
            "with answers, so there are none to score; take loss."
        )
    notes = [
        *splits.notes,
        *remark_notes(train.found.remarks + validation.found.remarks),
        *_notes("training", train, config.data.max_length),
        *_notes("validation", validation, config.data.max_length),
    ]
    data = Dataset(packed, measured, asked, notes)
    if limits:
        check_limits(data, config.train, limits, tokenizer)
    return data


def check_limits(
    data: Dataset, config: TrainConfig, limits: Limits, tokenizer: TokenizerWrapper
) -> None:
    """Hold all that a run gives to its model against what it can be given.

    Raises:
        UserError: as `check_rows`, or a question leaves no room for its answer.
    """
    for rows in (data.train, data.validation):
        check_rows(rows, limits, tokenizer)
    answers = config.predict_with_generate or metric_name(config) in _OF_ANSWERS
    for question in data.questions if answers else data.questions[:1]:  # one is always asked
        prompt = prompt_tokens(tokenizer, question.messages, question.tools)
        limits.room(prompt, tokenizer)


def check_rows(rows: PackedRows, limits: Limits, tokenizer: TokenizerWrapper) -> None:
    """Hold rows against what the model can be given.

    Raises:
        UserError: a token has no row in the embedding, or a row is longer than the model's
            positions, than its LongRoPE has one set of factors for, or than a window that is not
            computed here.
    """
    limits.check_ids(rows.largest, tokenizer, "the data")
    longest = int(rows.lengths.max(initial=0))
    most = limits.context
    limits.check_length(longest, "a row", f"set data.max_length={most} or less")
    limit = limits.longest_row
    if limit and longest > limit:
        raise UserError(
            f"a row has {longest} tokens, and beyond {limit} this model turns positions another "
            f"way (longrope), which is not trained here: set data.max_length={limit} or less."
        )
    if limits.exact and longest > limits.exact[0]:
        limit, key = limits.exact
        raise UserError(
            f"a row has {longest} tokens, and beyond {limit} the model's {key} matters, which is "
            f"not computed here: set data.max_length={limit} or less."
        )


def _tokenise(
    name: str,
    rows: Collection[Row],
    config: DataConfig,
    tokenizer: TokenizerWrapper,
    report: Reporter,
) -> Tokenised:
    """Tokenise one split, and say now and then how far it is."""
    started = said = time.monotonic()

    def told(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said > _EVERY:
            said = time.monotonic()
            speed = done / (said - started)
            report(Working(f"tokenising {name} rows: {done:,} of {total:,}, {speed:,.0f} a second"))

    def waiting() -> None:
        report(Working(f"waiting for another run that is tokenising the same {name} rows"))

    held_out = name == "validation"
    return tokenise_rows(rows, config, tokenizer, held_out=held_out, told=told, waiting=waiting)


def _notes(name: str, made: Tokenised, max_length: int) -> Iterator[str]:
    """What the user should know about a split."""
    found = made.found
    if found.truncated:
        yield (
            f"{found.truncated} of {found.rows} {name} rows are longer than data.max_length = "
            f"{max_length} tokens and were cut"
        )
    if made.cached and 0 < len(found.questions) < found.rows:
        yield (
            f"where answers are generated, {len(found.questions):,} of the {found.rows:,} {name} "
            "rows are asked"
        )
    if made.cached:
        yield (
            f"the tokens of {found.rows:,} {name} rows are kept for other runs in {made.cached} "
            f"({size(made.cached) / 1e6:,.0f} MB), and made anew if you delete them"
        )
