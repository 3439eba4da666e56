"""HTTP: three addresses, every request bounded in size, time and number."""

import contextlib
import json
import select
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from io import BufferedIOBase
from socketserver import ThreadingTCPServer
from threading import BoundedSemaphore, Timer
from typing import Any

from mlx_yoda.errors import UserError
from mlx_yoda.serve.access import Access
from mlx_yoda.serve.page import page
from mlx_yoda.serve.refusal import Refusal
from mlx_yoda.serve.reply import DONE, WAITING, Reply, event, models, now
from mlx_yoda.serve.request import Defaults, parse
from mlx_yoda.serve.worker import Job, Worker

LARGEST = 1 << 20  # bytes of a request's body
_CONNECTIONS = 32
_SECONDS = 20.0  # for a request to arrive, and for its reader to let us wait
_PATIENCE = 0.5  # seconds between looks whether the client is still there
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Service:
    """What a server serves.

    Attributes:
        models: model's name → what it is.
        worker: what answers.
        access: who may ask.
        defaults: for what requests leave out.
    """

    models: Mapping[str, str]
    worker: Worker
    access: Access
    defaults: Defaults


class Server(ThreadingTCPServer):
    """Listens as soon as it is made; `serve_forever` answers.

    A connection carries one request and has a thread while it lasts.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = _CONNECTIONS

    def __init__(self, service: Service, port: int) -> None:
        """
        Args:
            service: what to serve, and at which host.
            port: 0 takes one that is free.

        Raises:
            UserError: it cannot listen there.
        """
        self.service = service
        self.started = now()
        self._free = BoundedSemaphore(_CONNECTIONS)
        host = service.access.host
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self.address_family, address = found[0][0], found[0][4]
            super().__init__((str(address[0]), int(address[1])), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"cannot listen at {host}, port {port}: {reason}; name another --port or --host."
            ) from None

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.server_address[1]
        return port

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Hang up on connections that are too many."""
        return self._free.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, and make room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up; faults are told by whoever meets them."""


class BoundedWriter(BufferedIOBase):
    """Writes to a connection whose reader may make it wait for so long, all writes together.

    A reader that stops, or takes a byte now and then, would otherwise hold its connection for good.
    """

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection, self._left = connection, seconds

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, content: Any) -> int:
        """Send all of it.

        Raises:
            TimeoutError: the reader has made it wait for too long.
            OSError: nobody is there any more.
        """
        begun = time.monotonic()
        self._connection.settimeout(max(self._left, 1e-3))  # 0 would mean not to wait at all
        self._connection.sendall(content)
        self._connection.settimeout(None)
        self._left -= time.monotonic() - begun
        with memoryview(content) as view:
            return view.nbytes


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    server_version, sys_version = "mlx-yoda", ""

    def setup(self) -> None:
        """Give the request a time in which to arrive."""
        self._deadline = Timer(_SECONDS, self._hang_up)
        self._deadline.daemon = True
        self._deadline.start()
        super().setup()
        self.wfile = BoundedWriter(self.connection, _SECONDS)

    def finish(self) -> None:
        """Let go of the connection."""
        self._deadline.cancel()
        super().finish()

    def do_GET(self) -> None:
        """The page, or the list of models."""
        with self._refusing():
            self._arrived()
            match self._route():
                case "/":
                    content, headers = page()
                    self._send(200, content, headers)
                case "/v1/models":
                    self._check_token()
                    self._send_json(200, models(self.server.service.models, self.server.started))
                case path if path.startswith("/v1/models/"):
                    self._check_token()
                    self._send_model(path.removeprefix("/v1/models/"))
                case _:
                    raise Refusal(404, "There is nothing at this address.")

    def do_POST(self) -> None:
        """An answer."""
        with self._refusing():
            body = self._body()
            self._arrived()
            route = self._route()
            self._check_token()
            if route != "/v1/chat/completions":
                raise Refusal(404, "There is nothing at this address.")
            if self.headers.get_content_type() != "application/json":
                raise Refusal(415, "The request must be application/json.")
            service = self.server.service
            request = parse(body, list(service.models), service.defaults)
            job = service.worker.submit(request)
            try:
                answer = self._stream if request.stream else self._whole
                answer(job, Reply(request.model))
            finally:
                job.cancelled.set()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library has to object to, as OpenAI writes errors."""
        self._deadline.cancel()
        self._send_json(code, Refusal(code, message or "The request is no HTTP.").as_dict())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what people say to the model is theirs."""

    def _stream(self, job: Job, reply: Reply) -> None:
        self.send_response(200)
        for name, value in {"Content-Type": "text/event-stream", **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(event(reply.opening()))
        try:
            for piece in job.answer(_PATIENCE):
                if piece is None:
                    self.wfile.write(WAITING)  # which fails if nobody is there any more
                    self._check_presence()
                elif piece.text or piece.finish_reason:
                    self.wfile.write(event(reply.chunk(piece)))
                    last = piece
        except Refusal as refusal:  # the status is sent already
            self.wfile.write(event(refusal.as_dict()))
            return
        if job.request.include_usage:
            self.wfile.write(event(reply.usage(last)))
        self.wfile.write(DONE)

    def _whole(self, job: Job, reply: Reply) -> None:
        texts = []
        for piece in job.answer(_PATIENCE):
            if piece is None:
                self._check_presence()
            else:
                texts.append(piece.text)
                last = piece
        self._send_json(200, reply.whole("".join(texts), last))

    def _route(self) -> str:
        """The path that is asked for, once it is clear that this is the server that is meant."""
        origin = self.headers.get("Origin")
        self.server.service.access.check_origin(self.headers.get("Host"), origin)
        return self.path.partition("?")[0]

    def _check_token(self) -> None:
        self.server.service.access.check_token(self.headers.get("Authorization"))

    def _check_presence(self) -> None:
        """Give up if the client has hung up, lest the model speak to nobody."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            raise ConnectionAbortedError

    def _body(self) -> bytes:
        """What the client sends; of what is too large, enough that it reads our answer."""
        stated = self.headers.get("Content-Length", "")
        if not (stated.isascii() and stated.isdigit()):
            raise Refusal(411, "The request must state its Content-Length.")
        length = int(stated[:20])
        if length > LARGEST:
            for _ in range(min(length // LARGEST, 16)):
                self.rfile.read(LARGEST)
            raise Refusal(413, f"The request may have {LARGEST:,} bytes at most.")
        return self.rfile.read(length)

    def _arrived(self) -> None:
        self._deadline.cancel()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send_model(self, model: str) -> None:
        names = self.server.service.models
        if model not in names:
            raise Refusal(404, "There is no such model.", code="model_not_found")
        listed = models({model: names[model]}, self.server.started)
        self._send_json(200, listed["data"][0])

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Tell the client why it gets no answer."""
        try:
            yield
        except Refusal as refusal:
            self._send_json(refusal.status, refusal.as_dict())

    def _send_json(self, status: int, value: Mapping[str, Any]) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, **_HEADERS, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        if status == 429:
            self.send_header("Retry-After", "5")
        self.end_headers()
        self.wfile.write(content)
