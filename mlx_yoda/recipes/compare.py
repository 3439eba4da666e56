"""A base and its adapter, measured side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, TypeVar

from mlx_yoda.config.schema import Config, DataConfig, ModelConfig, TrainConfig
from mlx_yoda.data.chat import encode
from mlx_yoda.data.columns import Conversation, conversations
from mlx_yoda.data.packing import PackedRows, pack
from mlx_yoda.data.questions import Question, questions
from mlx_yoda.data.remarks import notes
from mlx_yoda.data.sources import load_splits
from mlx_yoda.errors import UserError
from mlx_yoda.evaluate import score
from mlx_yoda.generation import answer_all, text_of
from mlx_yoda.lora.inject import disabled
from mlx_yoda.model.load import Loaded
from mlx_yoda.recipes.dataset import check_rows
from mlx_yoda.recipes.respond import Responder
from mlx_yoda.train.evaluate import held_out_loss, perplexity

S = TypeVar("S", ModelConfig, DataConfig, TrainConfig)
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Measured:
    """How well a model does.

    Attributes:
        loss: nats a supervised token.
        perplexity: its exponential.
        exact_match: share of greedy answers that equal their reference; None without questions.
        chrf: chrF of all answers, 0 to 100; None without questions.
    """

    loss: float
    perplexity: float
    exact_match: float | None
    chrf: float | None


@dataclass(frozen=True)
class Comparison:
    """The base, and the adapter if there is one.

    Attributes:
        model_name_or_path: the base.
        adapter_name_or_path: where the adapter came from, or None.
        dataset_name: the data set.
        rows: how many were measured.
        tokens: how many of their tokens carry loss.
        questions: how many of the rows could be asked.
        base: the base alone.
        adapter: the base with the adapter, or None.
        notes: remarks for the user, such as which columns are not used.
    """

    model_name_or_path: str
    adapter_name_or_path: str | None
    dataset_name: str
    rows: int
    tokens: int
    questions: int
    base: Measured
    adapter: Measured | None
    notes: tuple[str, ...]


def as_trained(told: Config, run: Config) -> Config:
    """The settings to measure a run's adapter with: the run's, but for what the user has set.

    Of another data set than the run's only the tokens are treated as in training: its columns and
    its splits are its own. The base is left to the adapter to name, and whose code may run is the
    user's alone to say.

    Args:
        told: what the user has set.
        run: the run's own configuration.
    """
    name, data = told.data.dataset_name, run.data
    if "dataset_name" in told.data.fields_set and name != data.dataset_name:
        data = DataConfig(train_on=data.train_on, max_length=data.max_length)
    model = told.model
    if "model_name_or_path" not in model.fields_set:
        trusted = model.trust_remote_code
        model = replace(_changed(run.model, model), trust_remote_code=trusted)
    return Config(model, run.lora, _changed(data, told.data), _changed(run.train, told.train))


def _changed(section: S, told: S) -> S:
    return replace(section, **{name: getattr(told, name) for name in told.fields_set})


def read_split(config: Config, split: Split, limit: int | None = None) -> list[Conversation]:
    """The first `limit` conversations of a split, all if None.

    Raises:
        UserError: the data cannot be read, or the split is empty.
    """
    splits = load_splits(config.data, config.train.seed)
    rows = {"train": splits.train, "validation": splits.validation, "test": splits.test}[split]
    if not rows:
        hint = " or hold rows out with --set data.validation_split=0.1"
        raise UserError(
            f"{splits.name} has no {split} split: name another with --split"
            f"{hint if split == 'validation' else ''}."
        )
    return conversations(list(islice(rows, limit)), config.data)


def compare(responder: Responder, rows: Sequence[Conversation], config: Config) -> Comparison:
    """Measure the base alone, then with its adapter.

    Args:
        responder: base, and adapter if there is one.
        rows: what to measure on.
        config: how rows become tokens, batch size and length of the answers.

    Raises:
        UserError: a row holds nothing supervised, or the chat template refuses it.
    """
    base, data = responder.base, config.data
    encoded = encode(rows, base.tokenizer, train_on=data.train_on, max_length=data.max_length)
    packed = pack(encoded.examples, "none", data.max_length)
    check_rows(packed, base.limits, base.tokenizer)
    asked = questions(rows, base.tokenizer)
    with disabled(base.model):
        alone = _measure(base, packed, asked, config)
    return Comparison(
        model_name_or_path=base.name,
        adapter_name_or_path=responder.adapter,
        dataset_name=data.dataset_name,
        rows=len(rows),
        tokens=encoded.supervised_tokens,
        questions=len(asked),
        base=alone,
        adapter=_measure(base, packed, asked, config) if responder.adapter else None,
        notes=tuple(notes(encoded.remarks)),
    )


def _measure(
    base: Loaded, packed: PackedRows, asked: Sequence[Question], config: Config
) -> Measured:
    total, tokens = held_out_loss(base.model, packed, config.train.per_device_eval_batch_size)
    loss = total / tokens
    scores = None
    if asked:
        answers = answer_all(
            base.model,
            base.tokenizer,
            [question.messages for question in asked],
            tools=[question.tools for question in asked],
            max_tokens=config.train.generation_max_new_tokens,
        )
        references = [text_of(base.tokenizer, question.reference) for question in asked]
        scores = score(answers, references)
    return Measured(
        loss=loss,
        perplexity=perplexity(loss),
        exact_match=scores.exact_match if scores else None,
        chrf=scores.chrf if scores else None,
    )
