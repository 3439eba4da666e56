"""What a run tells about itself: one frozen dataclass a kind of event."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal


@dataclass(frozen=True)
class Event:
    """Something that happened; `name` is its name in metrics.jsonl."""

    name: ClassVar[str]


Reporter = Callable[[Event], None]


@dataclass(frozen=True)
class Started(Event):
    """The run is about to take its first step.

    Attributes:
        base_model: what others find the base by: its Hub id or `demo`; None for a folder here.
        dataset: the same of the data set.
        base_bits: how many bits a weight of a quantised base has.
        machine: what it runs on, as `machine.machine` says.
        versions: package → version.
        processes: how many share the steps, if not one alone.
    """

    name = "started"
    total_steps: int
    epochs: float
    trainable_parameters: int
    total_parameters: int
    train_rows: int
    validation_rows: int
    rows_per_step: int
    micro_batch: int
    output_dir: str
    base_model: str | None = None
    dataset: str | None = None
    base_bits: int | None = None
    machine: Mapping[str, str | int | bool | None] = field(default_factory=dict)
    versions: Mapping[str, str | None] = field(default_factory=dict)
    processes: int | None = None


@dataclass(frozen=True)
class Working(Event):
    """Something begins that takes a while, before the steps or between them; not in the metrics."""

    name = "working"
    what: str


@dataclass(frozen=True)
class Stepped(Event):
    """An optimizer step is done.

    Attributes:
        loss: nats a supervised token: this step's, or where `logged` the mean since the last log.
        grad_norm: before clipping.
        input_tokens, supervised_tokens: of the whole run so far.
        peak_memory: bytes that MLX's allocator held at most.
        seconds: this step's.
        asleep: seconds that passed meanwhile and were no work, if the machine slept.
        logged: whether it belongs into metrics.jsonl, which is so every `logging_steps`.
    """

    name = "step"
    step: int
    total_steps: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    input_tokens: int
    supervised_tokens: int
    input_tokens_per_second: float
    supervised_tokens_per_second: float
    peak_memory: int
    seconds: float
    logged: bool
    asleep: float | None = None


@dataclass(frozen=True)
class Evaluated(Event):
    """The held-out loss after a step, in nats a token, and its exponential.

    Attributes:
        eval_exact_match, eval_chrf: of the answers, where the best model is told by one of them.
    """

    name = "evaluate"
    step: int
    epoch: float
    eval_loss: float
    eval_perplexity: float
    eval_tokens: int
    eval_exact_match: float | None = None
    eval_chrf: float | None = None


@dataclass(frozen=True)
class Sample:
    """A held-out question, the answer wanted and the answer given."""

    prompt: str
    reference: str
    answer: str


@dataclass(frozen=True)
class Generated(Event):
    """Held-out questions were answered.

    Attributes:
        exact_match: share of the answers that equal their reference, 0 to 1.
        chrf: chrF of all answers, 0 to 100.
        rows: how many.
        samples: the first few.
    """

    name = "generate"
    when: Literal["before", "after"]
    step: int
    exact_match: float
    chrf: float
    rows: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Sampled(Event):
    """What the model says to a held-out question in the middle of the training."""

    name = "sample"
    step: int
    sample: Sample


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint is on disk."""

    name = "save"
    step: int
    path: str


@dataclass(frozen=True)
class Noted(Event):
    """A remark or a warning."""

    name = "note"
    message: str


@dataclass(frozen=True)
class Finished(Event):
    """The run is over and the adapter is written.

    Attributes:
        train_loss: mean step loss of the run.
        train_runtime: seconds spent in steps.
        kept_step: the step whose adapter was written: the last one, or the best saved.
    """

    name = "finished"
    step: int
    train_loss: float
    train_runtime: float
    input_tokens: int
    supervised_tokens: int
    path: str
    kept_step: int | None = None


def both(*reporters: Reporter) -> Reporter:
    """One reporter that tells several."""

    def report(event: Event) -> None:
        for reporter in reporters:
            reporter(event)

    return report
