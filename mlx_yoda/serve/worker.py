"""One answer at a time: a model has one state, and a machine one GPU."""

import contextlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from queue import Empty, Full, Queue, SimpleQueue
from threading import Event

from mlx_yoda.errors import UserError
from mlx_yoda.model.piece import Piece
from mlx_yoda.serve.refusal import Refusal
from mlx_yoda.serve.request import ChatRequest

Voice = Callable[[ChatRequest], Iterator[Piece]]  # what answers under a model's name


@dataclass(frozen=True)
class Job:
    """A request that waits for its answer.

    Attributes:
        request: what is asked.
        cancelled: set by whoever no longer wants the answer.
    """

    request: ChatRequest
    cancelled: Event = field(default_factory=Event)
    _said: SimpleQueue[Piece | Refusal] = field(default_factory=SimpleQueue)

    def tell(self, what: Piece | Refusal) -> None:
        """Hand on a piece of the answer, or why there will be none."""
        self._said.put(what)

    def answer(self, patience: float) -> Iterator[Piece | None]:
        """Yield the answer as it comes, and None each time that nothing came for a while.

        Args:
            patience: that while, in seconds.

        Raises:
            Refusal: there is no answer.
        """
        while True:
            try:
                said = self._said.get(timeout=patience)
            except Empty:
                yield None
                continue
            if isinstance(said, Refusal):
                raise said
            yield said
            if said.finish_reason:
                return


class Worker:
    """Answers jobs in the thread that calls `run`, in the order in which they came."""

    def __init__(self, voices: Mapping[str, Voice], waiting: int) -> None:
        """
        Args:
            voices: model's name → what answers.
            waiting: how many jobs may wait while one is answered.
        """
        self._voices = voices
        self._jobs: Queue[Job | None] = Queue(waiting)

    def submit(self, request: ChatRequest) -> Job:
        """Put a request into the queue.

        Raises:
            Refusal: 429, the queue is full.
        """
        job = Job(request)
        try:
            self._jobs.put_nowait(job)
        except Full:
            raise Refusal(429, "Too many requests are waiting; try again in a while.") from None
        return job

    def run(self) -> None:
        """Answer jobs until `stop` is called."""
        while (job := self._jobs.get()) is not None:
            if not job.cancelled.is_set():
                self._answer(job)

    def stop(self) -> None:
        """Let `run` return once the jobs before are done."""
        self._jobs.put(None)

    def _answer(self, job: Job) -> None:
        try:
            spoken = self._voices[job.request.model](job.request)
            with contextlib.closing(until(spoken, job.request.stop)) as heard:  # type: ignore[type-var]
                for piece in heard:
                    if job.cancelled.is_set():
                        return
                    job.tell(piece)
        except UserError as error:
            job.tell(Refusal(400, str(error)))
        except Exception:  # a fault in one answer is not to end the others
            traceback.print_exc()
            job.tell(Refusal(500, "The answer failed; the server's terminal says why."))


def until(spoken: Iterator[Piece], stops: Sequence[str]) -> Iterator[Piece]:
    """The pieces of an answer up to where one of these texts begins.

    What may yet turn out to be the beginning of one is held back until that is known.
    """
    held = ""
    for piece in spoken:
        held += piece.text
        found = [at for stop in stops if (at := held.find(stop)) >= 0]
        if found:
            yield replace(piece, text=held[: min(found)], finish_reason="stop")
            return
        unsure = 0 if piece.finish_reason else max((_overlap(held, s) for s in stops), default=0)
        said, held = held[: len(held) - unsure], held[len(held) - unsure :]
        yield replace(piece, text=said)


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of a text that is a beginning of another."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
