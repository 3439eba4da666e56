"""A base and its adapter as the two models of a server."""

from collections.abc import Iterator
from pathlib import Path

from mlx_yoda.generation import pieces
from mlx_yoda.model.piece import Piece
from mlx_yoda.recipes.respond import Responder
from mlx_yoda.serve.access import Access
from mlx_yoda.serve.request import ChatRequest, Defaults
from mlx_yoda.serve.server import Server, Service
from mlx_yoda.serve.worker import Voice, Worker


def open_server(
    responder: Responder, access: Access, defaults: Defaults, *, port: int, waiting: int
) -> Server:
    """Listen; `server.serve_forever` takes requests, and `server.service.worker.run` answers.

    MLX wants the latter to be called in the thread that has loaded the model.

    Args:
        responder: what answers: the model `base`, and if it has an adapter the model `adapter`.
        access: where to listen, and whom to let in.
        defaults: for what requests leave out.
        port: 0 takes one that is free.
        waiting: how many requests may wait while one is answered.

    Raises:
        UserError: it cannot listen there.
    """
    names = {"base": _short(responder.base.name)}
    voices: dict[str, Voice] = {"base": lambda request: _base(responder, request)}
    if responder.adapter is not None:
        names["adapter"] = _short(responder.adapter)
        voices["adapter"] = lambda request: _answer(responder, request)
    return Server(Service(names, Worker(voices, waiting), access, defaults), port)


def _base(responder: Responder, request: ChatRequest) -> Iterator[Piece]:
    with responder.disable_adapter():
        yield from _answer(responder, request)


def _answer(responder: Responder, request: ChatRequest) -> Iterator[Piece]:
    base = responder.base
    yield from pieces(
        base.model,
        base.tokenizer,
        request.messages,
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
    )


def _short(name: str) -> str:
    """A name without the folders of this machine."""
    return Path(name).resolve().name if Path(name).is_dir() else name
