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
