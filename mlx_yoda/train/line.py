"""A line from every process to the first one, so that nobody waits for a process that is gone.

Sums over the processes may wait for ever: for a process that was stopped, a cable that was pulled,
or, with some of MLX's backends, one that was killed. So a thread of each process keeps a connection
to the first one (the first one, to all), says every second that it is there, and ends its process
when another has failed, is gone or has been silent for too long.
"""

import contextlib
import hmac
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

End = Callable[[str, int], None]  # (words, exit code): end the process, from another thread

_BEAT = 1.0  # seconds between two signs of life
_SILENCE = 20.0  # seconds after which a silent process is taken for lost
_ASLEEP = 5.0  # seconds after which a watcher was itself stopped, and judges nobody
_PATIENCE = 10.0  # seconds that the last words of another process are waited for
_JOIN = 30.0  # seconds for the connection
_HELLO = 5.0  # seconds for one address to answer, and for the first line of whoever connects
_LOOPBACK = ("127.0.0.1", "::1")
_WRONG = 2  # exit code


class Line:
    """The connections of one process, and the thread that watches them.

    Messages are lines: `beat`; `bye` of a process that has done its part; `end CODE WORDS` of one
    that has failed. The first process speaks for all: the others tell it, and end without a word.
    """

    def __init__(
        self, rank: int, peers: dict[int, socket.socket], end: End, silence: float = _SILENCE
    ) -> None:
        self._rank, self._peers, self._end, self._silence = rank, peers, end, silence
        self._unread = dict.fromkeys(peers, b"")
        self._left: set[int] = set()  # who has said bye
        self._closed: set[int] = set()  # whose connection is closed
        self._news = threading.Condition()
        self._failing = self._over = False
        self._selector = selectors.DefaultSelector()
        for peer, connection in peers.items():
            connection.settimeout(_BEAT)
            self._selector.register(connection, selectors.EVENT_READ, peer)
        self._thread = threading.Thread(target=self._watch, name="line", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Say that this process has done its part, and wait until the first one goes.

        The first one waits until all others have done theirs.
        """
        if self._rank:
            self._send(0, "bye")
        self._wait(lambda: set(self._peers) <= self._left | self._closed)
        if self._rank == 0:
            for peer in self._peers:
                self._send(peer, "bye")
        else:
            self._wait(lambda: 0 in self._closed, _PATIENCE)

    def fail(self, words: str, code: int) -> bool:
        """Tell that this process has failed, so that all end.

        Args:
            words: why, for people.
            code: the exit code.

        Returns:
            Whether the first process says it, so that this one need not.
        """
        with self._news:
            self._failing = True
        if self._rank == 0:
            for peer in self._peers:
                self._send(peer, f"end {code}")
            return False
        told = self._send(0, f"end {code} {' '.join(words.split())}")
        return told and self._wait(lambda: 0 in self._closed, _PATIENCE)

    def wait(self) -> None:
        """Wait until the thread ends this process; come back if it sees no reason to."""
        self._wait(lambda: self._over, self._silence + _PATIENCE)

    def _wait(self, done: Callable[[], bool], seconds: float | None = None) -> bool:
        with self._news:
            return self._news.wait_for(done, seconds)

    def _watch(self) -> None:
        now = time.monotonic()
        heard, looked, beaten = dict.fromkeys(self._peers, now), now, 0.0
        while not self._over and (others := set(self._peers) - self._closed):
            ready = self._selector.select(_BEAT / 2)
            now = time.monotonic()
            if now - looked > min(_ASLEEP, self._silence / 2):
                heard = dict.fromkeys(self._peers, now)
            looked = now
            for key, _ in ready:
                heard[key.data] = now
                self._read(key.data)
            if now - beaten > _BEAT:
                beaten = now
                for peer in others:
                    self._send(peer, "beat")
            for peer in others - self._closed:
                if now - heard[peer] > self._silence:
                    self._lost(peer, f"has not been heard of for {self._silence:.0f} seconds")

    def _read(self, peer: int) -> None:
        try:
            received = self._peers[peer].recv(4096)
        except OSError:
            received = b""
        *lines, self._unread[peer] = (self._unread[peer] + received).split(b"\n")
        for line in lines:
            kind, _, rest = line.decode(errors="replace").partition(" ")
            if kind == "bye":
                self._note(self._left, peer)
            elif kind == "end":
                code, _, words = rest.partition(" ")
                self._ended(peer, int(code), words)
        if not received:
            self._selector.unregister(self._peers[peer])
            self._note(self._closed, peer)
            if peer not in self._left and not self._failing:
                self._lost(peer, "is gone")

    def _ended(self, peer: int, code: int, words: str) -> None:
        """Another process has failed and said so."""
        if self._rank == 0:
            time.sleep(_BEAT)  # this one may be about to say the very same
            if not self._failing:
                self._finish(f"process {peer}: {words}", code)
        else:
            with contextlib.suppress(OSError):  # until the first process has said it and goes
                self._peers[peer].settimeout(_PATIENCE)
                while self._peers[peer].recv(4096):
                    pass
            if not self._failing:
                self._finish("", code)

    def _lost(self, peer: int, how: str) -> None:
        self._finish(
            f"process {peer} {how}, so the others end; the checkpoints are intact: go on with "
            "--resume, with as many processes or on one machine alone.",
            _WRONG,
        )

    def _finish(self, words: str, code: int) -> None:
        if self._rank == 0:
            for peer in set(self._peers) - self._closed:
                self._send(peer, f"end {code}")
        self._end(words, code)
        with self._news:
            self._over = True
            self._news.notify_all()

    def _note(self, processes: set[int], peer: int) -> None:
        with self._news:
            processes.add(peer)
            self._news.notify_all()

    def _send(self, peer: int, message: str) -> bool:
        try:
            self._peers[peer].sendall(f"{message}\n".encode())
        except OSError:
            return False
        return True


def open_line(
    rank: int,
    size: int,
    gathered: Callable[[Any], list[Any]],
    addresses: Sequence[str],
    end: End,
) -> Line:
    """Connect the processes.

    Args:
        rank: of this process.
        size: how many there are.
        gathered: everybody's value, by rank.
        addresses: where others reach the first process, each of them at one of these.
        end: see `Line`.

    Raises:
        OSError: they do not reach each other.
    """
    if rank:
        hosts, port, token = gathered(None)[0]
        connection = _connected(hosts, port)
        connection.sendall(f"{token} {rank}\n".encode())
        return Line(rank, {0: connection}, end)
    token, peers = secrets.token_hex(16), dict[int, socket.socket]()
    with _server(addresses) as server:
        server.settimeout(_JOIN)
        gathered(([*addresses, socket.gethostname()], server.getsockname()[1], token))
        while len(peers) < size - 1:
            connection, _ = server.accept()
            hello = _hello(connection).split()
            if len(hello) == 2 and hmac.compare_digest(hello[0], token) and hello[1].isdigit():
                peers[int(hello[1])] = connection
            else:
                connection.close()
    return Line(rank, peers, end)


def _server(addresses: Sequence[str]) -> socket.socket:
    """Listens to this machine alone where all processes are on it."""
    if addresses and all(address in _LOOPBACK for address in addresses):
        family = socket.AF_INET6 if ":" in addresses[0] else socket.AF_INET
        return socket.create_server((addresses[0], 0), family=family)
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", 0), family=family, dualstack_ipv6=both)


def _connected(hosts: Sequence[str], port: int) -> socket.socket:
    """To the first of the addresses that answers: not all of them lead there from everywhere."""
    for host in hosts:
        with contextlib.suppress(OSError):
            return socket.create_connection((host, port), _HELLO)
    raise OSError(f"process 0 does not answer at {', '.join(hosts)}, port {port}")


def _hello(connection: socket.socket) -> str:
    """The first line that somebody says, who may be a stranger."""
    connection.settimeout(_HELLO)
    said = b""
    with contextlib.suppress(OSError):
        while not said.endswith(b"\n") and len(said) < 100 and (more := connection.recv(1)):
            said += more
    return said.decode(errors="replace")
