"""Runs of `mlx-yoda train` on several processes of this machine, started by `mlx.launch`."""

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

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = "from mlx._distributed_utils.launch import main; main()"
# Says which process it is, goes to a folder of its own if there is one, and becomes the program.
BECOME = 'echo $$ > "$0.$MLX_RANK"; cd "$0/$MLX_RANK" 2>/dev/null; exec "$@"'


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens at."""
    while True:
        first = random.randrange(20_000, 30_000)
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
                return first
            except OSError:
                continue


class Launched:
    """The launcher with its processes; what they say comes in as they say it.

    Attributes:
        said: standard output and error of all processes and of the launcher.
    """

    def __init__(self, count: int, args: list[str], folder: Path) -> None:
        self.folder, self.said = folder, ""
        command = ["sh", "-c", BECOME, str(folder), sys.executable, "-m", "mlx_yoda", *args]
        port = str(free_ports(count))
        # Standard input stays open and silent: the launcher asks it all the time once it ends.
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, "-n", str(count), "-p", port, "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.said += line

    def until(self, words: str, seconds: float = 120) -> None:
        """Wait until something has been said."""
        limit = time.monotonic() + seconds
        while words not in self.said:
            assert self.process.poll() is None and time.monotonic() < limit, self.said
            time.sleep(0.01)

    def signal(self, rank: int, signum: int) -> None:
        """Send a signal to a process."""
        os.kill(int(Path(f"{self.folder}.{rank}").read_text()), signum)

    def end(self, seconds: float = 120) -> str:
        """Wait for the end; what was said."""
        self.process.wait(seconds)
        self._reader.join(10)
        return self.said

    def succeed(self) -> str:
        """Wait for the end of a run that goes well; what was said."""
        said = self.end()
        assert not self.codes, said
        return said

    @property
    def codes(self) -> dict[int, int]:
        """The exit codes that are not 0, by rank, as the launcher tells them."""
        found = re.findall(r"Node with rank (\d+) exited with code (-?\d+)", self.said)
        return {int(rank): int(code) for rank, code in found}

    def close(self) -> None:
        """End whatever is left."""
        for file in self.folder.parent.glob(f"{self.folder.name}.[0-9]"):
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(file.read_text()), signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()
