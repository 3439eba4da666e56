"""A model's own code runs where the user asks for it in so many words, and nowhere else."""

import contextlib
import json
import shutil
import sys

import pytest

from mlx_yoda.cli.program import program
from mlx_yoda.config.parse import load_config
from mlx_yoda.errors import UserError
from mlx_yoda.model.convert import convert
from mlx_yoda.model.load import load

CODE = """
from pathlib import Path
from transformers import PreTrainedTokenizerFast
Path({planted!r}).write_text("ran")
class Evil(PreTrainedTokenizerFast):
    pass
from mlx_lm.models.phi3 import Model, ModelArgs
"""


@pytest.fixture
def planted(tmp_path):
    return tmp_path / "planted"


@pytest.fixture
def folder(base_folder, tmp_path, planted, monkeypatch):
    """A model whose every file asks for code that plants a file."""
    path = tmp_path / "evil"
    shutil.copytree(base_folder, path)
    (path / "evil.py").write_text(CODE.format(planted=str(planted)))
    maps = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    change(path / "config.json", auto_map=maps)
    tokenizer = {"AutoTokenizer": [None, "evil.Evil"]}
    change(path / "tokenizer_config.json", auto_map=tokenizer, tokenizer_class="Evil")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return path


def change(file, **keys):
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


@pytest.mark.slow
def test_nothing_runs_by_default(folder, planted, tmp_path):
    train = ["train", "--model", str(folder), "--data", "demo"]
    for act in (
        lambda: load(folder),
        lambda: convert(str(folder), tmp_path / "out"),
        lambda: program.main(["generate", "--model", str(folder), "hi"]),
        lambda: program.main([*train, "--output-dir", str(tmp_path / "run"), "--max-steps", "1"]),
        lambda: program.main(["plan", "--model", str(folder)]),
    ):
        with contextlib.suppress(UserError, SystemExit):
            act()
        assert not planted.exists()


def test_a_file_of_the_model_s_code_is_refused_by_its_name(folder, planted):
    change(folder / "config.json", model_file="evil.py")
    with pytest.raises(UserError, match=r"its own code, evil\.py; if you trust it"):
        load(folder)
    assert not planted.exists()
    with contextlib.suppress(UserError):
        load(folder, trust_remote_code=True)
    assert planted.exists()


def test_the_tokenizer_s_code_runs_once_it_is_asked_for(folder, planted):
    with contextlib.suppress(UserError):
        load(folder, trust_remote_code=True)
    assert planted.exists()


def test_only_the_configuration_says_so(monkeypatch):
    for name in ("HF_TRUST_REMOTE_CODE", "TRUST_REMOTE_CODE"):
        monkeypatch.setenv(name, "1")
    assert load_config(None).model.trust_remote_code is False
    for word in ("yes", "1", "on", "y"):
        with pytest.raises(UserError, match="trust_remote_code must be true or false"):
            load_config(None, [f"model.trust_remote_code={word}"])
    assert load_config(None, ["model.trust_remote_code=true"]).model.trust_remote_code is True
    assert "evil" not in sys.modules
