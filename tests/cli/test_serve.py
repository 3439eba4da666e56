"""`mlx-yoda serve`: where it listens, whom it lets in, and what it says of that."""

import re
import socket

import pytest

from mlx_yoda.recipes import respond
from mlx_yoda.recipes import serve as recipe
from mlx_yoda.serve.worker import Worker


@pytest.fixture
def opened(monkeypatch):
    """The server that the command opens; it ends at once."""
    seen = []
    real = recipe.open_server

    def spy(*args, **options):
        seen.append(real(*args, **options))
        return seen[-1]

    monkeypatch.setattr(recipe, "open_server", spy)
    monkeypatch.setattr(Worker, "run", lambda self: None)
    return seen


DEMO = ("serve", "--model", "demo", "--port", 0)


def test_it_listens_to_this_machine_and_needs_no_token(invoke, opened, monkeypatch):
    monkeypatch.delenv("MLX_YODA_TOKEN", raising=False)
    result = invoke(*DEMO)
    assert result.exit_code == 0
    (server,) = opened
    assert server.server_address[0] == "127.0.0.1"
    assert server.service.access.token is None
    assert f"http://127.0.0.1:{server.port}/\n" in result.stderr
    assert "models: base)" in result.stderr


def test_others_need_a_token_that_is_made_up(invoke, opened, monkeypatch):
    monkeypatch.delenv("MLX_YODA_TOKEN", raising=False)
    shown = [invoke(*DEMO, "--host", "0.0.0.0").stderr for _ in range(2)]
    tokens = [re.search(r"#token=(\S+)", text)[1] for text in shown]
    assert tokens == [server.service.access.token for server in opened]
    assert len({*tokens}) == 2
    assert min(map(len, tokens)) >= 32
    assert f"http://{socket.gethostname()}:" in shown[0]


def test_options_arrive(invoke, opened):
    options = ("--max-tokens", 7, "--temperature", 0.5, "--top-p", 0.9, "--seed", 3)
    invoke(*DEMO, *options, "--system", "Hm.", "--max-waiting", 2, "--token", "x" * 16)
    (server,) = opened
    defaults = server.service.defaults
    assert (defaults.max_tokens, defaults.temperature, defaults.top_p) == (7, 0.5, 0.9)
    assert (defaults.seed, defaults.system) == (3, "Hm.")
    assert server.service.access.token == "x" * 16
    assert server.service.worker._jobs.maxsize == 2


def test_the_longest_answer_is_as_help_says(invoke, opened):
    invoke(*DEMO)
    assert opened[0].service.defaults.max_tokens == 1024
    assert "[default: 1024]" in " ".join(invoke("serve", "--help").stdout.split())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("serve",), "--model"),
        ((*DEMO, "--token", "short"), "at least 16 characters"),
        ((*DEMO, "--host", "no.such.host.invalid", "--token", "x" * 16), "cannot listen at"),
        ((*DEMO, "--port", 70000), "65535"),
    ],
)
def test_what_is_wrong_is_one_sentence(invoke, args, words):
    result = invoke(*args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.startswith("error: ")


def test_a_wrong_token_is_said_before_a_model_is_loaded(invoke, monkeypatch):
    monkeypatch.setattr(respond, "open_responder", lambda *a, **k: pytest.fail("it was loaded"))
    assert invoke(*DEMO, "--token", "short").exit_code == 2
