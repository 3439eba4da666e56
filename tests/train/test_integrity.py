"""A sealed folder tells any change of its files."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_yoda.train.integrity import SEAL, Broken, flaw, seal, unseal

TOKEN = "hf_" + "aB3" * 11 + "Z"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sealed") / "checkpoint-3"
    folder.mkdir()
    (folder / "a.safetensors").write_bytes(bytes(range(256)))
    (folder / "b.json").write_text('{"r": 8}')
    seal(folder, {"global_step": 3, "mean": 0.1 + 0.2, "ranks": {"x": 1}, "pair": (1, 2)})
    return folder


@pytest.fixture
def copy(sealed, tmp_path):
    return shutil.copytree(sealed, tmp_path / "copy")


def test_it_reads_back_what_was_sealed(sealed):
    content = unseal(sealed)
    assert content["global_step"] == 3
    assert content["mean"] == 0.1 + 0.2
    assert content["files"]["a.safetensors"]["size"] == 256
    assert flaw(sealed) is None


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_noticed(sealed, data):
    path = data.draw(st.sampled_from(sorted(sealed.iterdir())))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        path.write_bytes(changed)
        same = path.name == SEAL and _json(changed) == _json(whole)  # one blank for another
        assert same or path.name in str(flaw(sealed))
    finally:
        path.write_bytes(whole)


def _json(content):
    try:
        return json.loads(content)
    except ValueError:
        return None


@pytest.mark.parametrize("name", ["a.safetensors", "b.json", SEAL])
def test_a_file_that_is_short_or_gone_is_named(copy, name):
    path = copy / name
    path.write_bytes(path.read_bytes()[:-2])
    assert name in flaw(copy)
    path.unlink()
    assert name in flaw(copy)
    path.mkdir()
    assert name in flaw(copy)


def test_files_beside_are_nobody_s_business(copy):
    (copy / ".DS_Store").write_bytes(b"x")
    assert flaw(copy) is None


@pytest.mark.parametrize("name", ["../b.json", "/dev/zero", "", ".."])
def test_names_that_lead_elsewhere_are_refused(copy, name):
    from mlx_yoda.train.integrity import _digest

    content = unseal(copy)
    content["files"][name] = {"size": 0, "sha256": ""}
    (copy / SEAL).write_text(json.dumps({**content, "sha256": _digest(content)}))
    with pytest.raises(Broken, match="is no file"):  # whatever may be there
        unseal(copy)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"sha256": 1}', '{"files": 3}', "[" * 9999]
)
def test_no_text_gets_past(copy, text):
    (copy / SEAL).write_text(text)
    assert flaw(copy) == f"{SEAL} is not as it was written"


def test_a_token_in_it_breaks_nothing(tmp_path):
    seal(tmp_path, {"target_modules": TOKEN})
    assert flaw(tmp_path) is None
    assert TOKEN not in (tmp_path / SEAL).read_text()
