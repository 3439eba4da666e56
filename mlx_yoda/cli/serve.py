"""`mlx-yoda serve`."""

import secrets
import socket
from threading import Thread
from typing import Any

import click

from mlx_yoda.cli.answering import answering, open_chosen
from mlx_yoda.cli.command import remark
from mlx_yoda.cli.settings import Configured
from mlx_yoda.config.sampling import Sampling

_EXAMPLES = """\
mlx-yoda serve --model demo --adapter outputs/demo
mlx-yoda serve --adapter outputs/phi3-yoda --port 9000 --temperature 0.7
mlx-yoda serve --model microsoft/Phi-3-mini-4k-instruct --max-tokens 2048
mlx-yoda serve --adapter outputs/phi3-yoda --host 0.0.0.0
"""


@click.command(
    "serve",
    cls=Configured,
    epilog=_EXAMPLES,
    short_help="Talk to base and adapter on a page; OpenAI's API.",
    context_settings={"default_map": {"max_tokens": 1024}},
)
@answering
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at; others need a token.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen at; 0 takes one that is free.",
)
@click.option(
    "--token",
    envvar="MLX_YODA_TOKEN",
    metavar="TEXT",
    help="What requests must bear, also from MLX_YODA_TOKEN; made up where needed and not given.",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(1, 1000),
    default=8,
    show_default=True,
    help="Requests that may wait while one is answered.",
)
def command(
    adapter: str | None,
    system: str | None,
    host: str,
    port: int,
    token: str | None,
    max_waiting: int,
    **sampling: Any,
) -> None:
    """Serve a page to talk to a model, base and adapter side by side, and OpenAI's API.

    The API is at /v1 (models, chat/completions); its models are called base and adapter. What a
    request leaves out is as the options say, and --max-tokens bounds what it may ask for. Only
    this machine can ask, unless --host says otherwise; then requests must bear a token.
    """
    Sampling(**sampling)  # refuses options before anything is loaded
    from mlx_yoda.serve.access import Access, is_loopback

    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    access = Access(host, token)
    responder = open_chosen(adapter)

    from mlx_yoda.recipes.serve import open_server
    from mlx_yoda.serve.request import Defaults

    defaults = Defaults(system=system, **sampling)
    with open_server(responder, access, defaults, port=port, waiting=max_waiting) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://{_shown(host)}:{server.port}"
        models = ", ".join(server.service.models)
        remark(f"Talk to it:  {address}/{f'#token={token}' if token else ''}")
        remark(f"OpenAI API:  {address}/v1  (models: {models})")
        remark("Ctrl-C ends it.")
        try:
            server.service.worker.run()
        finally:
            server.shutdown()


def _shown(host: str) -> str:
    """A host as it stands in an address; all addresses of this machine are its name."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
