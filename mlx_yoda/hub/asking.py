"""Asking the Hub: patience where it helps, one clear sentence where it does not.

huggingface_hub repeats by itself what belongs to an upload of bytes (preupload, LFS, Xet), five
times with growing pauses. It does not repeat the creation of a repository or a branch, the check
of the metadata, nor the commit: those are repeated here.
"""

import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import TypeVar

from httpx2 import RequestError, TooManyRedirects, UnsupportedProtocol
from huggingface_hub.errors import HfHubHTTPError

from mlx_yoda.errors import UserError
from mlx_yoda.hub_client import cause, explain, limited_patience, line, retry_after

Remark = Callable[[str], None]
T = TypeVar("T")

_TRIES = 5
_LONGEST = 330  # seconds; the Hub counts requests in windows of five minutes
_PASSING = (408, 409, 412, 425, 429, 500, 502, 503, 504)
_REPEATED_ALREADY = re.compile(r"/preupload/|\.git/info/lfs/|\.git/verify")


def ask(call: Callable[[], T], remark: Remark) -> T:
    """Call until it works, at most five times, waiting as long as the Hub asks for.

    Args:
        call: what to do; it must bear being done twice.
        remark: told of each pause.

    Raises:
        UserError: it did not work; the message, without its full stop, says why and what helps.
    """
    for attempt in range(1, _TRIES + 1):
        try:
            return call()
        # Three libraries below (HTTP, Xet, the client), each with its own exceptions.
        except Exception as error:
            pause = _pause(cause(error), attempt)
            why, help = explain(error)
            if pause is None or attempt == _TRIES:
                raise UserError(f"{why}: {help}" if help else why) from error
        remark(f"{why}; trying again in {pause:.0f} s ({attempt} of {_TRIES - 1})")
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


@contextmanager
def well_behaved_client(remark: Remark) -> Iterator[None]:
    """Let huggingface_hub say what it warns of in our way, and never wait for ever.

    Its warnings lose their signed addresses and take a line each.
    """
    logger = logging.getLogger("huggingface_hub")
    handlers = logger.handlers
    logger.handlers = [_Remarks(remark)]
    try:
        with limited_patience(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # between the client and its own libraries
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = lambda message, *_: remark(line(message))
            yield
    finally:
        logger.handlers = handlers


class _Remarks(logging.Handler):
    def __init__(self, remark: Remark) -> None:
        super().__init__(logging.WARNING)
        self.remark = remark

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a warning on."""
        self.remark(line(record.getMessage()))


def _pause(error: BaseException, attempt: int) -> float | None:
    """Seconds to wait before another try; None if that is of no use, or done already."""
    pause = float(2 ** (attempt - 1))
    match error:
        case JSONDecodeError():
            return pause
        case HfHubHTTPError():
            if error.response.status_code not in _PASSING:
                return None
            request, asked = error.response.request, retry_after(error)
            if asked is not None:
                pause = asked
        case TooManyRedirects() | UnsupportedProtocol():
            return None
        case RequestError():
            request = error.request
        case _:
            return None
    repeated = request.method == "PUT" or _REPEATED_ALREADY.search(request.url.path)
    return None if repeated or pause > _LONGEST else pause
