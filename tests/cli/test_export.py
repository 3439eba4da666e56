"""`mlx-yoda export`: what is written answers as the adapter does, and what is told about it."""

import json
import shutil

import pytest

BASE = "base_model_name_or_path"
PROMPT = "You must find the old map."
SHORT = ["--max-tokens", 16]


@pytest.fixture(scope="module")
def answer(invoke, adapter):
    return invoke("generate", "--adapter", adapter, *SHORT, PROMPT).stdout


@pytest.mark.parametrize("to", ["peft", "mlx-lm"])
def test_an_exported_adapter_answers_as_before(invoke, adapter, answer, tmp_path, to):
    result = invoke("export", adapter, tmp_path / "out", "--to", to)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert f"Wrote {tmp_path / 'out'}" in result.stderr
    again = invoke("generate", "--adapter", tmp_path / "out", *SHORT, PROMPT)
    assert again.stdout == answer


def test_a_checkpoint_can_be_merged_and_answers_alone(invoke, adapter, answer, tmp_path):
    source = adapter / "checkpoint-8"
    result = invoke("export", source, tmp_path / "out", "--to", "merged")
    assert result.exit_code == 0, result.stderr
    assert invoke("generate", "--model", tmp_path / "out", *SHORT, PROMPT).stdout == answer


def test_quantising_again_is_told_with_its_loss(invoke, adapter, tmp_path):
    packed = tmp_path / "packed"
    assert invoke("convert", "demo", packed, "--quantize", 4).exit_code == 0
    options = ["--to", "merged", "--model", packed]
    result = invoke("export", adapter, tmp_path / "full", *options)
    assert "its unpacked ones" in result.stderr
    assert "cosine" in result.stderr
    again = invoke("export", adapter, tmp_path / "again", *options, "--requantize")
    assert "Quantising again changed the adapter's effect (cosine" in again.stderr
    sizes = [
        sum(file.stat().st_size for file in (tmp_path / name).glob("*.safetensors"))
        for name in ("full", "again", "packed")
    ]
    assert sizes[0] > 3 * sizes[1]
    assert sizes[1] == pytest.approx(sizes[2], rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "peft", "--requantize"], "--requantize goes with --to merged"),
        (["--to", "onnx"], "'onnx' is not one of"),
        ([], "Missing option '--to'"),
    ],
)
def test_wrong_options_end_in_one_sentence(invoke, adapter, tmp_path, arguments, message):
    result = invoke("export", adapter, tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["peft", "mlx-lm", "merged", "gguf"])
def test_an_adapter_that_does_not_fit_is_refused_in_every_format(
    invoke, adapter, base_folder, tmp_path, to
):
    result = invoke("export", adapter, tmp_path / "out", "--to", to, "--model", base_folder)
    assert result.exit_code == 2
    assert "made for another model" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["peft", "mlx-lm"])
def test_a_base_that_is_not_here_is_said(invoke, adapter, tmp_path, to):
    shutil.copytree(adapter, tmp_path / "in")
    file = tmp_path / "in" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {BASE: str(tmp_path / "gone")}))
    result = invoke("export", tmp_path / "in", tmp_path / "out", "--to", to)
    assert result.exit_code == 0
    assert "was not held against its base: " in result.stderr
    assert f"{tmp_path / 'gone'} as its base, which is not here" in result.stderr
    assert (tmp_path / "out").is_dir()


def test_a_destination_that_is_there_stays_as_it_is(invoke, adapter, tmp_path):
    result = invoke("export", adapter, tmp_path, "--to", "peft")
    assert result.exit_code == 2
    assert "exists" in result.stderr
    assert not any(tmp_path.iterdir())
