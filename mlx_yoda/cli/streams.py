"""Standard output and error without secrets, whoever writes to them."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from mlx_yoda.secrets import redact


class RedactedStream:
    """A text stream that takes the access tokens out of what is written to it.

    In all else it is the stream behind it: rich, tqdm and the line editor ask for its
    descriptor, its encoding, and whether it is a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text without tokens; says that all of it was written."""
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write one line after another."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def redacted_streams() -> Iterator[None]:
    """For a while, let nothing out through `sys.stdout` and `sys.stderr` that is a token."""
    own = sys.stdout, sys.stderr
    ours = tuple(cast(TextIO, RedactedStream(stream)) for stream in own)
    sys.stdout, sys.stderr = ours
    try:
        yield
    finally:  # click replaces a stream whose reader has gone away, and that must last
        sys.stdout = own[0] if sys.stdout is ours[0] else sys.stdout
        sys.stderr = own[1] if sys.stderr is ours[1] else sys.stderr
