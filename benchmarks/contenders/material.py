"""The base and the tokenised rows that all contenders share."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

import mlx_yoda
from benchmarks.contenders.job import Row
from benchmarks.random_phi3 import write_random_phi3
from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data.chat import Example, encode
from mlx_yoda.data.columns import conversations
from mlx_yoda.data.sources import load_splits
from mlx_yoda.errors import UserError
from mlx_yoda.files import write_json
from mlx_yoda.model.load import load_tokenizer_in

_DEMO = Path(mlx_yoda.__file__).parent / "demo" / "model"
_DEMO_ROWS = _DEMO.parent / "data" / "train.jsonl"


@dataclass(frozen=True)
class Sizes:
    """Of a random Phi-3."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int


@dataclass(frozen=True)
class Material:
    """What the contenders are given.

    Attributes:
        model: folder of the base.
        rows: file of the rows, as `Job.rows`.
        train, valid: the rows.
        renumbered: whether the tokens' ids were mapped into a smaller vocabulary.
    """

    model: Path
    rows: Path
    train: list[Row]
    valid: list[Row]
    renumbered: bool

    def facts(self) -> dict[str, str]:
        """For the report."""
        lengths = [len(row.tokens) for row in self.train]
        return {
            "training rows": str(len(self.train)),
            "held-out rows": str(len(self.valid)),
            "tokens of an epoch": str(sum(lengths)),
            "supervised tokens of an epoch": str(sum(row.targets for row in self.train)),
            "mean and longest row": f"{np.mean(lengths):.1f}, {max(lengths)} tokens",
            "ids renumbered into the vocabulary": "yes" if self.renumbered else "no",
        }


def prepare(
    folder: Path,
    *,
    model: Path | None,
    tokenizer: Path | None,
    data: str | None,
    sizes: Sizes,
    train_on: Literal["completions", "all"],
    max_length: int,
    rows: int,
    held_out: int,
    batch_size: int,
    dtype: str,
) -> Material:
    """Write base and rows into a folder.

    The rows are the first ones of a seeded shuffle, as many as fill whole batches, since mlx-lm
    drops the rest.

    Raises:
        UserError: the data cannot be used, or is not enough.
    """
    examples = _examples(model or tokenizer or _DEMO, data, train_on, max_length)
    need = (rows or len(examples) - held_out) // batch_size * batch_size
    if need <= 0 or need + held_out > len(examples):
        raise UserError(
            f"{len(examples)} rows are not enough for batches of {batch_size} and {held_out} "
            "held-out rows; lower --rows, --held-out or --batch-size."
        )
    base, renumbered = model, False
    if base is None:
        base = _random_base(folder / "base", sizes, dtype)
        renumbered = max(int(e.tokens.max()) for e in examples) >= sizes.vocabulary
    if renumbered:
        examples = _renumber(examples, sizes.vocabulary)
    chosen = [_row(e) for e in examples[: need + held_out]]
    train, valid = chosen[:need], chosen[need:]
    write_json(folder / "rows.json", {"train": train, "valid": valid})
    return Material(base, folder / "rows.json", train, valid, renumbered)


def _examples(
    tokenizer: Path, data: str | None, train_on: Literal["completions", "all"], max_length: int
) -> list[Example]:
    config = DataConfig(dataset_name=data or str(_DEMO_ROWS))
    found = conversations(load_splits(config, seed=0).train, config)
    base = json.loads((tokenizer / "config.json").read_text(encoding="utf-8"))
    words = load_tokenizer_in(tokenizer, base, trust_remote_code=False)
    encoded = encode(found, words, train_on=train_on, max_length=max_length)
    order = np.random.default_rng(0).permutation(len(encoded.examples))
    return [encoded.examples[i] for i in order]


def _random_base(folder: Path, sizes: Sizes, dtype: str) -> Path:
    config = json.loads((_DEMO / "config.json").read_text(encoding="utf-8"))
    config |= {
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.intermediate,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.heads,
        "vocab_size": sizes.vocabulary,
    }
    write_random_phi3(folder, config, tokenizer=_DEMO, dtype=dtype)
    return folder


def _renumber(examples: list[Example], vocabulary: int) -> list[Example]:
    """Map ids to their rank among those that occur; the rarest of too many share the last ids."""
    ids, counts = np.unique(np.concatenate([e.tokens for e in examples]), return_counts=True)
    rank = np.empty(len(ids), np.int32)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(ids))
    new = np.minimum(rank, vocabulary - 1).astype(np.int32)
    return [Example(new[np.searchsorted(ids, e.tokens)], e.supervised, e.whole) for e in examples]


def _row(example: Example) -> Row:
    prompt = 0 if example.whole else int(np.argmax(example.supervised))
    if not example.supervised[max(1, prompt) :].all():
        raise UserError("a row has targets before its last prompt, which mlx-lm cannot mask.")
    return Row([int(token) for token in example.tokens], prompt)
