"""Our GGUF adapter in a real llama.cpp, over a tiny Phi-3: the same logits, the same text.

It needs llama-cpp-python (`pip install llama-cpp-python` builds llama.cpp; minutes).
"""

import json

import gguf
import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.generate import generate_step

from mlx_yoda.adapters.gguf import save_gguf
from mlx_yoda.adapters.peft import load_adapter
from mlx_yoda.generation import attach
from mlx_yoda.lora.inject import remove
from mlx_yoda.model.folder import read_weights

llama_cpp = pytest.importorskip("llama_cpp")

pytestmark = pytest.mark.peer

TOKENS = [5, 17, 40, 3, 99, 8, 61, 23, 150, 77, 12]
ANSWER = 12
ALL = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


@pytest.fixture(scope="module")
def base_gguf(base_folder, tmp_path_factory):
    """The base as llama.cpp wants it, without a vocabulary: tokens go in and come out as ids."""
    config = json.loads((base_folder / "config.json").read_text())
    path = tmp_path_factory.mktemp("gguf") / "base.gguf"
    writer = gguf.GGUFWriter(path, "phi3")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_sliding_window(0)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.PHI3, config["num_hidden_layers"])
    for name, array in read_weights(base_folder).items():
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), np.array(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def theirs(base, adapter=None):
    """llama.cpp's logits for the prompt, and the tokens that it finds likeliest."""
    model = llama_cpp.Llama(
        str(base),
        lora_path=adapter and str(adapter),
        logits_all=True,
        n_ctx=64,
        verbose=False,
        type_k=llama_cpp.GGML_TYPE_F32,  # its cache holds float16 otherwise
        type_v=llama_cpp.GGML_TYPE_F32,
    )
    model.eval(TOKENS)
    logits = np.array(model.scores[: len(TOKENS)])
    tokens = [int(logits[-1].argmax())]
    while len(tokens) < ANSWER:
        model.eval(tokens[-1:])
        tokens.append(int(model.scores[model.n_tokens - 1].argmax()))
    model.close()
    return logits, tokens


def ours(model):
    logits = np.array(model(mx.array([TOKENS])))[0]
    return logits, [int(t) for t, _ in generate_step(mx.array(TOKENS), model, max_tokens=ANSWER)]


@pytest.mark.parametrize(
    "keys",
    [
        {"r": 4, "lora_alpha": 12, "target_modules": ALL},
        {"r": 4, "lora_alpha": 5, "use_rslora": True, "target_modules": ALL},
        {
            "r": 4,
            "lora_alpha": 6,
            "target_modules": ALL,
            "rank_pattern": {"qkv_proj": 2},
            "alpha_pattern": {"o_proj": 20},
        },
    ],
    ids=["plain", "rank-stabilised", "patterns"],
)
def test_llama_cpp_answers_as_we_do(our_base, base_folder, base_gguf, make_adapter, tmp_path, keys):
    alone, _ = theirs(base_gguf)
    assert np.abs(alone - ours(our_base.model)[0]).max() < 1e-4
    adapter = load_adapter(make_adapter(**keys))
    config = json.loads((base_folder / "config.json").read_text())
    save_gguf(tmp_path / "yoda.gguf", adapter, config)
    logits, tokens = theirs(base_gguf, tmp_path / "yoda.gguf")
    attach(our_base.model, adapter)
    try:
        expected, answer = ours(our_base.model)
    finally:
        remove(our_base.model)
    assert np.abs(expected - alone).max() > 0.5, "the adapter has to matter"
    assert np.abs(logits - expected).max() < 1e-4
    assert tokens == answer
    decode = our_base.tokenizer.decode
    assert decode(tokens) == decode(answer)
