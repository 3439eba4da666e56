"""What cached tokens depend on: the data's bytes, the tokenizer, the settings, the programs."""

import json
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlx_yoda import __version__
from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data.store import FORMAT
from mlx_yoda.data.streams import Streamed
from mlx_yoda.digests import digest_of
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
    try:
        return digest_of(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
