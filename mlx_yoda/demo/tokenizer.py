"""A small byte-level BPE tokenizer in the manner of Phi-3's: its special tokens, its template.

As in Phi-3's own tokenizer a text is given a leading space, so that a word is the same token
wherever it stands, and a decoded text loses that space again. Below the learned words are all
256 bytes, so any text comes back as it was.
"""

from collections.abc import Iterable
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

# Ids 0 to 6. A mark of the chat format swallows white space to its right, the template's newline.
PLAIN_TOKENS = ("<unk>", "<s>", "<|endoftext|>")
CHAT_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] in ['system', 'user', 'assistant'] %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{{ '<|assistant|>\\n' if add_generation_prompt else eos_token }}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Learn byte-pair merges from texts.

    Args:
        texts: what the merges are counted in.
        vocabulary: number of tokens in all, at least 263: 7 special tokens and 256 bytes.

    Returns:
        A tokenizer for which `decode(encode(text))` is `text`, for any text that does not
        spell out a special token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    special = [AddedToken(token, normalized=False, special=True) for token in PLAIN_TOKENS]
    special += [
        AddedToken(token, rstrip=True, normalized=False, special=True) for token in CHAT_TOKENS
    ]
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def tokenizer_config(max_length: int) -> dict[str, Any]:
    """What tokenizer_config.json says: roles of the special tokens and the chat template."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<unk>",
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
