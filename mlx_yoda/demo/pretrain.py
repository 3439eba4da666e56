"""Makes the demo's base: a tiny Phi-3 that answers whatever it is told in the same words.

`python -m mlx_yoda.demo.pretrain DIR` writes it in Hugging Face layout; takes a few minutes on
two CPU cores. Half of what it learns from are sentences in plain order, half are words in no
order at all: without the latter it learns the grammar by heart, and never learns to copy.
"""

import argparse
import logging
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from random import Random
from string import ascii_lowercase
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten
from mlx_lm.models.phi3 import Model, ModelArgs
from tokenizers import Tokenizer

from mlx_yoda.demo.grammar import capitalised, pairs, sentences, words
from mlx_yoda.demo.tokenizer import CHAT_TOKENS, PLAIN_TOKENS, tokenizer_config, train_tokenizer
from mlx_yoda.files import new_directory, write_json, write_text

SEED = 1
STEPS = 1000
BATCH = 64
LEARNING_RATE = 2e-3
WARMUP = 50

Exchange = tuple[str, str]  # what the user says, what the assistant answers

_IDS = {token: i for i, token in enumerate(PLAIN_TOKENS + CHAT_TOKENS)}
_EOS, _END = _IDS["<|endoftext|>"], _IDS["<|end|>"]
_USER, _ASSISTANT = _IDS["<|user|>"], _IDS["<|assistant|>"]

# Phi-3-mini's config.json with smaller numbers (and without its sliding window).
CONFIG: dict[str, Any] = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "vocab_size": 768,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "original_max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "sliding_window": None,
    "attention_bias": False,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "initializer_range": 0.02,
    "torch_dtype": "float32",
    "bos_token_id": _IDS["<s>"],
    "eos_token_id": _EOS,
    "pad_token_id": _EOS,
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Pre-train the demo's base model.")
    parser.add_argument("directory", type=Path, help="where to write it; must not exist")
    directory = parser.parse_args().directory
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tokenizer = make_tokenizer()
    save(directory, pretrain(tokenizer), tokenizer)


def make_tokenizer() -> Tokenizer:
    """The demo's tokenizer, learned from sentences in both orders."""
    return train_tokenizer(chain.from_iterable(pairs(SEED, 5000)), CONFIG["vocab_size"])


def pretrain(tokenizer: Tokenizer) -> Model:
    """Train a fresh model, every parameter of it, to repeat what the user says."""
    mx.random.seed(SEED)
    model = Model(ModelArgs.from_dict(CONFIG))
    schedule = optim.join_schedules(
        [
            optim.linear_schedule(0.0, LEARNING_RATE, WARMUP),
            optim.cosine_decay(LEARNING_RATE, STEPS - WARMUP),
        ],
        [WARMUP],
    )
    optimizer = optim.AdamW(schedule, weight_decay=0.01, bias_correction=True)
    loss_and_gradients = nn.value_and_grad(model, copying_loss)
    training = batches()
    for step in range(1, STEPS + 1):
        tokens = conversations(tokenizer, next(training))
        loss, gradients = loss_and_gradients(model, tokens)
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        if step % 50 == 0:
            logging.info("step %d of %d, loss %.4f", step, STEPS, loss.item())
    return model


def exchanges() -> Iterator[Exchange]:
    """Sentences in plain order and babble, in turns."""
    random, vocabulary = Random(SEED), words()
    for sentence in sentences(SEED):
        yield sentence.plain, sentence.plain
        yield _babble(random, vocabulary)


def _babble(random: Random, vocabulary: list[str]) -> Exchange:
    """Two to nine words in no order, a few made up; asked with stray capitals, answered tidily."""
    asked: list[str] = []
    answered: list[str] = []
    for _ in range(random.randint(2, 9)):
        word = random.choice(vocabulary)
        if random.random() < 0.07:
            word = "".join(random.choices(ascii_lowercase, k=random.randint(1, 5)))
        stray = random.random() < (0.1 if asked else 0.5)
        comma = "," if random.random() < 0.1 else ""
        asked.append((capitalised(word) if stray else word) + comma)
        answered.append((word if answered else capitalised(word)) + comma)
    stop = random.choice(".!?")
    return " ".join(asked) + stop, " ".join(answered) + stop


def batches(pool: int = 4) -> Iterator[list[Exchange]]:
    """Exchanges in batches of similar length, so that little of a batch is padding."""
    random, endless = Random(SEED), exchanges()
    while True:
        some = sorted(islice(endless, pool * BATCH), key=lambda exchange: len(exchange[0]))
        for i in random.sample(range(pool), pool):
            yield some[i * BATCH : (i + 1) * BATCH]


def conversations(tokenizer: Tokenizer, batch: list[Exchange]) -> mx.array:
    """Token ids `(len(batch), T)`, padded with <|endoftext|>.

    A row is `<|user|> asked <|end|> <|assistant|> answered <|end|> <|endoftext|> …`.
    """
    rows = []
    for asked, answered in batch:
        question = [_USER, *tokenizer.encode(asked).ids, _END]
        rows.append([*question, _ASSISTANT, *tokenizer.encode(answered).ids, _END, _EOS])
    longest = max(map(len, rows))
    return mx.array([row + [_EOS] * (longest - len(row)) for row in rows])


def copying_loss(model: Model, tokens: mx.array) -> mx.array:
    """Mean cross-entropy, in nats, of what the assistant says and of the end of its turn.

    Args:
        model: the model in training.
        tokens: conversations `(B, T)` as `conversations` makes them.
    """
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    answering = mx.cumsum(inputs == _ASSISTANT, axis=1) > 0
    padding = (inputs == _EOS) & (targets == _EOS)
    supervised = answering & ~padding  # (B, T-1)
    losses = nn.losses.cross_entropy(model(inputs), targets)  # (B, T-1)
    return (losses * supervised).sum() / supervised.sum()


def save(directory: Path, model: Model, tokenizer: Tokenizer) -> None:
    """Write model and tokenizer in Hugging Face layout."""
    length = CONFIG["max_position_embeddings"]
    weights = dict(tree_flatten(model.parameters()))
    with new_directory(directory) as folder:
        write_json(folder / "config.json", CONFIG)
        write_json(folder / "generation_config.json", {"eos_token_id": [_EOS, _END]})
        write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
        write_json(folder / "tokenizer_config.json", tokenizer_config(length))
        mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})


if __name__ == "__main__":
    main()
