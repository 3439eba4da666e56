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
_HELLO = 5.0  # seconds for one address to answer
_MOST_UNKNOWN = 64  # connections that have not yet said who they are
_LONGEST_GREETING = 100  # bytes
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
    token = secrets.token_hex(16)
    with _server(addresses) as server, _Reception(server, token.encode(), size) as reception:
        gathered(([*addresses, socket.gethostname()], server.getsockname()[1], token))
        return Line(rank, reception.wait(_JOIN), end)


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


class _Reception:
    """Waits for all other processes, which say `TOKEN RANK` on their first line.

    Strangers may connect too and say anything or nothing. All are listened to at once, so that a
    silent one delays nobody.
    """

    def __init__(self, server: socket.socket, token: bytes, size: int) -> None:
        self._server, self._token, self._size = server, token, size
        self._peers: dict[int, socket.socket] = {}
        self._unknown: dict[socket.socket, bytes] = {}  # the oldest first, and what each has said
        self._selector = selectors.DefaultSelector()
        self._selector.register(server, selectors.EVENT_READ)
        server.setblocking(False)

    def __enter__(self) -> "_Reception":
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up on strangers."""
        for connection in self._unknown:
            connection.close()
        self._selector.close()

    def wait(self, seconds: float) -> dict[int, socket.socket]:
        """Wait until all are there; rank → connection.

        Raises:
            TimeoutError: not all have come in time.
        """
        until = time.monotonic() + seconds
        while len(self._peers) < self._size - 1:
            if (left := until - time.monotonic()) <= 0:
                raise TimeoutError("not all processes have connected to process 0")
            for key, _ in self._selector.select(left):
                if key.fileobj is self._server:
                    self._accept()
                elif key.fileobj in self._unknown:
                    self._listen(key.fileobj)
        return self._peers

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):  # it has gone already
            connection, _ = self._server.accept()
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ)
            self._unknown[connection] = b""
        if len(self._unknown) > _MOST_UNKNOWN:
            self._forget(next(iter(self._unknown))).close()

    def _listen(self, connection: socket.socket) -> None:
        """Take one more byte of somebody's first line; what comes after it is for the heartbeat."""
        try:
            more = connection.recv(1)
        except OSError:
            more = b""
        self._unknown[connection] += more
        line = self._unknown[connection]
        if not more or len(line) > _LONGEST_GREETING:
            self._forget(connection).close()
        elif more == b"\n":
            self._forget(connection)
            rank = self._rank(line)
            if rank is None:
                connection.close()
            else:
                self._peers[rank] = connection

    def _forget(self, connection: socket.socket) -> socket.socket:
        self._selector.unregister(connection)
        del self._unknown[connection]
        return connection

    def _rank(self, line: bytes) -> int | None:
        """Which process says this; None if it is a stranger, or one that is here already."""
        token, _, said = line.rstrip(b"\n").partition(b" ")
        missing = set(range(1, self._size)) - self._peers.keys()
        rank = next((rank for rank in missing if said == b"%d" % rank), None)
        return rank if hmac.compare_digest(token, self._token) else None
