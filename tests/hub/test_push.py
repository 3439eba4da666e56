import json
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, snapshot_download

from mlx_yoda import hub_client
from mlx_yoda.errors import UserError
from mlx_yoda.hub import asking
from mlx_yoda.hub.base import public_base
from mlx_yoda.hub.push import license_of, push
from mlx_yoda.hub.record import read_record
from mlx_yoda.recipes.publish import gather
from tests.hub.handler import READER

EXPECTED = {
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "config.yaml",
    "loss.svg",
    "metrics.jsonl",
    "tokenizer.json",
    "tokenizer_config.json",
}


def items_of(folder, *, base=None, license=None, with_checkpoints=False):
    """What would be published, without asking the Hub for a licence."""
    return gather(
        folder,
        "me/yoda",
        base_model=base,
        license=license,
        include_checkpoints=with_checkpoints,
        ask_hub=False,
    )


def publish(folder, hub, *, repo="me/yoda", with_checkpoints=False, base=None, **how):
    """The address, the files and the remarks of a push."""
    remarks = []
    items = items_of(folder, with_checkpoints=with_checkpoints, base=base)
    url = push(items, repo, message="hello", endpoint=hub.url, remark=remarks.append, **how)
    return url, items, remarks


def bytes_of(item):
    return item.content if isinstance(item.content, bytes) else item.content.read_bytes()


@pytest.fixture
def pauses(monkeypatch):
    """How long one would have waited; nobody does."""
    waited = []
    sleep = time.sleep

    def note(seconds):
        if threading.current_thread() is threading.main_thread():
            waited.append(seconds)
        else:  # the Hub's own
            sleep(seconds)

    monkeypatch.setattr(asking.time, "sleep", note)
    return waited


def test_one_commit_has_it_all_and_comes_back_byte_for_byte(folder, hub, tmp_path):
    url, items, remarks = publish(folder, hub)
    assert remarks == []
    branch = hub.repos["models/me/yoda"].branches["main"]
    assert [commit.message for commit in branch] == ["initial commit", "hello"]
    assert url == f"{hub.url}/me/yoda/commit/{branch[-1].oid}"
    assert {item.path for item in items} == EXPECTED
    back = Path(snapshot_download("me/yoda", endpoint=hub.url, cache_dir=tmp_path / "cache"))
    there = {p.name: p.read_bytes() for p in back.iterdir() if p.name != ".gitattributes"}
    assert there == {item.path: bytes_of(item) for item in items}
    for name in ("adapter_model.safetensors", "tokenizer.json"):
        assert there[name] == (folder / name).read_bytes()


def test_the_card_that_is_published_passes_the_hubs_checks_and_has_the_repositorys_name(
    folder, hub
):
    publish(folder, hub, base="owner/base")
    card = ModelCard(hub.files("me/yoda")["README.md"].decode())
    assert hub.times("POST", "validate-yaml") == 1
    assert card.data.base_model == "owner/base"
    assert 'from_pretrained(base, "me/yoda")' in card.text
    assert json.loads(hub.files("me/yoda")["adapter_config.json"])["base_model_name_or_path"] == (
        "owner/base"
    )


def test_a_card_that_the_hub_refuses_is_said_and_nothing_is_published(folder, hub):
    (folder / "README.md").write_text("---\nbase_model: /tmp/x\n---\n# Mine\n")
    with pytest.raises(UserError, match=r"Invalid metadata in README\.md"):
        publish(folder, hub)
    assert hub.files("me/yoda") == {}


def test_training_state_goes_only_where_it_is_asked_for(folder, hub):
    publish(folder, hub)
    assert not [path for path in hub.files("me/yoda") if "optimizer" in path or "/" in path]
    publish(folder, hub, with_checkpoints=True)
    files = hub.files("me/yoda")
    assert (
        files["checkpoint-6/optimizer.safetensors"]
        == (folder / "checkpoint-6" / "optimizer.safetensors").read_bytes()
    )
    assert {path.split("/")[0] for path in files if "/" in path} == {"checkpoint-3", "checkpoint-6"}


def test_what_is_there_already_is_not_sent_again(folder, hub):
    publish(folder, hub)
    uploads = hub.times("PUT", "/storage/")
    publish(folder, hub)
    assert hub.times("PUT", "/storage/") == uploads == 1
    assert len(hub.repos["models/me/yoda"].branches["main"]) == 2


def test_a_name_alone_is_the_tokens_own_account(folder, hub):
    url, *_ = publish(folder, hub, repo="yoda")
    assert url.startswith(f"{hub.url}/me/yoda/")
    url, *_ = publish(folder, hub, repo="yoda")
    assert url.startswith(f"{hub.url}/me/yoda/")


def test_a_branch_of_its_own(folder, hub):
    publish(folder, hub, revision="r8/first")
    assert hub.files("me/yoda") == {}
    assert hub.files("me/yoda", "r8/first").keys() == EXPECTED
    publish(folder, hub, revision="r8/first")


def test_private_is_private_or_nothing(folder, hub):
    publish(folder, hub, private=True)
    assert hub.repos["models/me/yoda"].private
    publish(folder, hub, private=True)
    hub.repos["models/me/yoda"].private = False
    before = hub.files("me/yoda")
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match="already and public"):
        publish(folder, hub, private=True)
    assert hub.files("me/yoda") == before


def test_the_licence_is_the_bases(folder, hub, monkeypatch):
    hub.add("models/owner/base", {"README.md": b"---\nlicense: mit\n---\n# Base\n"})
    hub.add("models/owner/other", {"README.md": b"---\nlicense: other\n---\n# Base\n"})
    record = read_record(folder)
    assert license_of(public_base(record, "owner/base"), hub.url) == "mit"
    assert license_of(public_base(record, "owner/other"), hub.url) is None
    assert license_of(public_base(record, "owner/none"), hub.url) is None
    assert license_of(public_base(record), hub.url) is None
    [card, *_] = items_of(folder, base="owner/base", license="mit")
    assert ModelCard(bytes_of(card).decode()).data.license == "mit"


# What goes wrong: (what to spoil, status and how, what is said)
REFUSALS = {
    "401 token": ("POST", "/api/repos/create", 401, {"headers": {
        "X-Error-Message": "Invalid credentials in Authorization header"}}, "not accept the token"),
    "403 create": ("POST", "/api/repos/create", 403, {}, "does not let you write"),
    "404 upload": ("POST", "/preupload/", 404, {"headers": {"X-Error-Code": "RepoNotFound"}},
                   "no such repository"),
    "403 upload": ("PUT", "/storage/", 403, {}, "does not let you write"),
    "403 commit": ("POST", "/commit/", 403, {}, "does not let you write"),
    "413 commit": ("POST", "/commit/", 413, {}, "refuses it (413"),
    "429 for an hour": ("POST", "/commit/", 429, {"headers": {"Retry-After": "3600"}},
                        "try again in 3600 s"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_said_once_and_nothing_is_published(folder, hub, pauses, case):
    method, path, status, how, said = REFUSALS[case]
    hub.fail(method, path, status, times=99, **how)
    with pytest.raises(UserError) as error:
        publish(folder, hub)
    assert said in str(error.value)
    assert str(error.value).endswith("nothing was published in me/yoda.")
    assert pauses == []
    assert "models/me/yoda" not in hub.repos or hub.files("me/yoda") == {}


# (what to spoil, how, the pauses that are taken); the first list are the client's own pauses
PASSING = {
    "429 create": ("POST", "/api/repos/create", 429, {"headers": {"Retry-After": "7"}}, [7]),
    "429 window": ("POST", "/commit/", 429, {"headers": {"RateLimit": '"api";r=0;t=55'}}, [56]),
    "429 preupload": ("POST", "/preupload/", 429, {"headers": {"Retry-After": "7"}}, [8]),
    "429 storage": ("PUT", "/storage/", 429, {"headers": {"Retry-After": "2"}}, [3]),
    "500 create": ("POST", "/api/repos/create", 500, {"times": 2}, [1, 2]),
    "500 metadata": ("POST", "/api/validate-yaml", 500, {}, [1]),
    "502 metadata": ("POST", "/api/validate-yaml", 502, {"body": "<html>"}, [1]),
    "500 batch": ("POST", "/objects/batch", 500, {}, [1]),
    "500 storage": ("PUT", "/storage/", 500, {"times": 3}, [1, 2, 4]),
    "503 verify": ("POST", "/verify", 503, {}, [1]),
    "500 commit": ("POST", "/commit/", 500, {"times": 4}, [1, 2, 4, 8]),
    "409 commit": ("POST", "/commit/", 409, {}, [1]),
    "cut in create": ("POST", "/api/repos/create", 0, {"cut": True}, [1]),
    "cut in mid-upload": ("PUT", "/storage/", 0, {"cut": True, "times": 2}, [1, 2]),
    "cut in mid-commit": ("POST", "/commit/", 0, {"cut": True}, [1]),
    "lost answer to create": ("POST", "/api/repos/create", 0, {"lose": True}, [1]),
    "lost answer to commit": ("POST", "/commit/", 0, {"lose": True}, [1]),
}


@pytest.mark.parametrize("case", PASSING)
def test_what_passes_is_waited_for_and_the_commit_is_one(folder, hub, pauses, case):
    method, path, status, how, waits = PASSING[case]
    hub.fail(method, path, status, **how)
    _, items, remarks = publish(folder, hub)
    assert pauses == waits
    assert remarks
    assert hub.files("me/yoda") == {item.path: bytes_of(item) for item in items}
    assert len(hub.repos["models/me/yoda"].branches["main"]) == 2
    assert not [remark for remark in remarks if "sesame" in remark]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "how"),
    [
        ("POST", "/api/repos/create", {}),
        ("PUT", "/storage/", {}),
        ("PUT", "/storage/", {"cut": True}),
        ("POST", "/commit/", {}),
        ("POST", "/commit/", {"cut": True}),
    ],
)
def test_what_does_not_pass_ends_after_so_many_tries(folder, hub, pauses, method, path, how):
    hub.fail(method, path, times=99, **how)
    with pytest.raises(UserError) as error:
        publish(folder, hub)
    said = "the connection to the Hub failed" if how else "trouble of its own"
    assert said in str(error.value)
    assert "nothing was published" in str(error.value)
    assert sum(pauses) <= 30
    assert hub.times(method, path) <= 6
    assert "models/me/yoda" not in hub.repos or hub.files("me/yoda") == {}


def test_no_token(folder, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("mlx_yoda.hub.push.get_token", lambda: None)
    with pytest.raises(UserError, match="hf auth login"):
        publish(folder, hub)
    assert hub.requests == []


def test_a_token_that_may_only_read(folder, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(UserError, match="check the name, and that the token may write"):
        publish(folder, hub)


def test_somebody_elses_name(folder, hub):
    with pytest.raises(UserError, match="does not let you write"):
        publish(folder, hub, repo="them/yoda")


def test_a_name_that_no_repository_can_have(folder, hub):
    with pytest.raises(UserError, match="takes no such name"):
        publish(folder, hub, repo="me/yo--da")
    assert hub.requests == []


def test_offline_is_said(folder, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        publish(folder, hub)


def test_nobody_listens(folder, hub, pauses):
    with pytest.raises(UserError, match="the Hub cannot be reached"):
        items = items_of(folder)
        push(items, "me/yoda", message="m", endpoint="http://127.0.0.1:9", remark=lambda _: None)
    assert pauses == [1, 2, 4, 8]


@pytest.mark.parametrize(("method", "path"), [("POST", "/commit/"), ("PUT", "/storage/")])
def test_a_hub_that_falls_silent_is_not_waited_for_for_ever(
    folder, hub, pauses, monkeypatch, method, path
):
    monkeypatch.setattr(hub_client, "SILENCE", 0.2)
    hub.fail(method, path, silent=0.6)
    _, items, remarks = publish(folder, hub)
    assert "timed out" in remarks[0]
    assert set(pauses) == {1}  # a slow machine's answer may be late once more
    assert hub.files("me/yoda") == {item.path: bytes_of(item) for item in items}


def test_a_refusal_in_a_thread_of_its_own_is_understood_too(folder, hub, pauses):
    hub.fail("PUT", "/storage/", 403, times=99)
    with pytest.raises(UserError, match="does not let you write there"):
        publish(folder, hub, with_checkpoints=True)  # several large files: a thread each
    assert hub.files("me/yoda") == {}


@pytest.mark.parametrize("ignored", [{"metrics.jsonl"}, EXPECTED])
def test_a_file_that_the_hub_ignores_is_no_success(folder, hub, ignored):
    hub.ignored = ignored
    with pytest.raises(UserError, match=r"the Hub ignored .*metrics\.jsonl.* is not complete"):
        publish(folder, hub)
