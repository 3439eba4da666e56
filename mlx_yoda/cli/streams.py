"""Standard output and error without secrets, whoever writes to them."""

import contextlib
import os
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

    def flush(self) -> None:
        """Bring out what was written."""
        self._stream.flush()

    def writelines(self, lines: list[str]) -> None:
        """Write one line after another."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_standard_streams() -> bool:
    """Give a process that was started without standard streams, as by `2>&-`, empty ones.

    Else the next file that is opened would be one of them, and get what is written there. What an
    encoding other than UTF-8 cannot write is escaped.

    Returns:
        Whether standard output is there.
    """
    there = sys.stdout is not None
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
        if mode == "w":
            getattr(sys, name).reconfigure(errors="backslashreplace")
    return there


class RedactedLog(RedactedStream):
    """Standard error, where nobody can be told that it cannot be written to: that text is lost.

    A log on a full disk or a terminal that has gone ends no run; a reader that goes away does.
    """

    def write(self, text: str) -> int:
        """Write the text without tokens, if that is possible."""
        with _forgiving():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Bring out what was written, if that is possible."""
        with _forgiving():
            super().flush()


@contextlib.contextmanager
def _forgiving() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        pass


@contextlib.contextmanager
def redacted_streams() -> Iterator[None]:
    """For a while, let nothing out through `sys.stdout` and `sys.stderr` that is a token."""
    own = sys.stdout, sys.stderr
    ours = cast(TextIO, RedactedStream(own[0])), cast(TextIO, RedactedLog(own[1]))
    sys.stdout, sys.stderr = ours
    try:
        yield
    finally:  # click replaces a stream whose reader has gone away, and that must last
        sys.stdout = own[0] if sys.stdout is ours[0] else sys.stdout
        sys.stderr = own[1] if sys.stderr is ours[1] else sys.stderr
