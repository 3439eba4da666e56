"""What `generate` and `chat` share: the options, and opening what answers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from mlx_yoda.cli.command import complete_path, remark
from mlx_yoda.cli.settings import configuration, is_chosen, settings

if TYPE_CHECKING:
    from mlx_yoda.recipes.respond import Responder

MODEL = "model.model_name_or_path"
_SETTINGS = settings(
    MODEL,
    "model.model_revision",
    "model.dtype",
    "model.quantization",
    "model.trust_remote_code",
)
_OPTIONS = (
    click.option(
        "--adapter",
        metavar="DIR|ID",
        shell_complete=complete_path,
        help="Folder or Hub id of a PEFT or mlx-lm adapter; none for the base.",
    ),
    click.option(
        "--max-tokens", type=int, default=256, show_default=True, help="Longest answer, in tokens."
    ),
    click.option(
        "--temperature",
        type=float,
        default=0.0,
        show_default=True,
        help="0 always takes the likeliest token; larger is more random.",
    ),
    click.option(
        "--top-p",
        type=float,
        default=1.0,
        show_default=True,
        help="Sample among the likeliest tokens that together have this probability.",
    ),
    click.option("--seed", type=int, help="Makes sampling repeatable."),
    click.option("--system", metavar="TEXT", help="A system message before the prompt."),
)


def answering(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of an answer; the sampling ones arrive under their names."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return _SETTINGS(function)


def open_chosen(adapter: str | None) -> "Responder":
    """Load the model that the command line names, or that the adapter names.

    Raises:
        UserError: neither can be loaded, or they do not fit together.
    """
    if not is_chosen(MODEL) and adapter is None:
        raise click.UsageError("Name a model with --model, an adapter with --adapter, or both.")
    config = configuration()

    from mlx_yoda.recipes.respond import another_base, fewer_bits, interrupted, open_responder

    if adapter is not None and (note := interrupted(adapter)):
        remark(note)
    by_name = adapter is not None and not is_chosen(MODEL)
    if by_name and (note := fewer_bits(config.model, str(adapter))):
        remark(note)
    responder = open_responder(config.model, adapter, base_of_adapter=not is_chosen(MODEL))
    for note in filter(None, (another_base(responder), *responder.base.notes)):
        remark(note)
    return responder


def opening(system: str | None) -> list[dict[str, str]]:
    """The messages that a conversation begins with."""
    return [{"role": "system", "content": system}] if system else []
