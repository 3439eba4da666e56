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

from httpx2 import RequestError  # what huggingface_hub speaks HTTP with
from huggingface_hub import get_session
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mlx_yoda.errors import UserError
from mlx_yoda.secrets import redact

Remark = Callable[[str], None]
T = TypeVar("T")

_TOKENS = "https://huggingface.co/settings/tokens"
_TRIES = 5
_SILENCE = 120.0  # seconds without a byte
_LONGEST = 330  # seconds; the Hub counts requests in windows of five minutes
_PASSING = (408, 409, 412, 425, 429, 500, 502, 503, 504)
_REPEATED_ALREADY = re.compile(r"/preupload/|\.git/info/lfs/|\.git/verify")
_QUERY = re.compile(r"\?\S+")  # a storage's addresses are signed there


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
            cause = _cause(error)
            pause = _pause(cause, attempt)
            why, help = explain(cause)
            if pause is None or attempt == _TRIES:
                raise UserError(f"{why}: {help}" if help else why) from error
        remark(f"{why}; trying again in {pause:.0f} s ({attempt} of {_TRIES - 1})")
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def explain(error: BaseException) -> tuple[str, str]:
    """Why the Hub did not do what it was asked to, and what helps, if anything is known to."""
    match error:
        case OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE keeps this machine from the Hub", "unset it"
        case RevisionNotFoundError():
            return "the Hub knows no such revision", "leave --revision out, or name a branch"
        case HfHubHTTPError():
            return _explain_status(error)
        case RequestError():
            return f"the connection to the Hub failed ({_line(error)})", "check the network"
        case JSONDecodeError():  # a proxy's page, as a rule
            return "the Hub's answer makes no sense", "push again later"
        case HFValidationError():
            return f"the Hub takes no such name ({_line(error)})", "name another"
        case _:
            help = "HF_HUB_DISABLE_XET=1 uploads without Xet" if "xet" in str(error).lower() else ""
            return f"the upload failed ({_line(error)})", help


def _explain_status(error: HfHubHTTPError) -> tuple[str, str]:
    status = error.response.status_code
    said = _line(error.server_message or error.response.reason_phrase or status)
    match status:
        case 401 if not isinstance(error, RepositoryNotFoundError):
            return "the Hub does not accept the token", "log in anew with 'hf auth login'"
        case 401 | 404:
            return f"the Hub knows no such repository, or hides it ({said})", "check name and token"
        case 403:
            help = "check the name, and that the token may write"
            return f"the Hub does not let you write there ({said})", f"{help} ({_TOKENS})"
        case 409 | 412:
            return f"somebody else is changing the repository ({said})", "push again"
        case 429:
            wait = _retry_after(error)
            return "the Hub asks to slow down", f"push again {f'in {wait} s' if wait else 'later'}"
        case status if status >= 500:
            return f"the Hub has trouble of its own ({status} {said})", "push again later"
        case _:
            return f"the Hub refuses it ({status} {said})", ""


@contextmanager
def well_behaved_client(remark: Remark) -> Iterator[None]:
    """Let huggingface_hub say what it warns of in our way, and never wait for ever.

    Its warnings lose their signed addresses and take a line each. Its client, which has no limits
    of its own, gives up on a Hub that says nothing for two minutes.
    """
    session, logger = get_session(), logging.getLogger("huggingface_hub")
    timeout, handlers = session.timeout, logger.handlers
    session.timeout, logger.handlers = _SILENCE, [_Remarks(remark)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # between the client and its own libraries
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = lambda message, *_: remark(_line(Exception(message)))
            yield
    finally:
        session.timeout, logger.handlers = timeout, handlers


class _Remarks(logging.Handler):
    def __init__(self, remark: Remark) -> None:
        super().__init__(logging.WARNING)
        self.remark = remark

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a warning on."""
        self.remark(_line(Exception(record.getMessage())))


def _cause(error: Exception) -> BaseException:
    """What lies below: an upload in a thread of its own is wrapped into a RuntimeError."""
    return error.__cause__ if type(error) is RuntimeError and error.__cause__ else error


def _pause(error: BaseException, attempt: int) -> float | None:
    """Seconds to wait before another try; None if that is of no use, or done already."""
    pause = float(2 ** (attempt - 1))
    match error:
        case JSONDecodeError():
            return pause
        case HfHubHTTPError():
            if error.response.status_code not in _PASSING:
                return None
            request, asked = error.response.request, _retry_after(error)
            if asked is not None:
                pause = asked
        case RequestError():
            request = error.request
        case _:
            return None
    repeated = request.method == "PUT" or _REPEATED_ALREADY.search(request.url.path)
    return None if repeated or pause > _LONGEST else pause


def _retry_after(error: HfHubHTTPError) -> int | None:
    """What the Hub asks for in its headers, in seconds."""
    value = error.response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return int(value)
    reset = re.search(r";\s*t\s*=\s*(\d+)", error.response.headers.get("RateLimit", ""))
    return int(reset[1]) + 1 if reset else None


def _line(error: object, limit: int = 200) -> str:
    """The first line of what was said, without tokens and signatures."""
    text = _QUERY.sub("", redact(str(error)))
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return (line if len(line) <= limit else line[: limit - 1] + "…").rstrip(".:")
