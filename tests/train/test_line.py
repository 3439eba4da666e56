"""The line between processes: who is gone, silent or has failed ends the others."""

import socket
import threading
import time
from contextlib import ExitStack, suppress
from types import SimpleNamespace

import pytest

from mlx_yoda.train.line import Line, open_line
from tests.machine import PATIENCE, within

LIMIT = 1.6  # seconds of silence


class Ends(list):
    """What the processes were ended with: (rank, words, code)."""

    def of(self, rank):
        return lambda words, code: self.append((rank, words, code))

    def wait_for(self, count, seconds=PATIENCE):
        until = time.monotonic() + seconds
        while len(self) < count and time.monotonic() < until:
            time.sleep(0.01)
        return sorted(self)


@pytest.fixture
def ends():
    return Ends()


@pytest.fixture
def sockets():
    """Pairs of connected sockets: the first process's end and the other's, by rank."""
    with ExitStack() as stack:

        def pairs(count):
            found = {rank: socket.socketpair() for rank in range(1, count)}
            for pair in found.values():
                for end in pair:
                    stack.callback(end.close)
            return found

        yield pairs


def lines(pairs, ends, silence=LIMIT):
    first = Line(0, {rank: pair[0] for rank, pair in pairs.items()}, ends.of(0), silence)
    return [first, *(Line(r, {0: pair[1]}, ends.of(r), silence) for r, pair in pairs.items())]


def test_all_leave_together_and_the_first_one_last(sockets, ends):
    pairs = sockets(3)
    first, *others = lines(pairs, ends)
    leaving = [threading.Thread(target=line.leave) for line in others]
    for thread in leaving:
        thread.start()
    time.sleep(1.5 * LIMIT)  # longer than anybody may be silent: they beat
    assert all(thread.is_alive() for thread in leaving)
    first.leave()
    for pair in pairs.values():
        pair[0].shutdown(socket.SHUT_RDWR)  # as when its process ends
    for thread in leaving:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in leaving)
    assert not ends


def test_who_is_gone_is_named_by_the_first_one_and_all_end(sockets, ends):
    pairs = sockets(3)
    Line(0, {rank: pair[0] for rank, pair in pairs.items()}, ends.of(0), LIMIT)
    Line(1, {0: pairs[1][1]}, ends.of(1), LIMIT)
    pairs[2][1].shutdown(socket.SHUT_RDWR)  # as when process 2 is killed
    (rank, words, code), *_ = ends.wait_for(1)
    assert (rank, code) == (0, 2)
    assert words.startswith("process 2 is gone, so the others end;")
    assert "--resume" in words
    for pair in pairs.values():
        pair[0].shutdown(socket.SHUT_RDWR)
    assert ends.wait_for(2)[1:] == [(1, "", 2)]  # without a word, since the first has said it


def test_without_the_first_one_each_says_it(sockets, ends):
    pairs = sockets(3)
    others = [Line(rank, {0: pair[1]}, ends.of(rank), LIMIT) for rank, pair in pairs.items()]
    for pair in pairs.values():
        pair[0].shutdown(socket.SHUT_RDWR)
    found = ends.wait_for(2)
    assert [(rank, code) for rank, _, code in found] == [(1, 2), (2, 2)]
    assert all(words.startswith("process 0 is gone") for _, words, _ in found)
    for line in others:
        line.wait()  # comes back, since `ends` ends nothing


def watched(sockets, ends, monkeypatch):
    """The first process's line with 20 seconds of silence, and what lets time go by on its clock.

    That comes back once the line has looked: it beats as often as two seconds have gone by.
    """
    now, pairs = [100.0], sockets(2)
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("mlx_yoda.train.line.time", clock)
    line = Line(0, {1: pairs[1][0]}, ends.of(0), 20.0)
    pairs[1][1].settimeout(PATIENCE)

    def later(seconds):
        now[0] += seconds
        assert pairs[1][1].recv(5) == b"beat\n"

    later(0)
    return line, later


def test_who_is_silent_is_lost(sockets, ends, monkeypatch):
    """As a process that is stopped, or whose cable is pulled."""
    _, later = watched(sockets, ends, monkeypatch)
    for _ in range(5):
        later(4)
        assert not ends
    later(2)
    ((_, words, code),) = ends.wait_for(1)
    assert words.startswith("process 1 has not been heard of for 20 seconds")
    assert code == 2


def test_who_was_stopped_itself_judges_nobody(sockets, ends, monkeypatch):
    """After a machine has slept, nobody has been heard of: the others are given their time."""
    line, later = watched(sockets, ends, monkeypatch)
    later(1000)
    later(2)
    line._over = True
    line._thread.join(PATIENCE)
    assert not ends


@pytest.mark.parametrize("failing", [0, 1])
def test_who_fails_is_heard_once(sockets, ends, failing):
    pairs = sockets(3)
    found = lines(pairs, ends, silence=20)
    told = []
    thread = threading.Thread(target=lambda: told.append(found[failing].fail("a  b\nc", 3)))
    thread.start()
    if failing == 1:
        assert ends.wait_for(1) == [(0, "process 1: a b c", 3)]
    else:
        thread.join(PATIENCE)
    for pair in pairs.values():
        pair[0].shutdown(socket.SHUT_RDWR)  # the first process ends
    thread.join(PATIENCE)
    silent = [(rank, "", 3) for rank in (1, 2) if rank != failing]
    assert [end for end in ends.wait_for(2) if end[0]] == silent
    assert told == [failing == 1]


def test_the_same_failure_of_all_is_said_by_the_first_one(sockets, ends):
    pairs = sockets(2)
    first, second = lines(pairs, ends, silence=20)
    told = []
    thread = threading.Thread(target=lambda: told.append(second.fail("no such file", 2)))
    thread.start()
    time.sleep(0.2)
    assert first.fail("no such file", 2) is False
    time.sleep(1.2)  # it would have said it for the other by now
    pairs[1][0].shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE)
    assert told == [True]
    assert not ends


@pytest.fixture
def join(ends):
    """Starts what the first process of several does to meet the others; how it went, and where."""
    opened = []

    def start(size=2, addresses=("127.0.0.1",)):
        said, asked = [], threading.Event()

        def first_says(value):
            said.append(value)
            asked.set()
            return [value]

        thread = threading.Thread(
            target=lambda: opened.append(open_line(0, size, first_says, addresses, ends.of(0)))
        )
        thread.start()
        assert asked.wait(PATIENCE)

        def other(rank):
            opened.append(open_line(rank, size, lambda _: said, (), ends.of(rank)))

        def met():
            thread.join(PATIENCE)
            assert not thread.is_alive()
            return sorted(next(line for line in opened if line._rank == 0)._peers)

        return said[0], other, met

    yield start
    for line in opened:
        line._failing = True
        for connection in line._peers.values():
            connection.close()


def is_hung_up_on(stranger):
    stranger.settimeout(10)
    with suppress(ConnectionResetError):
        return stranger.recv(1) == b""
    return True


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["no.such.name.invalid", "127.0.0.1"]])
def test_strangers_are_not_let_in(join, addresses):
    """Only who bears the token, which the processes know from each other, is one of them."""
    (_, port, token), other, met = join(addresses=addresses)
    for words in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"0123 1\n",
        b"\n",
        b"\xff\xfe 1\n",
        "ä 1\n".encode(),
        f"{token} \u00b2\n".encode(),  # a digit to `str.isdigit`, but no number to `int`
        f"{token} 0\n{token} 2\n{token} -1\n{token} 01\n".encode(),
        f"{token[:-1]} 1\n".encode(),
        b"x" * 1000,
    ):
        with socket.create_connection(("127.0.0.1", port), 5) as stranger:
            stranger.sendall(words)
            assert is_hung_up_on(stranger), words
    other(1)
    assert met() == [1]


def test_a_process_is_not_taken_for_another(join):
    """Whoever has the token can still not take a place that is taken."""
    (_, port, token), other, met = join(size=3)
    other(1)
    with socket.create_connection(("127.0.0.1", port), 5) as second:
        second.sendall(f"{token} 1\n".encode())
        assert is_hung_up_on(second)
    other(2)
    assert met() == [1, 2]


def test_silent_strangers_delay_nobody(join):
    (_, port, _), other, met = join(size=3)
    with ExitStack() as stack:
        first, *_ = [  # more than are waited for
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            for _ in range(100)
        ]
        assert is_hung_up_on(first)
        with within(4, time.monotonic):  # less than one of them is given to answer
            other(1)
            other(2)
            assert met() == [1, 2]


def test_on_one_machine_nobody_else_can_connect(join):
    """127.0.0.2 is this machine too, but another of its addresses, as the network's is."""
    (_, port, _), other, met = join()
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", port), 2):
        pass
    other(1)
    assert met() == [1]


def test_that_not_all_come_is_said(monkeypatch, ends):
    monkeypatch.setattr("mlx_yoda.train.line._JOIN", 0.3)
    with pytest.raises(OSError, match="not all processes have connected"):
        open_line(0, 2, lambda value: [value], ["127.0.0.1"], ends.of(0))
