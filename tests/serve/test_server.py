"""HTTP: what is refused, and that nobody is made to wait for ever."""

import contextlib
import http.client
import json
import socket
import time
from threading import Event

import pytest

from mlx_yoda.errors import UserError
from mlx_yoda.model.piece import Piece
from mlx_yoda.serve import server as module
from mlx_yoda.serve.access import Access
from mlx_yoda.serve.request import Defaults
from mlx_yoda.serve.server import LARGEST, BoundedWriter, Server, Service
from mlx_yoda.serve.worker import Worker
from tests.machine import PATIENCE, wait_until, within

CHAT = "/v1/chat/completions"
HELLO = {"model": "base", "messages": [{"role": "user", "content": "Hello"}]}
JSON = {"Content-Type": "application/json"}
TOKEN = "a-token-long-enough"


def ask(server, method="POST", path=CHAT, body=None, headers=JSON):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request(method, path, json.dumps(HELLO) if body is None else body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def refused(server, *args, **kwargs):
    """Status and message; and an error's form is OpenAI's, which is read by its client."""
    response, content = ask(server, *args, **kwargs)
    error = json.loads(content)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status, error["message"]


def spoken(*texts, reason="stop"):
    """An answer in pieces."""
    for i, text in enumerate(texts):
        yield Piece(text, 3, i + 1, reason if i == len(texts) - 1 else None)


def raw(server, data):
    """Send bytes, and read all that comes back, until the server hangs up however it likes."""
    said = b""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection,
        contextlib.suppress(ConnectionError),
    ):
        connection.sendall(data)
        while piece := connection.recv(65536):
            said += piece
    return said


def test_an_answer(make_server):
    response, content = ask(make_server())
    assert response.status == 200
    said = json.loads(content)
    assert said["choices"][0]["message"]["content"] == "Hm."
    assert said["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/v1/models", CHAT])
def test_other_sites_are_told_nothing(make_server, method, path):
    server = make_server()
    for headers in (JSON, JSON | {"Origin": "http://evil.example"}):
        response, _ = ask(server, method, path, headers=headers)
        assert not any(name.lower().startswith("access-control") for name in response.headers)
    assert response.status in (403, 501)  # the second time, with the foreign origin


def test_a_form_of_another_site_is_no_request(make_server):
    """What a page may send without asking first is refused, whatever it says of its origin."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        status, _ = refused(make_server(), headers={"Content-Type": kind} if kind else {})
        assert status == 415


def test_a_rebound_name_is_refused(make_server):
    status, message = refused(make_server(), "GET", "/", headers={"Host": "evil.example:8080"})
    assert status == 403
    assert "evil.example" in message


def test_with_a_token_nothing_but_the_page_is_open(make_server):
    server = make_server(token=TOKEN)
    page, _ = ask(server, "GET", "/", headers={})
    assert page.status == 200
    for method, path in [("GET", "/v1/models"), ("GET", "/v1/models/base"), ("POST", CHAT)]:
        assert refused(server, method, path)[0] == 401
        wrong = JSON | {"Authorization": f"Bearer {TOKEN[::-1]}"}
        assert refused(server, method, path, headers=wrong)[0] == 401
        right = JSON | {"Authorization": f"Bearer {TOKEN}"}
        assert ask(server, method, path, headers=right)[0].status == 200


def test_there_is_nothing_else(make_server):
    server = make_server()
    for method, path in [
        ("GET", "/v1"), ("GET", "/v1/models/other"), ("GET", "/../pyproject.toml"),
        ("GET", "/page.html"), ("POST", "/v1/completions"), ("GET", CHAT),
    ]:  # fmt: skip
        assert refused(server, method, path)[0] == 404
    assert refused(server, "DELETE", "/")[0] == 501


@pytest.mark.parametrize("size", [LARGEST + 1, 5 * LARGEST])
def test_a_request_that_is_too_large_is_told_so(make_server, size):
    assert refused(make_server(), body=b" " * size) == (
        413,
        "The request may have 1,048,576 bytes at most.",
    )


def test_a_request_may_be_as_large_as_is_said(make_server):
    assert ask(make_server(), body=json.dumps(HELLO).ljust(LARGEST))[0].status == 200


def test_a_request_says_how_large_it_is(make_server):
    server = make_server()
    for length in (
        "",
        "Content-Length: -1\r\n",
        "Content-Length: 1e3\r\n",
        "Content-Length: ²\r\n",
    ):
        answer = raw(server, f"POST {CHAT} HTTP/1.1\r\n{length}\r\n".encode("latin-1"))
        assert b" 411 " in answer.splitlines()[0]


def test_what_is_no_http_is_refused_and_the_server_goes_on(make_server):
    server = make_server()
    for data in (b"\x16\x03\x01\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 70000):
        raw(server, data)
    assert ask(server)[0].status == 200


def test_a_request_that_dribbles_is_hung_up_on(make_server, monkeypatch):
    monkeypatch.setattr(module, "_SECONDS", 0.3)
    server = make_server()
    for begun in (b"POST ", f"POST {CHAT} HTTP/1.1\r\nContent-Length: 9\r\n\r\n{{".encode()):
        with within(5, time.monotonic):
            raw(server, begun)


def test_an_answer_may_take_longer_than_a_request(make_server, monkeypatch):
    def slow(request):
        time.sleep(0.8)
        yield from spoken("late")

    monkeypatch.setattr(module, "_SECONDS", 0.3)
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    assert b"late" in ask(make_server(base=slow))[1]


def test_no_more_than_so_many_connections(make_server, monkeypatch):
    monkeypatch.setattr(module, "_CONNECTIONS", 3)
    server = make_server()
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
    wait_until(lambda: server._free._value == 0)
    assert raw(server, b"") == b""  # hung up on, at once
    for connection in held:
        connection.close()
    wait_until(lambda: server._free._value == 3)
    assert ask(server)[0].status == 200


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_hangs_up_is_not_spoken_to_any_longer(make_server, monkeypatch, stream):
    begun, closed = Event(), Event()

    def endless(request):
        try:
            while True:
                begun.set()
                time.sleep(0.01)
                yield from (piece for piece in spoken("x", reason=None))
        finally:
            closed.set()

    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    server = make_server(base=endless) if stream else make_server(base=silent(begun, closed))
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("POST", CHAT, json.dumps(HELLO | {"stream": stream}), JSON)
    assert begun.wait(PATIENCE)
    connection.close()
    assert closed.wait(PATIENCE)


def silent(begun, closed):
    """A model that thinks long between its words."""

    def voice(request):
        try:
            begun.set()
            for _ in range(500):
                time.sleep(0.3)
                yield from spoken("", reason=None)
        finally:
            closed.set()

    return voice


@pytest.mark.parametrize("stream", [False, True])
def test_a_reader_that_stops_reading_is_hung_up_on(make_server, monkeypatch, stream):
    """Nor one that takes a byte now and then: it may make the server wait for so long in total."""
    monkeypatch.setattr(module, "_SECONDS", 0.5)
    monkeypatch.setattr(module, "_CONNECTIONS", 1)
    large = ["x" * 100_000] * 200  # more than the system's own buffers hold

    server = make_server(base=lambda request: spoken(*large))
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        body = json.dumps(HELLO | {"stream": stream})
        head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall((head + body).encode())
        with within(15, time.monotonic):
            connection.recv(1)
            while not raw(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"):
                time.sleep(0.05)  # until the one place is free
                connection.recv(1)


def test_the_waits_for_a_reader_count_together(monkeypatch):
    """A reader that takes each piece just in time would otherwise hold a stream for ever."""
    now, limits = [0.0], []

    class Slow:
        settimeout = limits.append

        def sendall(self, content):
            now[0] += 2.0

    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    writer = BoundedWriter(Slow(), 5.0)
    for _ in range(3):
        writer.write(b"a piece")
    assert limits[::2] == [5.0, 3.0, 1.0]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://[::1"},
        {"Origin": "http://\xe9"},
        {"Host": "[::1"},
        {"Host": "\xe9"},
        {"Content-Type": "\xe9"},
        {"Authorization": "\xe9"},
        {"Content-Length": "\xb2"},
    ],
    ids=str,
)
def test_malformed_headers_get_an_answer(make_server, headers):
    server = make_server()
    body = json.dumps(HELLO)
    sent = {
        "Host": f"127.0.0.1:{server.port}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    } | headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    said = raw(server, f"POST {CHAT} HTTP/1.1\r\n{lines}\r\n{body}".encode("latin-1"))
    status = int(said.split(b" ", 2)[1])
    assert status in (200, 400, 401, 403, 411, 413, 415)
    assert status == 200 or "error" in json.loads(said.partition(b"\r\n\r\n")[2])


def test_a_full_queue_says_when_to_come_back(make_server):
    go, begun = Event(), Event()

    def waits(request):
        begun.set()
        go.wait(PATIENCE)
        yield from spoken("done")

    server = make_server(waiting=1, base=waits)
    connections = [http.client.HTTPConnection("127.0.0.1", server.port) for _ in range(2)]
    jobs = server.service.worker._jobs
    for connection, waiting in zip(connections, (0, 1), strict=True):
        connection.request("POST", CHAT, json.dumps(HELLO), JSON)
        wait_until(lambda waiting=waiting: begun.is_set() and jobs.qsize() == waiting)
    response, content = ask(server)
    go.set()
    assert response.status == 429
    assert json.loads(content)["error"]["type"] == "rate_limit_error"
    assert response.headers["Retry-After"]
    for connection in connections:
        assert b"done" in connection.getresponse().read()


def test_a_port_that_is_taken_is_one_sentence(make_server):
    service = Service({}, Worker({}, 1), Access("127.0.0.1", None), Defaults(5))
    with pytest.raises(UserError, match=r"cannot listen at 127\.0\.0\.1, port .*--port"):
        Server(service, make_server().port)


def test_a_host_that_is_none_is_one_sentence():
    service = Service({}, Worker({}, 1), Access("no.such.host.invalid", TOKEN), Defaults(5))
    with pytest.raises(UserError, match=r"cannot listen at no\.such\.host"):
        Server(service, 0)
