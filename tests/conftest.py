"""What every test shares: a fast BLAS, no network, the real data where it is there."""

import ctypes
import ctypes.util
import json
import os
import sys
from pathlib import Path

import pytest

# Before anything imports mlx: its Linux wheel links a reference BLAS, 60 times slower.
if sys.platform == "linux" and (library := ctypes.util.find_library("openblas")):
    ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real dataset and tokenizer, which the project does not ship."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"{SHARED} is not there")
    return SHARED


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Phi-3 of two layers in float32, in Hugging Face layout, with the demo's tokenizer.

    Its weights are large enough that every part of the model counts in the logits.
    """
    from benchmarks.random_phi3 import write_random_phi3
    from mlx_yoda.model.load import resolve

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
    """That model, loaded."""
    from mlx_yoda.model.load import load

    return load(base_folder)
