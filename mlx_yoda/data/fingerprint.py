"""What cached tokens depend on: the data's bytes, the tokenizer, the settings, the programs."""

import json
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlx_yoda import __version__, files
from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data.store import FORMAT, cache
from mlx_yoda.data.streams import Streamed
from mlx_yoda.errors import UserError

_KEYS = (
    "prompt_column",
    "completion_column",
    "messages_column",
    "text_column",
    "train_on",
    "max_length",
)
_PROGRAMS = ("transformers", "tokenizers", "jinja2", "mlx-lm")


def fingerprint(rows: Streamed, config: DataConfig, tokenizer: Any, held_out: bool) -> str:
    """A name for the tokens of these rows; whatever changes them changes it.

    Raises:
        UserError: a file cannot be read.
    """
    told = {
        "format": FORMAT,
        "files": [_digest_file(path) for path in rows.files],
        "choice": rows.choice,
        "settings": {key: getattr(config, key) for key in _KEYS},
        "concat": config.packing == "concat",
        "held out": held_out,
        "tokenizer": _digest_tokenizer(tokenizer),
        "programs": {name: version(name) for name in _PROGRAMS} | {"mlx-yoda": __version__},
    }
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _digest_tokenizer(tokenizer: Any) -> str:
    inner = tokenizer if callable(tokenizer) else tokenizer._tokenizer  # within mlx-lm's wrapper
    fast = getattr(inner, "backend_tokenizer", None)
    told = {
        "class": type(inner).__qualname__,
        "template": inner.chat_template,
        "special": [str(inner.special_tokens_map), tokenizer.eos_token, tokenizer.eos_token_id],
        "state": fast.to_str() if fast else sorted(inner.get_vocab().items()),
    }
    return sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def _digest_file(path: Path) -> str:
    """The SHA-256 of a file, read once: it is remembered by path, size and time of change.

    So a file that is changed without a change of size and time, to the nanosecond, is taken for
    the old one, as by make; one that is copied or touched is read, and known again.
    """
    try:
        state = path.stat()
        known = f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}"
        memo = cache() / "files" / sha256(known.encode()).hexdigest()[:32]
        if digest := _remembered(memo):
            return digest
        digest = files.sha256(path)
        after = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    if (after.st_size, after.st_mtime_ns) != (state.st_size, state.st_mtime_ns):
        return digest  # of neither the old content nor the new
    with suppress(OSError):  # the tokens' own folder will tell
        memo.parent.mkdir(parents=True, exist_ok=True)
        files.sweep(memo.parent)
        files.write_text(memo, digest)
    return digest


def _remembered(memo: Path) -> str | None:
    """The digest in a file of the cache, if it can be read."""
    with suppress(OSError, ValueError):  # not there, another user's, or damaged
        digest = memo.read_text(encoding="utf-8")
        if len(bytes.fromhex(digest)) == 32:
            return digest
    return None
