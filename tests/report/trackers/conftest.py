"""A run that each tracker hears of, and a network that nobody reaches."""

import ipaddress
import socket
from collections.abc import Callable, Sequence

import pytest

from mlx_yoda.report.events import Evaluated, Event, Finished, Generated, Stepped, Working


@pytest.fixture
def events(stepped: Callable[..., Stepped]) -> Sequence[Event]:
    """Two logged steps, one that is not, an evaluation and the end."""
    return (
        Generated("before", 0, 0.0, 60.0, 8, ()),
        Working("compiling"),
        stepped(10),
        stepped(15, logged=False),
        stepped(20),
        Evaluated(20, 2.0, 0.75, 2.117, 99),
        Finished(20, 1.5, 12.0, 4000, 2000, "out"),
    )


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Refuses every connection but those on this machine, and keeps their addresses."""
    asked: list[object] = []
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and not ipaddress.ip_address(address[0]).is_loopback:
            asked.append(address)
            raise OSError("there is no network in tests")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
    return asked
