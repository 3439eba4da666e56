"""Who may ask."""

import pytest

from mlx_yoda.errors import UserError
from mlx_yoda.serve.access import Access, is_loopback
from mlx_yoda.serve.refusal import Refusal

TOKEN = "a-token-long-enough"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_this_machine_needs_no_token(host):
    assert is_loopback(host)
    Access(host, None).check_token(None)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org", ""])
def test_others_need_one(host):
    assert not is_loopback(host)
    with pytest.raises(UserError, match="needs a token"):
        Access(host, None)


@pytest.mark.parametrize("token", ["", "short", "ünïcödé-ünïcödé-ünïcödé"])
def test_a_token_is_long(token):
    with pytest.raises(UserError, match="at least 16 characters"):
        Access("0.0.0.0", token)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer ü",
    ],
)
def test_without_the_token_nobody_is_let_in(authorization):
    with pytest.raises(Refusal) as refused:
        Access("0.0.0.0", TOKEN).check_token(authorization)
    assert refused.value.status == 401


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", f"bearer {TOKEN}"])
def test_with_it_everybody_is(authorization):
    Access("0.0.0.0", TOKEN).check_token(authorization)


def test_tokens_are_compared_in_constant_time(monkeypatch):
    """How long a comparison by `==` takes tells how many of the first characters are right."""
    compared = []
    monkeypatch.setattr(
        "hmac.compare_digest", lambda one, other: compared.append((one, other)) or one == other
    )
    Access("0.0.0.0", TOKEN).check_token(f"Bearer {TOKEN}")
    assert compared == [(TOKEN.encode(), TOKEN.encode())]


LOCAL = ["127.0.0.1:8080", "localhost:8080", "localhost", "[::1]:8080"]
STRANGE = [
    "evil.example:8080",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "",
    None,
    "[::1",
]


@pytest.mark.parametrize("host", LOCAL)
def test_this_machine_s_names_are_known(host):
    Access("127.0.0.1", None).check_origin(host, None)
    Access("127.0.0.1", None).check_origin(host, f"http://{host}")


@pytest.mark.parametrize("host", [*STRANGE, "192.168.1.5:8080"])
def test_a_rebound_name_is_not(host):
    with pytest.raises(Refusal) as refused:
        Access("127.0.0.1", None).check_origin(host, None)
    assert refused.value.status == 403


@pytest.mark.parametrize("host", STRANGE)
def test_nor_is_it_where_others_may_ask(host):
    access = Access("0.0.0.0", TOKEN)
    access.check_origin("192.168.1.5:8080", None)
    with pytest.raises(Refusal):
        access.check_origin(host, None)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://127.0.0.1:9999",
        "null",
        "http://localhost:8080",
        "",
        "http://evil127.0.0.1:8080",  # ends in the right name
        "http://evil.example/127.0.0.1:8080",
        "http://evil@127.0.0.1:8080",
        "http://127.0.0.1:8080.evil.example",  # begins with it
        "http://[::1",  # is no address at all
        "http://[",
    ],
)
def test_other_sites_may_not_ask(origin):
    with pytest.raises(Refusal) as refused:
        Access("127.0.0.1", None).check_origin("127.0.0.1:8080", origin)
    assert refused.value.status == 403
