"""The same adapter here and in Transformers + PEFT: the same logits, the same greedy tokens."""

from itertools import islice

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx_lm.generate import generate_step
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from mlx_yoda.adapters.peft import load_adapter, save_adapter
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.generation import attach
from mlx_yoda.lora.inject import inject, lora_layers, remove

# PEFT 0.21 still asks Transformers by an old name.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)

TOLERANCE = 1e-4
TOKENS = np.array([[5, 17, 40, 3, 99, 8, 61, 23, 150, 77, 12]])
ANSWER = 16

CONFIGS = {
    "plain": {"r": 4, "lora_alpha": 12, "target_modules": ["qkv_proj", "o_proj", "down_proj"]},
    "rank-stabilised": {
        "r": 4,
        "lora_alpha": 12,
        "use_rslora": True,
        "target_modules": ["gate_up_proj", "qkv_proj"],
    },
    "patterns": {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
        "rank_pattern": {r"layers\.0\.mlp\.down_proj": 7, "qkv_proj": 2},
        "alpha_pattern": {"o_proj": 20, r"model\.layers\.1\.self_attn\.qkv_proj": 9},
    },
    "patterns, rank-stabilised": {
        "r": 4,
        "lora_alpha": 6,
        "use_rslora": True,
        "target_modules": ["qkv_proj", "o_proj"],
        "rank_pattern": {"o_proj": 9},
        "alpha_pattern": {"o_proj": 3},
    },
    "one target": {"r": 3, "lora_alpha": 8, "target_modules": ["down_proj"]},
    "one layer": {
        "r": 3,
        "lora_alpha": 8,
        "target_modules": ["down_proj", "o_proj"],
        "layers_to_transform": [1],
    },
    "an expression": {"r": 3, "lora_alpha": 8, "target_modules": r".*\.0\..*_proj"},
    "an exclusion": {
        "r": 3,
        "lora_alpha": 8,
        "target_modules": ["down_proj", "o_proj"],
        "exclude_modules": ["model.layers.0.mlp.down_proj"],
    },
}
each_config = pytest.mark.parametrize("keys", CONFIGS.values(), ids=CONFIGS)


@pytest.fixture
def their_base(base_folder):
    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    return model.eval()


@pytest.fixture
def our_model(our_base):
    yield our_base.model
    remove(our_base.model)


def our_logits(model):
    return np.array(model(mx.array(TOKENS)))


def their_logits(model):
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits.numpy()


def our_tokens(model):
    steps = generate_step(mx.array(TOKENS[0]), model, max_tokens=ANSWER)
    return [int(token) for token, _ in islice(steps, ANSWER)]


def their_tokens(model):
    prompt = torch.tensor(TOKENS)
    out = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=ANSWER,
        min_new_tokens=ANSWER,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return out[0, TOKENS.shape[1] :].tolist()


def assert_alike(ours, theirs, base_logits):
    logits = our_logits(ours)
    assert np.abs(logits - base_logits).max() > 0.5, "the adapter has to matter"
    assert np.abs(logits - their_logits(theirs)).max() < TOLERANCE
    assert our_tokens(ours) == their_tokens(theirs)


@each_config
def test_peft_computes_what_we_compute_with_our_adapter(our_model, their_base, tmp_path, keys):
    base_logits = our_logits(our_model)
    lora = LoraConfig(**keys)
    mx.random.seed(1)
    for layer in inject(our_model, lora, mx.random.key(0)).values():
        layer.lora_B = 0.3 * mx.random.normal(layer.lora_B.shape)
    pairs = {path: (m.lora_A, m.lora_B) for path, m in lora_layers(our_model).items()}
    save_adapter(tmp_path, pairs, lora, base_model_name_or_path="base")
    theirs = PeftModel.from_pretrained(their_base, tmp_path)
    assert_alike(our_model, theirs, base_logits)


@each_config
def test_we_compute_what_peft_computes_with_its_adapter(our_model, their_base, tmp_path, keys):
    base_logits = our_logits(our_model)
    torch.manual_seed(1)
    config = PeftLoraConfig(**keys, task_type="CAUSAL_LM", init_lora_weights=False)
    theirs = get_peft_model(their_base, config).eval()
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if "lora_B" in name:
                weight.copy_(0.3 * torch.randn(weight.shape))
    theirs.save_pretrained(tmp_path)
    attach(our_model, load_adapter(tmp_path))
    assert_alike(our_model, theirs, base_logits)


def test_the_shorthand_for_all_linear_layers_arrives_spelled_out(their_base, tmp_path):
    config = PeftLoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(their_base, config).save_pretrained(tmp_path)
    adapter = load_adapter(tmp_path)
    assert len(adapter.tensors) == 8
    assert {path.rpartition(".")[2] for path in adapter.tensors} == {
        "qkv_proj",
        "o_proj",
        "gate_up_proj",
        "down_proj",
    }
