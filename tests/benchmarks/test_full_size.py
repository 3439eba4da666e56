"""The full-size proof in small: loading and a step, in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import full_size
from benchmarks.full_size import CASES, Measured, configuration, table
from benchmarks.random_phi3 import write_random_phi3
from mlx_yoda.model.load import resolve
from tests.model.phi3_configs import PHI

# 48 narrow layers: 252 MB in bfloat16, of which no single tensor has more than 2 MB.
NARROW = PHI["Phi-3-mini-4k"] | {
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 48,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 768,
}
SLACK = 60e6  # bytes that Python and the libraries take while they work
CODE = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from benchmarks.full_size import Case, measure
case = Case(**json.loads(sys.argv[2]))
print(json.dumps(asdict(measure(Path(sys.argv[1]), case))))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full") / "phi3"
    tokenizer = Path(str(resolve("demo")))
    write_random_phi3(folder, NARROW, tokenizer=tokenizer, dtype="bfloat16", shard_bytes=64 << 20)
    assert len(list(folder.glob("*.safetensors"))) == 4
    return folder


def measured(model, **case) -> Measured:
    command = [sys.executable, "-c", CODE, str(model), json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=full_size.ROOT)
    assert done.returncode == 0, done.stderr
    return Measured(**json.loads(done.stdout))


@pytest.mark.slow
def test_four_bits_are_loaded_layer_by_layer(model):
    found = measured(model, bits=4, length=16, checkpointing=True, dtype="float32")
    assert found.weights == pytest.approx(252e6 * 5 / 16, rel=0.01)  # float32 scales and biases
    assert found.load_peak < 1.3 * found.weights
    assert found.load_resident < 1.3 * found.weights + SLACK
    assert found.step_peak == pytest.approx(found.planned, rel=0.15)
    assert found.step_resident < found.planned + SLACK


@pytest.mark.slow
def test_sixteen_bits_are_in_memory_once(model):
    found = measured(model, bits=None, length=16)
    assert found.weights == pytest.approx(252e6, rel=0.01)
    assert found.load_peak < found.weights + 10e6
    assert found.load_resident < found.weights + SLACK
    assert found.step_peak == pytest.approx(found.planned, rel=0.15)
    assert found.step_resident < found.planned + SLACK


def test_the_table_has_a_line_for_each_case():
    found = Measured(*[10**9] * 3, 3.0, *[2 * 10**9] * 2, 30.0, *[10**9] * 2, 1.0)
    lines = table({"4 bits": found, "16 bits": found}).splitlines()
    assert len(lines) == 3
    assert len({len(line) for line in lines}) == 1
    assert "1.00" in lines[1]


def test_every_case_is_a_run(tmp_path):
    for case in CASES.values():
        config = configuration(tmp_path, case)
        assert config.data.max_length == case.length
        assert (config.model.quantization is None) == (case.bits is None)
