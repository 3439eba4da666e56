"""`model.quantization`, a structure among the values: set whole, in short or in part."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.config.parse import load_config
from mlx_yoda.config.quantization import packing, short, trouble
from mlx_yoda.config.schema import Quantization
from mlx_yoda.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["4"], Quantization(4)),
        (["mxfp4"], Quantization(mode="mxfp4")),
        (["{bits: 4, group_size: 32}"], Quantization(4, 32)),
        (["{}"], Quantization()),
        (["null"], None),
        ([".bits=8"], Quantization(8)),
        (["4", ".group_size=32"], Quantization(4, 32)),
        (["mxfp4", ".mode=affine", ".bits=8"], Quantization(8)),
        (["{bits: 4, group_size: 32}", "8"], Quantization(8)),
        (["null", ".bits=4"], Quantization(4)),
        ([".bits=4", "null"], None),
    ],
)
def test_a_structure_is_set_whole_in_short_or_in_part(overrides, wanted):
    written = [text if text[0] == "." else f"={text}" for text in overrides]
    config = load_config(None, [f"model.quantization{text}" for text in written])
    assert config.model.quantization == wanted


def test_a_part_of_a_structure_may_come_from_elsewhere(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("model:\n  quantization: {bits: 4, group_size: 32}\n")
    config = load_config(file, ["model.quantization.bits=8"])
    assert config.model.quantization == Quantization(8, 32)
    file.write_text("model:\n  quantization:\n    bits: 4\n    group_size: 48\n")
    with pytest.raises(UserError, match=r"run.yaml:2: model.quantization cannot be"):
        load_config(file)


@given(
    st.builds(
        Quantization,
        st.none() | st.integers(-1, 9),
        st.none() | st.sampled_from([16, 32, 64]),
        st.sampled_from(["affine", "mxfp4", "mxfp8", "nvfp4"]),
    )
)
def test_short_means_the_same(quantization):
    written = f"model.quantization={short(quantization)}"
    if trouble(quantization):
        with pytest.raises(UserError, match="cannot be"):
            load_config(None, [written])
    else:
        assert load_config(None, [written]).model.quantization == quantization


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.quantization=7", "mode affine needs bits 2, 3, 4, 5, 6 or 8, not 7"),
        ("model.quantization.group_size=48", "mode affine needs group_size 32, 64 or 128, not 48"),
        ("model.quantization={mode: mxfp4, group_size: 64}", "mxfp4 needs group_size 32, not 64"),
        ("model.quantization={bit: 4}", "no key model.quantization.bit; did you mean model.quanti"),
        ("model.quantization.grup_size=4", "did you mean model.quantization.group_size"),
        ("model.quantization={x: 4}", "it has bits, group_size, mode"),
        ("model.quantization=mxfp5", "affine, mxfp4, mxfp8, nvfp4, a mapping of bits, group_size"),
        ("model.quantization={bits: four}", "quantization.bits must be a whole number or null"),
        ("model.load_in_4bit=true", "write model.quantization={bits: 4}"),
        ("model.quantization.bits.x=1", "there is no section model.quantization.bits"),
    ],
)
def test_mistakes_are_named(override, said):
    with pytest.raises(UserError) as error:
        load_config(None, [override])
    assert str(error.value).startswith(f"--set {override}: ")
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["mac-8gb", "phi3-mini-4bit"])
def test_the_small_configurations_need_no_converted_folder(name):
    model = load_config(CONFIGS / f"{name}.yaml").model
    assert model.model_name_or_path == "microsoft/Phi-3-mini-4k-instruct"
    assert packing(model.quantization) == (64, 4, "affine")
