"""The notebook's run on the real sentences and the real tokenizer."""

from pathlib import Path

import pytest
import transformers

from mlx_yoda.config.parse import load_config
from mlx_yoda.recipes.dataset import prepare
from mlx_yoda.train.plan import make_plan, padding_share

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture(scope="module")
def tokenizer(shared):
    return transformers.AutoTokenizer.from_pretrained(shared / "data" / "phi-3-mini-4k-instruct")


def settings(shared, *overrides):
    csv = shared / "data" / "yoda_sentences" / "yoda_sentences.csv"
    return load_config(CONFIGS / "notebook.yaml", overrides, {"data.dataset_name": str(csv)})


def test_the_notebooks_settings_give_its_220_steps(shared, tokenizer):
    config = settings(shared)
    plan = make_plan(prepare(config, tokenizer).train, config.train)
    assert plan.total_steps == 220
    assert {len(row.tokens) for row in plan.rows} == {64}
    assert padding_share(plan) == 0


@pytest.mark.parametrize(
    ("packing", "max_length", "most"),
    [("none", 64, 0.05), ("best_fit", 64, 0.06), ("best_fit", 256, 0.01)],
)
def test_hardly_anything_computed_is_padding(shared, tokenizer, packing, max_length, most):
    config = settings(shared, f"data.packing={packing}", f"data.max_length={max_length}")
    plan = make_plan(prepare(config, tokenizer).train, config.train)
    assert padding_share(plan) <= most
