"""DoRA, PiSSA, LoRA+ and going on from an adapter, from the command line to the answer."""

import json

import pytest
from safetensors import safe_open

RUN = ["--model", "demo", "--max-steps", 8, "--per-device-train-batch-size", 8]
RUN += ["--learning-rate", "5e-3", "--logging-steps", 1, "--eval-strategy", "no"]
PROMPT = "You must find the old map."


def losses(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return [event["loss"] for event in events if "learning_rate" in event and "loss" in event]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--use-dora"],
        ["--init-lora-weights", "pissa", "--r", 4],
        ["--init-lora-weights", "pissa_niter_4", "--use-rslora", "--loraplus-lr-ratio", 4],
    ],
    ids=["DoRA", "PiSSA", "PiSSA, LoRA+"],
)
def test_a_variant_trains_resumes_answers_and_merges(invoke, data, tmp_path, options):
    run = ["train", *RUN, "--data", data, *options]
    saving = ["--save-strategy", "steps", "--save-steps", 4]
    whole = invoke(*run, *saving, "--output-dir", tmp_path / "whole")
    assert whole.exit_code == 0, whole.stderr
    curve = losses(tmp_path / "whole")
    assert len(curve) == 8
    assert curve[-1] < curve[0]
    resumed = invoke(
        *run, *saving, "--output-dir", tmp_path / "again",
        "--resume", tmp_path / "whole" / "checkpoint-4",
    )  # fmt: skip
    assert resumed.exit_code == 0, resumed.stderr
    ours, theirs = (
        (tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "again")
    )
    assert ours == theirs
    with safe_open(tmp_path / "whole" / "adapter_model.safetensors", framework="numpy") as file:
        names = set(file.keys())
    assert any("magnitude" in name for name in names) == ("--use-dora" in options)
    answer = invoke("generate", "--adapter", tmp_path / "whole", "--max-tokens", 16, PROMPT)
    assert answer.exit_code == 0, answer.stderr
    merged = invoke("export", tmp_path / "whole", tmp_path / "merged", "--to", "merged")
    assert merged.exit_code == 0, merged.stderr
    alone = invoke("generate", "--model", tmp_path / "merged", "--max-tokens", 16, PROMPT)
    assert alone.stdout == answer.stdout


def test_training_goes_on_from_an_adapter(invoke, data, adapter, tmp_path):
    run = ["train", *RUN, "--data", data, "--init-adapter", adapter]
    result = invoke(*run, "--output-dir", tmp_path / "on")
    assert result.exit_code == 0, result.stderr
    before, after = losses(adapter), losses(tmp_path / "on")
    assert after[0] < before[0]
    assert "init_adapter" in (tmp_path / "on" / "config.yaml").read_text()
    result = invoke(*run, "--output-dir", tmp_path / "off", "--r", 16)
    assert result.exit_code == 2
    assert "lora.r is 16, but the adapter" in result.stderr
    assert not (tmp_path / "off").exists()
