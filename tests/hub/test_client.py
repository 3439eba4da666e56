"""Whatever answers in the Hub's place, a model, an adapter or data set from it is one sentence."""

import time
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from mlx_yoda import hub_client
from mlx_yoda.errors import UserError
from mlx_yoda.hub_client import explain, is_repo_id
from mlx_yoda.model.load import fetch, resolve

SIGNED = "https://storage.example/x?X-Amz-Credential=AKIA&X-Amz-Signature=0badc0de0badc0de"
PAGE = "<html><body>Please log in to this network.</body></html>"
INFO, FILES, STORAGE = "^/api/models/owner/base", "/resolve/", "/storage/"

FAULTS = {
    "a captive portal": ("GET", INFO, 200, {"body": PAGE}, "makes no sense, as if a proxy"),
    "a captive portal's files": ("HEAD", FILES, 200, {}, "makes no sense, as if a proxy"),
    "a list instead of an object": ("GET", INFO, 200, {"body": "[]"}, "makes no sense"),
    "an object without its keys": ("GET", INFO, 200, {"body": "{}"}, "makes no sense"),
    "a page that is not text": ("GET", INFO, 200, {"body": "\x00"}, "makes no sense"),
    "a circle": ("GET", INFO, 302, {"headers": {"Location": "/api/models/owner/base"}}, "circle"),
    "a signed address": ("GET", INFO, 500, {"headers": {"X-Error-Message": f"no {SIGNED}"}},
                         "trouble of its own (500 no https://storage.example/x); try again later"),
    "a signed address in JSON": ("GET", INFO, 500, {"body": f'{{"error": "no {SIGNED}"}}'},
                                 "trouble of its own (500 no https://storage.example/x)"),
    "too many requests": ("GET", INFO, 429, {"headers": {"Retry-After": "7"}}, "again in 7 s"),
    "too many files": ("HEAD", FILES, 429, {"headers": {"Retry-After": "1"}}, "again in 1 s"),
    "a bad gateway": ("GET", INFO, 502, {"body": PAGE}, "trouble of its own (502"),
    "a wrong token": ("GET", INFO, 401, {}, "does not accept the token; log in"),
    "a private repository": ("GET", INFO, 403, {}, "does not let you read it (Forbidden)"),
    "gated": ("GET", INFO, 403, {"headers": {"X-Error-Code": "GatedRepo"}}, "accept its terms"),
    "no such revision": ("GET", INFO, 404, {"headers": {"X-Error-Code": "RevisionNotFound"}},
                         "no such revision"),
    "a file that is gone": ("HEAD", FILES, 404, {"headers": {"X-Error-Code": "EntryNotFound"}},
                            "does not have all of its files"),
    "silence": ("GET", INFO, 0, {"silent": 60.0}, "connection to the Hub failed (timed out)"),
    "a line that is cut": ("GET", INFO, 0, {"cut": True}, "the connection to the Hub failed"),
    "a download that is cut": ("GET", STORAGE, 0, {"lose": True}, "connection to the Hub failed"),
    "a download that is short": ("GET", STORAGE, 200, {"body": "x"}, "Consistency check failed"),
    "a storage that refuses": ("GET", STORAGE, 403, {"body": f"<Error>{SIGNED}</Error>"},
                               "does not let you read it"),
}  # fmt: skip


@pytest.fixture
def base(hub, monkeypatch, tmp_path):
    """The demo's model as `owner/base`, an empty cache, and a client that does not pause."""
    hub.add("models/owner/base", {f.name: f.read_bytes() for f in resolve("demo").iterdir()})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    hurried = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    monkeypatch.setattr("huggingface_hub.utils._http.time", hurried)
    monkeypatch.setattr("huggingface_hub.file_download.time", hurried)
    return hub


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_of_the_hub_is_one_sentence_without_secrets(base, monkeypatch, case):
    method, path, status, how, said = FAULTS[case]
    if "silent" in how:
        monkeypatch.setattr(hub_client, "SILENCE", 0.3)
    base.fail(method, path, status, times=999, **how)
    with pytest.raises(UserError) as error:
        fetch("owner/base")
    sentence = str(error.value)
    assert sentence.startswith("owner/base: there is no such folder here, and ")
    assert said in sentence
    assert sentence.endswith(".") and "\n" not in sentence
    for secret in ("0badc0de", "AKIA", "sesame"):
        assert secret not in sentence


def test_a_file_that_would_land_elsewhere_is_not_written(base, tmp_path):
    base.repos["models/owner/base"].commit(
        "main",
        "evil",
        {"../../evil.json": base.repos["models/owner/base"].at("main").files["config.json"]},
    )
    with pytest.raises(UserError, match="owner/base"):
        fetch("owner/base")
    assert not list(tmp_path.rglob("evil.json"))


def test_the_client_s_own_patience_comes_back(base):
    from huggingface_hub import get_session

    before = get_session().event_hooks
    fetch("owner/base")
    assert get_session().event_hooks == before


def test_a_cache_that_cannot_be_written_to_is_named(base, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot be kept here \(.*file.*: Not a directory\)"):
        fetch("owner/base")


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://hub", "http://[::1"])
def test_an_endpoint_that_is_none_is_named(base, monkeypatch, endpoint):
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    with pytest.raises(UserError, match="check HF_ENDPOINT"):
        fetch("owner/base")


@pytest.mark.parametrize(
    ("name", "so"),
    [
        ("owner/name", True),
        ("0wner/n.a-m_e", True),
        ("name", False),
        ("a/b/c", False),
        ("owner/na--me", False),
        ("owner/..", False),
        ("../name", False),
        ("~nobody/x", False),
        ("owner/name\n", False),
        ("", False),
    ],
)
def test_names_are_those_that_the_hub_takes(name, so):
    assert is_repo_id(name) == so


def test_a_secret_in_any_exception_stays_here():
    why, _ = explain(ValueError(f"bad\n{SIGNED}"))
    assert "0badc0de" not in why
    why, _ = explain(RuntimeError(f"at {SIGNED}"))
    assert why == "the transfer failed (at https://storage.example/x)"
