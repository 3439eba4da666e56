"""A tiny random Phi-3 in float32, as this program and as Transformers load it."""

import json

import pytest

from benchmarks.random_phi3 import write_random_phi3
from mlx_yoda.model.load import load, resolve


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory):
    """Two layers with weights large enough that every part of the model counts in the logits."""
    demo = resolve("demo")
    sizes = {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
    }
    folder = tmp_path_factory.mktemp("base") / "phi3"
    config = json.loads((demo / "config.json").read_text()) | sizes
    write_random_phi3(folder, config, tokenizer=demo, seed=3)
    return folder


@pytest.fixture(scope="session")
def our_base(base_folder):
    return load(base_folder)
