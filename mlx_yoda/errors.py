"""The one exception a user is meant to see."""

from mlx_yoda.secrets import redact


class UserError(Exception):
    """Something the user can put right: a path, a key, a row, a missing package.

    The message is one sentence that says what is wrong, where (file, line, key) and what to
    do about it. The command line prints it and exits with code 2, without a traceback.
    Access tokens in it are blotted out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class SaidAlready(UserError):
    """One that another process has told the user: this one ends without a word."""


def first_line(error: BaseException) -> str:
    """Another's exception for a sentence of ours: its first line, of at most 300 characters."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return (line if len(line) <= 300 else f"{line[:299]}…").rstrip(".")
