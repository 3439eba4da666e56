"""From a dataset's name to rows of tokens and to held-out questions."""

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_yoda.config.schema import Config, DataConfig
from mlx_yoda.data.packing import PackedRows, grouped
from mlx_yoda.data.questions import Question
from mlx_yoda.data.remarks import notes as remark_notes
from mlx_yoda.data.rows import Row
from mlx_yoda.data.sources import load_splits
from mlx_yoda.data.store import size
from mlx_yoda.data.tokenised import Tokenised, tokenise_rows
from mlx_yoda.errors import UserError
from mlx_yoda.report.events import Reporter, Working
from mlx_yoda.train.best import metric_name

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
    longest: int | None = None,
    report: Reporter = lambda event: None,
) -> Dataset:
    """Read, split, encode and pack the configured data.

    Args:
        config: the run.
        tokenizer: the model's.
        longest: most tokens of a row that the model can be trained on; None for any.
        report: told what takes a while.

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
    train = _tokenise("training", splits.train, config.data, tokenizer, report)
    validation = _tokenise("validation", splits.validation, config.data, tokenizer, report)
    packed = grouped(train.segments, config.data.packing, config.data.max_length)
    measured = grouped(validation.segments, "none", config.data.max_length)
    check_lengths(packed, longest)
    check_lengths(measured, longest)
    asked = validation.found.questions
    if metric_name(config.train) in ("exact_match", "chrf") and not asked:
        raise UserError(
            f"train.metric_for_best_model: the held-out rows of {splits.name} are no questions "
            "with answers, so there are none to score; take loss."
        )
    notes = [
        *remark_notes(train.found.remarks + validation.found.remarks),
        *_notes("training", train, config.data.max_length),
        *_notes("validation", validation, config.data.max_length),
    ]
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
