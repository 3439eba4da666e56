"""The Hugging Face Hub's client: names it takes, its patience, and its errors in our words.

Models, data, adapters and `push` all reach the Hub through it; `explain` is the one table of what
can go wrong there.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from httpx2 import (  # what huggingface_hub speaks HTTP with
    ConnectError,
    ConnectTimeout,
    InvalidURL,
    Request,
    RequestError,
    TooManyRedirects,
    UnsupportedProtocol,
)
from huggingface_hub import get_session
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from mlx_yoda.secrets import redact

SILENCE = 120.0  # seconds without a byte
_TOKENS = "https://huggingface.co/settings/tokens"
_CARD_REFUSED = "Invalid metadata in README.md"  # in which it names what is wrong
_QUERY = re.compile(r"\?\S+")  # a storage's addresses are signed there
_CLIENT_ERRORS = (HfHubHTTPError, RequestError, FileMetadataError, OfflineModeIsEnabled)
_WRAPPERS = (RuntimeError, LocalEntryNotFoundError)  # around what a thread or a request raised


def is_repo_id(name: str) -> bool:
    """Whether the Hub could have a repository `owner/name` of that name."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


@contextmanager
def limited_patience() -> Iterator[None]:
    """Let the Hub's client give up after two minutes' silence; it has no limit of its own.

    Half of its calls ask for none explicitly, which the client's own setting would not change.
    """
    session = get_session()
    hooks = session.event_hooks
    session.event_hooks = {**hooks, "request": [*hooks["request"], _limit_silence]}
    try:
        yield
    finally:
        session.event_hooks = hooks


def _limit_silence(request: Request) -> None:
    asked = request.extensions.get("timeout", {})
    limited = {kind: asked.get(kind) or SILENCE for kind in ("connect", "read", "write", "pool")}
    request.extensions["timeout"] = limited


def cause(error: BaseException) -> BaseException:
    """The exception that the client wrapped, or the one given."""
    wrapped = isinstance(error, _WRAPPERS) and error.__cause__
    return cause(error.__cause__) if wrapped and error.__cause__ else error


def raised_by_hub(error: BaseException | None) -> BaseException | None:
    """The Hub client's exception among those that another library has raised from one another."""
    while error is not None and not isinstance(error, _CLIENT_ERRORS):
        error = error.__cause__ or error.__context__
    return error


def explain(error: BaseException) -> tuple[str, str]:
    """Why the Hub did not do what it was asked to, and what helps, or an empty string."""
    error = cause(error)
    match error:
        case OfflineModeIsEnabled():
            return "the Hub cannot be reached (HF_HUB_OFFLINE is set)", "unset it"
        case GatedRepoError():
            return "the Hub asks you to accept its terms", "do so on its page, then 'hf auth login'"
        case RevisionNotFoundError():
            return "the Hub knows no such revision", "leave it out, or name a branch, tag or commit"
        case RemoteEntryNotFoundError():
            return f"the Hub does not have all of its files ({line(error)})", "try again later"
        case HfHubHTTPError():
            return _explain_status(error)
        case TooManyRedirects():
            return "the Hub's answers redirect in a circle", "check HF_ENDPOINT and the proxy"
        case InvalidURL() | UnsupportedProtocol():
            return f"that is not an address of a Hub ({line(error)})", "check HF_ENDPOINT"
        case ConnectError() | ConnectTimeout():
            return f"the Hub cannot be reached ({line(error)})", "check the network"
        case RequestError():
            return f"the connection to the Hub failed ({line(error)})", "check the network"
        case HFValidationError():
            return f"the Hub takes no such name ({line(error)})", "name another"
        case ValueError() if str(error).startswith(_CARD_REFUSED):  # it has no class of its own
            return f"the Hub refuses the card ({line(' '.join(str(error).split()))})", ""
        case FileMetadataError() | ValueError() | AssertionError() | LookupError() | TypeError():
            why = "the Hub's answer makes no sense, as if a proxy or a log-in page answers instead"
            return why, "check the network"
        case OSError() if error.strerror:
            place = f"{error.filename}: " if error.filename else ""
            return f"it cannot be kept here ({place}{error.strerror})", ""
        case _:
            return f"the transfer failed ({line(error)})", _help_with_xet(error)


def line(error: object, limit: int = 200) -> str:
    """The first line of what was said, without tokens and signatures."""
    text = _QUERY.sub("", redact(str(error)))
    first = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return (first if len(first) <= limit else first[: limit - 1] + "…").rstrip(".:")


def retry_after(error: HfHubHTTPError) -> int | None:
    """Seconds that the Hub asks to wait, in one of two headers."""
    value = error.response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return int(value)
    reset = re.search(r";\s*t\s*=\s*(\d+)", error.response.headers.get("RateLimit", ""))
    return int(reset[1]) + 1 if reset else None


def _explain_status(error: HfHubHTTPError) -> tuple[str, str]:
    status = error.response.status_code
    said = line(error.server_message or error.response.reason_phrase or status)
    match status:
        case 401 if not isinstance(error, RepositoryNotFoundError):
            return "the Hub does not accept the token", "log in anew with 'hf auth login'"
        case 401 | 404:
            return f"the Hub knows no such repository, or hides it ({said})", "check name and token"
        case 403 if error.response.request.method in ("GET", "HEAD"):
            return f"the Hub does not let you read it ({said})", f"check the token ({_TOKENS})"
        case 403:
            help = "check the name, and that the token may write"
            return f"the Hub does not let you write there ({said})", f"{help} ({_TOKENS})"
        case 409 | 412:
            return f"somebody else is changing the repository ({said})", "try again"
        case 429:
            wait = retry_after(error)
            return "the Hub asks to slow down", f"try again {f'in {wait} s' if wait else 'later'}"
        case status if status >= 500:
            return f"the Hub has trouble of its own ({status} {said})", "try again later"
        case _:
            return f"the Hub refuses it ({status} {said})", ""


def _help_with_xet(error: BaseException) -> str:
    about_xet = "xet" in f"{type(error).__name__} {error}".lower()
    return "HF_HUB_DISABLE_XET=1 does without Xet" if about_xet else ""
