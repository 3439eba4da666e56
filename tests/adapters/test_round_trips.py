"""Adapters on their way through PEFT and mlx-lm and back: the same bits, and the same logits."""

import tempfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from mlx_yoda.adapters.mlx_lm import load_mlx_lm, save_mlx_lm
from mlx_yoda.adapters.peft import Adapter, load_adapter, save_adapter
from mlx_yoda.config.lora_names import scale_of
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.generation import attach
from mlx_yoda.lora.inject import inject, remove

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning"),
]

TOKENS = np.array([[5, 17, 40, 3, 99, 8, 61, 23, 150, 77, 12]])
NAMES = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
# No two match the same module: PEFT sorts them when it saves, and the first match counts.
PATTERNS = [
    "qkv_proj",
    "gate_up_proj",
    r"layers\.1\.mlp\.down_proj",
    "model.layers.0.self_attn.o_proj",
]
quick = settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def keys(draw, patterns=True):
    """Settings of an adapter, in the names that PEFT and we share."""
    found = {
        "r": draw(st.integers(1, 6)),
        "lora_alpha": draw(st.integers(1, 16)),
        "lora_dropout": draw(st.sampled_from([0.0, 0.25])),
        "use_rslora": draw(st.booleans()),
        "use_dora": draw(st.booleans()),
        "target_modules": draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True)),
        "layers_to_transform": draw(st.sampled_from([None, [0], [1], [0, 1]])),
    }
    found["target_modules"].sort()
    if draw(st.booleans()):
        found["target_modules"] = r".*\.1\..*(qkv|down)_proj"
        found["layers_to_transform"] = None
    if patterns:
        names = st.sampled_from(PATTERNS)
        found["rank_pattern"] = draw(st.dictionaries(names, st.integers(1, 7), max_size=2))
        found["alpha_pattern"] = draw(st.dictionaries(names, st.integers(1, 16), max_size=2))
    return found


def random_adapter(base, keys, seed) -> Adapter:
    lora = LoraConfig(**keys)
    layers = inject(base.model, lora, mx.random.key(seed))
    remove(base.model)
    draws = iter(mx.random.split(mx.random.key(seed), 2 * len(layers)))
    pairs = {
        path: (layer.lora_A, 0.2 * mx.random.normal(layer.lora_B.shape, key=next(draws)))
        for path, layer in layers.items()
    }
    magnitudes = {
        path: layer.lora_magnitude_vector
        * mx.random.uniform(0.7, 1.4, layer.lora_magnitude_vector.shape, key=next(draws))
        for path, layer in layers.items()
        if lora.use_dora
    }
    return Adapter(lora, pairs, str(base.path), None, magnitudes)


def save(adapter: Adapter, folder):
    save_adapter(
        folder,
        adapter.tensors,
        adapter.lora,
        base_model_name_or_path=str(adapter.base_model_name_or_path),
        magnitudes=adapter.magnitudes,
    )


def same_bits(one: Adapter, other: Adapter) -> bool:
    ours, theirs = one.weights(), other.weights()
    return ours.keys() == theirs.keys() and all(
        ours[path].keys() == theirs[path].keys()
        and all(mx.array_equal(array, theirs[path][name]) for name, array in weights.items())
        for path, weights in ours.items()
    )


@pytest.fixture(scope="module")
def their_base(base_folder):
    return AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()


@pytest.mark.slow
@quick
@given(keys=keys(), seed=st.integers(0, 99))
def test_ours_through_peft_is_ours(our_base, their_base, keys, seed):
    adapter = random_adapter(our_base, keys, seed)
    with tempfile.TemporaryDirectory() as folder:
        save(adapter, Path(folder) / "ours")
        theirs = PeftModel.from_pretrained(deepcopy(their_base), f"{folder}/ours")
        theirs.save_pretrained(f"{folder}/theirs")
        back = load_adapter(Path(folder) / "theirs")
    assert same_bits(back, adapter)
    targets = back.lora.target_modules
    if not isinstance(targets, str):  # PEFT holds them in a set
        back = replace(back, lora=replace(back.lora, target_modules=sorted(targets)))
    assert back.lora == adapter.lora


@pytest.mark.slow
@quick
@given(
    keys=keys(), seed=st.integers(0, 99), dtype=st.sampled_from(["float32", "float16", "bfloat16"])
)
def test_pefts_through_us_is_pefts(their_base, keys, seed, dtype):
    torch.manual_seed(seed)
    config = PeftLoraConfig(**keys, task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(deepcopy(their_base), config)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(f"{folder}/theirs")
        file = Path(folder) / "theirs" / "adapter_model.safetensors"
        tensors = safetensors.torch.load_file(file)
        tensors = {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}
        safetensors.torch.save_file(tensors, file, {"format": "pt"})
        save(load_adapter(Path(folder) / "theirs"), Path(folder) / "ours")
        back = PeftModel.from_pretrained(deepcopy(their_base), f"{folder}/ours")
        back.save_pretrained(f"{folder}/back")
        config_back = back.peft_config["default"]
        found = safetensors.torch.load_file(f"{folder}/back/adapter_model.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name].float()) for name in tensors)
    for name in keys:
        want, have = getattr(config, name), getattr(config_back, name)
        assert (want or None) == (have or None), name  # {} and null mean the same


@pytest.mark.slow
@quick
@given(keys=keys(), seed=st.integers(0, 99))
def test_ours_through_mlx_lm_is_ours(our_base, keys, seed):
    """Bits, but for B where scales differ among the modules: there it is a rounding apart."""
    adapter = random_adapter(our_base, keys, seed)
    with tempfile.TemporaryDirectory() as folder:
        save_mlx_lm(Path(folder), adapter)
        back = load_mlx_lm(Path(folder))
    assert back.lora == adapter.lora
    scales = {scale_of(path, adapter.lora) for path in adapter.tensors}
    if len(scales) == 1:
        assert same_bits(back, adapter)
    for path, (a, b) in adapter.tensors.items():
        assert mx.array_equal(back.tensors[path][0], a)
        assert mx.allclose(back.tensors[path][1], b, rtol=3e-7, atol=0)


@pytest.mark.slow
@settings(quick, max_examples=20)
@given(keys=keys(), seed=st.integers(0, 99))
def test_three_runtimes_agree(our_base, base_folder, their_base, keys, seed):
    adapter = random_adapter(our_base, keys, seed)
    with tempfile.TemporaryDirectory() as folder:
        save(adapter, Path(folder) / "peft")
        save_mlx_lm(Path(folder) / "mlx", adapter)
        attach(our_base.model, load_adapter(Path(folder) / "peft"))
        ours = np.array(our_base.model(mx.array(TOKENS)))
        remove(our_base.model)
        model, _ = mlx_lm.load(str(base_folder), adapter_path=f"{folder}/mlx")
        theirs = PeftModel.from_pretrained(deepcopy(their_base), f"{folder}/peft").eval()
    with torch.no_grad():
        peft = theirs(torch.tensor(TOKENS)).logits.numpy()
    assert np.abs(ours - np.array(model(mx.array(TOKENS)))).max() < 1e-4
    assert np.abs(ours - peft).max() < 1e-4
