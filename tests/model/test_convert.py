"""Converting to MLX's layout: dtype, bits, and what must not be lost."""

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_yoda.config.schema import Quantization
from mlx_yoda.errors import UserError
from mlx_yoda.model.convert import convert
from mlx_yoda.model.inventory import count_parameters
from mlx_yoda.model.load import load

TOKENS = mx.array([[5, 17, 40, 3, 99, 8, 61]])


def test_a_copy_without_changes_computes_the_same(base_folder, our_base, tmp_path, capsys):
    convert(base_folder, tmp_path / "mlx")
    copy = load(tmp_path / "mlx")
    assert mx.array_equal(copy.model(TOKENS), our_base.model(TOKENS))
    assert copy.tokenizer.eos_token_ids == our_base.tokenizer.eos_token_ids
    assert copy.tokenizer.chat_template == our_base.tokenizer.chat_template
    assert copy.tokenizer.encode("The ship") == our_base.tokenizer.encode("The ship")
    generation = "generation_config.json"
    assert (tmp_path / "mlx" / generation).read_text() == (base_folder / generation).read_text()
    assert capsys.readouterr().out == ""


def test_the_dtype_is_cast_and_said(base_folder, tmp_path):
    convert(base_folder, tmp_path / "half", dtype="bfloat16")
    copy = load(tmp_path / "half")
    assert {w.dtype for _, w in tree_flatten(copy.model.parameters())} == {mx.bfloat16}
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize(("bits", "error"), [(4, 0.5), (8, 0.06)])
def test_quantised_weights_stand_for_the_same_model(base_folder, our_base, tmp_path, bits, error):
    convert(base_folder, tmp_path / "q", quantization=Quantization(bits, 32), dtype="float16")
    copy = load(tmp_path / "q")
    head = copy.model.lm_head
    assert isinstance(head, nn.QuantizedLinear)
    assert (head.bits, head.group_size, head.scales.dtype) == (bits, 32, mx.float16)
    assert count_parameters(copy.model) == count_parameters(our_base.model)
    ours, wanted = (np.array(m(TOKENS).astype(mx.float32)) for m in (copy.model, our_base.model))
    assert np.linalg.norm(ours - wanted) < error * np.linalg.norm(wanted)


def test_an_existing_destination_is_left_alone(base_folder, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("x")
    with pytest.raises(UserError, match="there exists"):
        convert(base_folder, tmp_path / "there")
    assert [file.name for file in (tmp_path / "there").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        (Quantization(7), "bits 2, 3, 4, 5, 6 or 8, not 7"),
        (Quantization(4, 16), "group_size 32, 64 or 128, not 16"),
        (Quantization(4, 64, "mxfp4"), "mode mxfp4 needs group_size 32, not 64"),
        (Quantization(4, 128), "32 wide, which groups of 128 do not divide: .* group_size of 32"),
    ],
)
def test_what_cannot_be_quantised_leaves_nothing_behind(
    base_folder, tmp_path, quantization, message
):
    with pytest.raises(UserError, match=message):
        convert(base_folder, tmp_path / "q", quantization=quantization)
    assert not list(tmp_path.iterdir())


def test_a_quantised_model_is_not_quantised_again(base_folder, tmp_path):
    convert(base_folder, tmp_path / "q", quantization=Quantization(4, 32))
    with pytest.raises(UserError, match="quantised already"):
        convert(tmp_path / "q", tmp_path / "again", quantization=Quantization(8))


def test_a_missing_source_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        convert(tmp_path / "nowhere", tmp_path / "mlx")
