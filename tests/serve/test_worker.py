"""One answer at a time, in order, and no more waiting than was said."""

from itertools import pairwise
from threading import Thread

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlx_yoda.errors import UserError
from mlx_yoda.model.piece import Piece
from mlx_yoda.serve.refusal import Refusal
from mlx_yoda.serve.request import ChatRequest
from mlx_yoda.serve.worker import Worker, until


def asking(text, stop=()):
    messages = [{"role": "user", "content": text}]
    return ChatRequest("base", messages, 9, 0.0, 1.0, None, stop, False, False)


def pieces_of(texts, reason="stop"):
    for i, text in enumerate(texts):
        yield Piece(text, 1, i + 1, reason if i == len(texts) - 1 else None)


def echo(request):
    yield from pieces_of([request.messages[-1]["content"], "!"])


def answers(voice, *requests):
    """What a worker says to requests that wait when it begins; refusals as they are."""
    worker = Worker({"base": voice}, len(requests) + 1)
    jobs = [worker.submit(request) for request in requests]
    worker.stop()
    worker.run()
    said = []
    for job in jobs:
        try:
            said.append("".join(piece.text for piece in job.answer(1) if piece))
        except Refusal as refusal:
            said.append(refusal)
    return said


def test_everybody_gets_their_own_answer():
    assert answers(echo, asking("one"), asking("two"), asking("three!", ("!",))) == [
        "one!",
        "two!",
        "three",
    ]


def test_answers_do_not_overlap():
    log = []

    def voice(request):
        log.append("begin")
        yield from echo(request)
        log.append("end")

    worker = Worker({"base": voice}, 9)
    thread = Thread(target=worker.run)
    thread.start()
    jobs = [worker.submit(asking(str(i))) for i in range(5)]
    for job in jobs:
        assert [p.text for p in job.answer(1) if p][-1] == "!"
    worker.stop()
    thread.join()
    assert all(one != other for one, other in pairwise(log))


def test_a_full_queue_refuses():
    worker = Worker({"base": echo}, 2)
    worker.submit(asking("one"))
    worker.submit(asking("two"))
    with pytest.raises(Refusal) as refused:
        worker.submit(asking("three"))
    assert refused.value.status == 429


def test_nobody_speaks_to_those_who_have_gone():
    said = []

    def voice(request):
        for piece in echo(request):
            said.append(piece.text)
            here.cancelled.set()
            yield piece

    worker = Worker({"base": voice}, 3)
    gone, here = worker.submit(asking("gone")), worker.submit(asking("here"))
    gone.cancelled.set()
    worker.stop()
    worker.run()
    assert said == ["here"]


def test_a_fault_in_one_answer_does_not_end_the_others(capsys):
    def voice(request):
        match request.messages[-1]["content"]:
            case "refused":
                raise UserError("too long.")
            case "broken":
                raise ZeroDivisionError("what only the terminal may know")
        yield from echo(request)

    refused, broken, fine = answers(voice, asking("refused"), asking("broken"), asking("fine"))
    assert (refused.status, refused.message) == (400, "too long.")
    assert broken.status == 500
    assert "terminal may know" not in broken.message
    assert "terminal may know" in capsys.readouterr().err
    assert fine == "fine!"


@given(
    st.lists(st.text("ab", max_size=3), min_size=1, max_size=6),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=2),
)
@example(texts=["ab"], stops=["b", "a"])  # both in one piece, the later one named first
def test_an_answer_ends_before_the_first_stop(texts, stops):
    heard = list(until(pieces_of(texts, "length"), stops))
    whole = "".join(texts)
    ends = [at for stop in stops if (at := whole.find(stop)) >= 0]
    said = "".join(piece.text for piece in heard)
    if ends:  # a longer text that begins earlier may be complete only after a shorter one
        assert said in {whole[:at] for at in ends}
        assert not any(stop in said for stop in stops)
    else:
        assert said == whole
    assert heard[-1].finish_reason == ("stop" if ends else "length")
    assert not any(piece.finish_reason for piece in heard[:-1])


def test_no_more_is_held_back_than_needed():
    texts = [piece.text for piece in until(pieces_of(["one ", "two", "!", "."]), ["two."])]
    assert texts == ["one ", "", "two!", "."]
