"""How several processes meet, and end together: whatever ends one of them ends all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mlx_yoda.errors import SaidAlready, UserError, first_line
from mlx_yoda.recipes.interruption import Interrupted
from mlx_yoda.report.words import one_line
from mlx_yoda.secrets import redact
from mlx_yoda.train.group import Group, join

_FAULT, _INTERRUPTED = 1, 128  # exit codes
_LONGEST = 1500  # characters of a message


@contextmanager
def joined() -> Iterator[Group]:
    """The processes that a launcher has started, or this one alone; they end together.

    Where one of them fails, or is lost, the others end at once, whatever they are waiting for: the
    whole process ends.

    Raises:
        SaidAlready: for a `UserError` that the first process has said for this one.
    """
    group = join(_end)
    try:
        yield group
    except Interrupted as stopped:
        if stopped.step is None:
            group.fail(f"stopped by {stopped}", _INTERRUPTED + stopped.signum)
        else:  # by all, after the same step
            group.leave()
        raise
    except UserError as error:
        if group.fail(str(error), 2):
            raise SaidAlready(str(error)) from None
        raise
    except KeyboardInterrupt:
        group.fail("stopped by SIGINT", _INTERRUPTED + 2)
        raise
    except Exception as error:
        group.fail(f"{type(error).__name__}: {first_line(error)}", _FAULT)
        raise
    group.leave()


def _end(words: str, code: int) -> None:
    """End this process, which may be waiting for another one that never comes."""
    if words:
        os.write(2, f"error: {one_line(redact(words), _LONGEST)}\n".encode())
    os._exit(code)
