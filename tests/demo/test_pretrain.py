"""The script that made the base: what it learns from, and the folder that it writes."""

from itertools import islice

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm import load

from mlx_yoda.demo import pretrain
from mlx_yoda.demo.grammar import capitalised


@pytest.fixture(scope="module")
def tokenizer():
    return pretrain.make_tokenizer()


def test_what_it_learns_from():
    said = list(islice(pretrain.exchanges(), 400))
    sentences, babble = said[::2], said[1::2]
    assert all(asked == answered for asked, answered in sentences)
    assert any(asked != answered for asked, answered in babble)
    for asked, answered in babble:
        assert asked.lower() == answered.lower()
        first, *others = (word.strip(",.!?") for word in answered.split())
        assert first == capitalised(first)
        assert all(word.islower() or word == "I" for word in others)


def test_batches_hold_every_exchange_once():
    size = 4 * pretrain.BATCH
    batched = [said for batch in islice(pretrain.batches(), 4) for said in batch]
    assert sorted(batched) == sorted(islice(pretrain.exchanges(), size))


def test_only_the_answer_carries_loss(tokenizer):
    """The loss is that of the answer's tokens, whatever the padding."""
    mx.random.seed(0)
    model = pretrain.Model(pretrain.ModelArgs.from_dict(pretrain.CONFIG))
    pair = ("Map.", "Map."), ("an old map, an old map.", "An old map, an old map.")
    losses, targets = [], []
    for asked, answered in pair:
        row = pretrain.conversations(tokenizer, [(asked, answered)])
        answer = len(tokenizer.encode(answered).ids) + 2  # <|end|> and <|endoftext|>
        logits = model(row[:, :-1])[0, -answer:]
        picked = mx.take_along_axis(logits, row[0, -answer:, None], axis=-1)[:, 0]
        losses.append((mx.logsumexp(logits, axis=-1) - picked).sum().item())
        targets.append(answer)
    together = pretrain.copying_loss(model, pretrain.conversations(tokenizer, list(pair)))
    assert together.item() == pytest.approx(sum(losses) / sum(targets), rel=1e-5)


def test_few_steps_learn_and_are_saved(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "STEPS", 4)
    monkeypatch.setattr(pretrain, "WARMUP", 1)
    monkeypatch.setattr(pretrain, "BATCH", 4)
    model = pretrain.pretrain(tokenizer)
    pretrain.save(tmp_path / "model", model, tokenizer)
    loaded, _ = load(str(tmp_path / "model"))
    ours, theirs = dict(tree_flatten(model.parameters())), tree_flatten(loaded.parameters())
    assert ours.keys() == dict(theirs).keys()
    assert all(mx.array_equal(ours[name], array) for name, array in theirs)
