"""What the small Hub is and how it speaks HTTP: its state, tokens, faults to order.

It answers over HTTP/1.1 as the real one does; what it answers is in `routes`.
"""

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.store import LARGE, Blob, Repo

TOKEN = "hf_" + "aTokenForTestsOnly" * 2  # may write to me/*
READER = "hf_" + "aReaderOfThings" * 2  # may read


@dataclass
class Fault:
    """An answer to give instead of the right one.

    Attributes:
        method, path: which requests, the path as a regular expression.
        status, headers, body: the answer.
        cut: close the connection after half of the request, instead of answering.
        lose: do what is asked, then close the connection instead of answering.
        silent: say nothing for so many seconds, then close the connection.
        times: how often.
    """

    method: str
    path: str
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: str = "{}"
    cut: bool = False
    lose: bool = False
    silent: float = 0.0
    times: int = 1


@dataclass
class Hub:
    """The state of the server, for tests to look at and to spoil."""

    url: str = ""
    storage: str = ""  # another host, as the real one's large files have
    repos: dict[str, Repo] = field(default_factory=dict)  # "models/me/yoda" → Repo
    large: dict[str, bytes] = field(default_factory=dict)  # SHA-256 → bytes
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)  # paths that a .gitignore there names
    xet: Path | None = None  # the folder of a Xet store, or None for a Hub without
    lock: threading.RLock = field(default_factory=threading.RLock)

    def fail(self, method: str, path: str, status: int = 500, **how: Any) -> None:
        """Order a fault."""
        self.faults.append(Fault(method, path, status, **how))

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """What a model repository holds but for what the Hub itself put there."""
        commit = self.repos[f"models/{repo}"].at(revision)
        assert commit is not None
        return {p: blob.data for p, blob in commit.files.items() if p != ".gitattributes"}

    def add(self, repo: str, files: dict[str, bytes]) -> None:
        """Put a repository there, such as `models/owner/base`."""
        made = self.repos.setdefault(repo, Repo(private=False))
        blobs = {path: Blob(data, path.endswith(LARGE)) for path, data in files.items()}
        self.large |= {blob.sha256: blob.data for blob in blobs.values() if blob.lfs}
        made.commit("main", "files", blobs)

    def times(self, method: str, path: str) -> int:
        """How often something was asked for."""
        return sum(m == method and bool(re.search(path, p)) for m, p in self.requests)


class Answer(Exception):
    """Ends a request with this answer."""

    def __init__(self, status: int, body: Any = None, **headers: str) -> None:
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    hub: Hub
    routes: tuple[tuple[str, str, Callable[..., None]], ...]  # methods, path, what answers

    def do(self) -> None:
        """Answer a request: by a fault if one was ordered, else by the first route that fits."""
        split = urlsplit(self.path)
        with self.hub.lock:
            self.hub.requests.append((self.command, split.path))
            fault = self._fault(split.path)
        if fault and (fault.cut or fault.silent):
            time.sleep(fault.silent)
            return self._cut()
        size = int(self.headers.get("Content-Length", 0))
        self.body = self._chunks() if "Transfer-Encoding" in self.headers else self.rfile.read(size)
        if fault and not fault.lose:
            return self._send(fault.status, fault.body.encode(), fault.headers)
        self.query = parse_qs(split.query)
        try:
            self._check_token()
            with self.hub.lock:
                self._route(split.path)
            raise Answer(404, {"error": "Not found"})
        except Answer as answer:
            if fault:
                return self._hang_up()
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body)
            self._send(answer.status, body.encode() if isinstance(body, str) else body,
                       answer.headers)  # fmt: skip

    do_GET = do_HEAD = do_POST = do_PUT = do

    def _fault(self, path: str) -> Fault | None:
        for fault in self.hub.faults:
            if fault.times and fault.method == self.command and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None

    def _route(self, path: str) -> None:
        for method, pattern, answer in self.routes:
            found = re.fullmatch(pattern, path)
            if found and self.command in method.split():
                answer(self, **{key: unquote(v or "") for key, v in found.groupdict().items()})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _cut(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
        self._hang_up()

    def _hang_up(self) -> None:
        """Reset the connection, so that the other side notices at once."""
        reset = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        self.close_connection = True
        self.connection.close()

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _check_token(self) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in (TOKEN, READER):
            said = "Invalid credentials in Authorization header"
            raise Answer(401, {"error": said}, X_Error_Message=said)
        self.writer = given == TOKEN
        self.known = bool(given)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    # What the routes share

    def writing(self, repo: str) -> Repo:
        """The repository, if the token may write to it."""
        found = self.reading(repo)
        if not self.writer or repo.split("/")[1] != "me":
            said = "you don't have the rights to write there"
            raise Answer(403, {"error": said}, X_Error_Message=said)
        return found

    def reading(self, repo: str) -> Repo:
        """The repository, if there is one that may be read."""
        found = self.hub.repos.get(repo)
        if found is None or (found.private and not self.known):
            said = "Repository not found"
            raise Answer(404 if self.known else 401, {"error": said}, X_Error_Code="RepoNotFound",
                         X_Error_Message=said)  # fmt: skip
        return found

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)
