"""Servers: one that runs as a user runs it, and ones in this process that say what a test wants."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from mlx_yoda.model.piece import Piece
from mlx_yoda.serve.access import Access
from mlx_yoda.serve.request import Defaults
from mlx_yoda.serve.server import Server, Service
from mlx_yoda.serve.worker import Worker

ROOT = Path(__file__).resolve().parents[2]


def spoken(*texts, reason="stop"):
    """An answer in pieces."""
    for i, text in enumerate(texts):
        yield Piece(text, 3, i + 1, reason if i == len(texts) - 1 else None)


@pytest.fixture(scope="session")
def serve(tmp_path_factory):
    """Starts `mlx-yoda serve` with these arguments; gives the process and its page's address."""
    started = []

    def start(*args, **environment):
        log = tmp_path_factory.mktemp("serve") / "stderr"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlx_yoda", "serve", *map(str, args), "--port", "0"],
                stderr=stderr,
                cwd=ROOT,
                env={**os.environ, **environment},
            )
        started.append(process)
        while not (found := re.search(r"Talk to it: +(\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
        return process, found[1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def make_server() -> Iterator:
    """Starts a server in this process whose models are functions of the request."""
    running = []

    def start(host="127.0.0.1", token=None, waiting=8, **voices):
        worker = Worker(voices or {"base": lambda request: spoken("Hm", ".")}, waiting)
        names = dict.fromkeys(voices or ["base"], "a-name")
        access = Access(host, token)
        server = Server(Service(names, worker, access, Defaults(max_tokens=50)), 0)
        for target in (server.serve_forever, worker.run):
            Thread(target=target, daemon=True).start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.service.worker.stop()
        server.shutdown()
        server.server_close()
