"""Answers as the OpenAI API writes them."""

import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mlx_yoda.model.piece import Piece

DONE = b"data: [DONE]\n\n"
WAITING = b": waiting\n\n"  # a comment, which clients skip


class Reply:
    """One answer, whole or in pieces, under one id."""

    def __init__(self, model: str) -> None:
        self._same = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": now(),
            "model": model,
        }

    def opening(self) -> dict[str, Any]:
        """What a stream begins with."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """A piece of a stream."""
        delta = {"content": piece.text} if piece.text else {}
        return self._chunk(delta, piece.finish_reason)

    def usage(self, last: Piece) -> dict[str, Any]:
        """What a stream ends with, if the tokens are to be counted."""
        kind = "chat.completion.chunk"
        return {**self._same, "object": kind, "choices": [], "usage": _usage(last)}

    def whole(self, text: str, last: Piece) -> dict[str, Any]:
        """An answer that is not streamed."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": last.finish_reason,
        }
        kind = "chat.completion"
        return {**self._same, "object": kind, "choices": [choice], "usage": _usage(last)}

    def _chunk(self, delta: Mapping[str, str], reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._same, "object": "chat.completion.chunk", "choices": [choice]}


def now() -> int:
    """The date, in seconds since 1970, as the OpenAI API writes dates."""
    return int(datetime.now(UTC).timestamp())


def models(names: Mapping[str, str], created: int) -> dict[str, Any]:
    """The list of models; each also says what it is, for the page."""
    data = [
        {"id": model, "object": "model", "created": created, "owned_by": "mlx-yoda", "name": name}
        for model, name in names.items()
    ]
    return {"object": "list", "data": data}


def event(value: Mapping[str, Any]) -> bytes:
    """A value as a server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _usage(last: Piece) -> dict[str, int]:
    prompt, answer = last.prompt_tokens, last.tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
    }
