"""Small models of every family, as Transformers configures them; their widths are no squares."""

from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

SIZES = {
    "hidden_size": 72,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 768,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
GEMMA3 = SIZES | {
    "num_hidden_layers": 6,
    "head_dim": 24,
    "sliding_window": 16,
    "query_pre_attn_scalar": 24,
}
FAMILIES: dict[str, PreTrainedConfig] = {
    "Llama 2": LlamaConfig(**SIZES, rope_parameters={"rope_type": "default", "rope_theta": 5e4}),
    "Llama 3": LlamaConfig(**SIZES, rope_parameters=LLAMA3, tie_word_embeddings=True),
    "Mistral": MistralConfig(**SIZES, head_dim=24, rope_parameters={"rope_theta": 3e4}),
    "Qwen 2": Qwen2Config(**SIZES, rope_parameters={"rope_theta": 1e5}, tie_word_embeddings=True),
    "Qwen 3": Qwen3Config(**SIZES, head_dim=24),
    "Gemma": GemmaConfig(**SIZES, head_dim=24),
    "Gemma 2": Gemma2Config(**SIZES, head_dim=24, query_pre_attn_scalar=24),
    "Gemma 3": Gemma3TextConfig(**GEMMA3),
    "Phi 3": Phi3Config(**SIZES, sliding_window=16),
}
