"""Runs of `mlx-yoda train` on several processes here, started by `mlx.launch` or as it does it."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.machine import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = [sys.executable, "-c", "from mlx._distributed_utils.launch import main; main()"]
# Says which process it is, goes to a folder of its own if there is one, and becomes the program.
BECOME = 'echo $$ > "$0.$MLX_RANK"; cd "$0/$MLX_RANK" 2>/dev/null; exec "$@"'


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens at."""
    while True:
        first = random.randrange(20_000, 30_000)
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


class Launched:
    """Processes, and the launcher if there is one; what they say comes in as they say it.

    Attributes:
        said: standard output and error of all processes and of the launcher.
    """

    def __init__(self, count: int, args: list[str], folder: Path, by_launcher: bool) -> None:
        self.folder, self.said, self._by_launcher = folder, "", by_launcher
        command = ["sh", "-c", BECOME, str(folder), sys.executable, "-m", "mlx_yoda", *args]
        port, hosts = free_ports(count), folder.with_suffix(".hosts")
        hosts.write_text(json.dumps([[f"127.0.0.1:{port + rank}"] for rank in range(count)]))
        launch = [*LAUNCHER, "-n", str(count), "-p", str(port), "--"]
        receive, send = os.pipe()
        # Standard input stays open and silent: the launcher asks it all the time once it ends.
        self.processes = [
            subprocess.Popen(
                [*launch, *command] if by_launcher else command,
                stdin=subprocess.PIPE,
                stdout=send,
                stderr=send,
                cwd=ROOT,
                env={
                    **{**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
                    **({} if by_launcher else {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)}),
                },
            )
            for rank in range(1 if by_launcher else count)
        ]
        os.close(send)
        self._reader = threading.Thread(target=self._read, args=(receive,))
        self._reader.start()

    def _read(self, receive: int) -> None:
        with os.fdopen(receive, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                self.said += line

    def until(self, words: str, seconds: float = PATIENCE) -> None:
        """Wait until something has been said."""
        limit = time.monotonic() + seconds
        while words not in self.said:
            assert self._reader.is_alive() and time.monotonic() < limit, self.said
            time.sleep(0.01)

    def signal(self, rank: int, signum: int) -> None:
        """Send a signal to a process."""
        os.kill(int(Path(f"{self.folder}.{rank}").read_text()), signum)

    def end(self, seconds: float = PATIENCE) -> str:
        """Wait for the end; what was said."""
        for process in self.processes:
            process.wait(seconds)
        self._reader.join(PATIENCE)
        return self.said

    def succeed(self) -> str:
        """Wait for the end of a run that goes well; what was said."""
        said = self.end()
        assert not self.codes, said
        return said

    @property
    def codes(self) -> dict[int, int]:
        """The exit codes that are not 0, by rank; the launcher may be quicker with a SIGTERM."""
        if not self._by_launcher:
            codes = {rank: process.returncode for rank, process in enumerate(self.processes)}
            return {rank: code for rank, code in codes.items() if code}
        found = re.findall(r"Node with rank (\d+) exited with code (-?\d+)", self.said)
        return {int(rank): int(code) for rank, code in found}

    def close(self) -> None:
        """End whatever is left."""
        for file in self.folder.parent.glob(f"{self.folder.name}.[0-9]"):
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(file.read_text()), signal.SIGKILL)
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdin:
                process.stdin.close()
        self._reader.join(PATIENCE)
