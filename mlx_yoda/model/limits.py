"""What a model can be given: the token ids that it has rows for, and the positions that it has.

MLX checks neither: an id beyond the embedding reads memory that is not the model's, and most
models compute something at any position.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.nn as nn
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_yoda.errors import UserError
from mlx_yoda.model.departures import exact_up_to
from mlx_yoda.model.family import FamilyArgs, longest_row

# What mlx-lm's models call the embedding of tokens; positions and images have tables too.
_TABLES = (
    "embed_tokens",
    "wte",
    "word_embeddings",
    "tok_embeddings",
    "token_embeddings",
    "embeddings",
    "embedding",
    "embed_in",
    "embed",
)
# What families call the number of positions in config.json.
_POSITIONS = (
    "max_position_embeddings",
    "n_positions",
    "max_sequence_length",
    "max_seq_len",
    "seq_length",
)
_STRETCHED = ("linear", "dynamic", "yarn")  # whose factor is not in max_position_embeddings


@dataclass(frozen=True)
class Limits:
    """The limits of one model.

    Attributes:
        vocabulary: rows of its embedding; every token id must be below. None if that is not known.
        context: how many positions it has, in tokens; None if config.json names none.
        longest_row: most tokens of a row that it can be trained on; None for any (see
            `model.family.longest_row`).
        exact: the longest row that is computed as in Transformers, in tokens, and the key of
            config.json behind it (see `model.departures.exact_up_to`); None for any.
    """

    vocabulary: int | None
    context: int | None
    longest_row: int | None
    exact: tuple[int, str] | None = None

    def check_ids(self, largest: int, tokenizer: TokenizerWrapper, what: str) -> None:
        """Hold the largest token id of something against the embedding.

        Raises:
            UserError: the embedding has no row for it.
        """
        if self.vocabulary is not None and largest >= self.vocabulary:
            token = tokenizer.convert_ids_to_tokens(largest)
            raise UserError(
                f"{what} has the token {token!r} of id {largest}, for which the model has no row: "
                f"its embedding has {self.vocabulary:,} rows. Take the tokenizer that belongs to "
                "the model, or leave the token out."
            )

    def check_length(self, length: int, what: str, remedy: str, answer: int = 0) -> None:
        """Hold a number of tokens, and the least that are to follow them, against the positions.

        Raises:
            UserError: the model has fewer.
        """
        if self.context is not None and length + answer > self.context:
            shared = " for it and its answer" if answer else ""
            raise UserError(
                f"{what} has {length:,} tokens, but the model has {self.context:,} positions"
                f"{shared} (max_position_embeddings): {remedy}."
            )

    def room(self, prompt: Sequence[int], tokenizer: TokenizerWrapper) -> int:
        """How many tokens may come after a prompt; a very large number where nothing bounds them.

        Raises:
            UserError: none may, or the prompt has a token that the model has no row for.
        """
        self.check_ids(max(prompt, default=0), tokenizer, "the conversation")
        self.check_length(len(prompt), "the conversation", "shorten it", answer=1)
        return sys.maxsize if self.context is None else self.context - len(prompt)


def limits_of(model: nn.Module, config: Mapping[str, Any]) -> Limits:
    """The limits of a model built from a config.json."""
    tables = {
        path.rpartition(".")[2]: module.weight.shape[0]
        for path, module in model.named_modules()
        if isinstance(module, nn.Embedding | nn.QuantizedEmbedding)
    }
    vocabulary = next((tables[name] for name in _TABLES if name in tables), None)
    return Limits(vocabulary, _context(config), longest_row(model), exact_up_to(config))


def limits_of_phi3(config: Mapping[str, Any]) -> Limits:
    """The limits of a Phi-3 that is not loaded."""
    args = FamilyArgs.from_dict(dict(config))
    original = args.longrope and args.longrope["original_max_position_embeddings"]
    return Limits(args.vocab_size, _context(config), original or None)


def check_tokenizer(tokenizer: TokenizerWrapper, limits: Limits, folder: object) -> None:
    """Hold a tokenizer against its model.

    Added tokens may lie beyond the embedding, as Gemma 3's `<image_soft_token>` does in models
    without images: a text that has one is refused. The rest of the vocabulary may not, nor the
    tokens that open and end a text.

    Raises:
        UserError: it is another model's.
    """
    added = tokenizer.get_added_vocab()
    words = {token: id for token, id in tokenizer.get_vocab().items() if token not in added}
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    largest = max((*words.values(), *(id for id in ends if id is not None)), default=0)
    limits.check_ids(largest, tokenizer, f"the tokenizer in {folder}")


def _context(config: Mapping[str, Any]) -> int | None:
    """How many positions a config.json gives a model, stretched ones included."""
    text = {**config, **(config.get("text_config") or {})}
    named = (text.get(name) for name in _POSITIONS)
    most = next((n for n in named if isinstance(n, int) and not isinstance(n, bool)), None)
    scaling = text.get("rope_scaling") or text.get("rope_parameters") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    # Gemma 3's factor is in its max_position_embeddings already.
    if most is None or kind not in _STRETCHED or str(config.get("model_type")).startswith("gemma"):
        return most
    trained = scaling.get("original_max_position_embeddings", most)
    return max(most, int(trained * scaling.get("factor", 1)))
