"""No access token gets through, and nothing else is touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda import files
from mlx_yoda.errors import UserError
from mlx_yoda.secrets import redact

TOKEN = "hf_" + "aB3" * 11 + "Z"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"token={TOKEN}!", "token=hf_***!"),
        ("api_org_" + "x" * 34, "api_org_***"),
        ("hf_oauth_eyJhbGciOi.J9-eyJ_zdWIi.x", "hf_oauth_***"),
        ("Authorization: Bearer abcdefgh.ijklmnop==", "Authorization: Bearer ***"),
        ("https://me:secret@huggingface.co/x", "https://***@huggingface.co/x"),
        (
            "GET https://s/x?X-Amz-Date=2026&X-Amz-Credential=AKIA%2F1&x-amz-signature=0badc0de>",
            "GET https://s/x?X-Amz-Date=2026&X-Amz-Credential=***&x-amz-signature=***>",
        ),
        ("'https://s/x?X-Goog-Signature=0badc0de'", "'https://s/x?X-Goog-Signature=***'"),
        (
            "https://c/x?Expires=1&Policy=eyJTdGF0ZW1lbnQi&Signature=aB3~cd-Ef_0123&Key-Pair-Id=K24J24249AEI9",
            "https://c/x?Expires=1&Policy=***&Signature=***&Key-Pair-Id=***",
        ),
        ("https://b/x?sv=1&sig=aB3%2Fcd%3D0123456", "https://b/x?sv=1&sig=***"),
        (f"{TOKEN} and {TOKEN}", "hf_*** and hf_***"),
    ],
)
def test_what_looks_like_a_token_is_blotted_out(text, clean):
    assert redact(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "outputs/hf_models_phi3_mini_4k",
        "hf_token",
        "the bearer of bad news",
        "https://huggingface.co/datasets/a/b@main",
        "mail me@example.org",
        "the signature=of a function, def f(sig=None)",
        "https://huggingface.co/x?sig=short",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_other_words_stay(text):
    assert redact(text) == text


@given(st.text(), st.text())
def test_the_environment_s_token_is_found_in_any_text(before, after):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "of-no-known-shape/1")
        assert "of-no-known-shape/1" not in redact(f"{before}of-no-known-shape/1{after}")


def test_a_short_value_of_the_variable_is_no_token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "on")
    assert redact("on and on") == "on and on"


def test_errors_and_files_have_none(tmp_path):
    assert str(UserError(f"no access with {TOKEN}.")) == "no access with hf_***."
    files.write_json(tmp_path / "a.json", {"revision": TOKEN})
    assert (tmp_path / "a.json").read_text() == '{\n  "revision": "hf_***"\n}\n'
