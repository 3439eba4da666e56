"""The memory plan against MLX's own count, and what is chosen by it."""

import json
from itertools import product
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_reduce
from mlx_lm.models import phi3

from benchmarks.memory import Case, grid, measure, unseen
from mlx_yoda.config.parse import load_config
from mlx_yoda.config.quantization import packing
from mlx_yoda.config.schema import LoraConfig, Quantization
from mlx_yoda.data.shapes import Shape
from mlx_yoda.errors import UserError
from mlx_yoda.model.sizes import sizes_of
from mlx_yoda.train.fit import check_room, choose
from mlx_yoda.train.memory import demand
from mlx_yoda.train.recompute import Keep
from tests.model.phi3_configs import PHI

CASES = [*[case for case in grid() if case.width < 512][::5], *unseen()]
GB = 10**9
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_plan_is_within_15_percent_of_the_measured_peak(case: Case):
    measured, plan = measure(case)
    assert plan.peak == pytest.approx(measured, rel=0.15)


@pytest.fixture
def phi3_mini():
    return PHI["Phi-3-mini-4k"] | {"torch_dtype": "bfloat16"}


def fit(config, memory, rows=16, length=64, **changes):
    options = {"checkpointing": "auto", "shrink": True, "dropout": True, "fused_attention": True}
    return choose(
        sizes_of(config, LoraConfig()),
        lambda m: Shape(m * length, m, length, m * length // 2),
        rows,
        memory=memory,
        **(options | changes),
    )


def test_phi3_minis_sizes_are_its_own(phi3_mini):
    sizes = sizes_of(phi3_mini, LoraConfig())
    assert sizes.adapter == 12_582_912
    assert sizes.weights == 2 * 3_821_079_552
    quantised = sizes_of(phi3_mini | {"quantization": {"bits": 4, "group_size": 64}}, LoraConfig())
    assert quantised.weights == pytest.approx(2.15 * GB, rel=0.01)


def test_the_real_config_says_the_same(shared, phi3_mini):
    folder = shared / "data" / "phi-3-mini-4k-instruct"
    real = json.loads((folder / "config.json").read_text())
    assert sizes_of(real, LoraConfig()) == sizes_of(phi3_mini, LoraConfig())


def test_less_memory_means_keeping_less(phi3_mini):
    chosen = [fit(phi3_mini, memory * GB) for memory in (64, 16, 12, 10)]
    assert chosen[0].keep == (Keep.EVERYTHING,) * 32
    assert chosen[0].micro_batch == 16
    kept = [sum(found.keep) for found in chosen]
    assert kept == sorted(kept)
    assert all(found.demand.footprint <= found.budget for found in chosen)


def test_no_layer_keeps_less_than_needed(phi3_mini):
    found = fit(phi3_mini, 11 * GB, shrink=False)
    mixed = set(found.keep)
    assert len(mixed) == 2
    level = list(found.keep)
    level[level.count(max(mixed)) - 1] = min(mixed)
    shape = Shape(16 * 64, 16, 64, 16 * 32)
    sizes = sizes_of(phi3_mini, LoraConfig())
    richer = demand(sizes, shape, level, dropout=True, fused_attention=True)
    assert richer.footprint > found.budget


@pytest.mark.parametrize(("asked", "keep"), [(True, Keep.INPUT), (False, Keep.SOURCES)])
def test_what_is_asked_for_is_done(phi3_mini, asked, keep):
    assert set(fit(phi3_mini, 64 * GB, checkpointing=asked).keep) == {keep}


def test_few_rows_at_once_only_where_that_is_allowed(phi3_mini):
    config = phi3_mini | {"quantization": {"bits": 4, "group_size": 64}}
    found = fit(config, 3 * GB, rows=16, length=256)
    assert found.micro_batch < 16
    with pytest.raises(UserError, match=r"needs .* GB at the least"):
        fit(config, 3 * GB, rows=16, length=2048, shrink=False)


def test_too_little_memory_is_an_error_with_advice(phi3_mini):
    with pytest.raises(UserError, match=r"set model.quantization=\{bits: 4\}, or"):
        fit(phi3_mini, 4 * GB)
    with pytest.raises(UserError) as error:
        fit(phi3_mini | {"quantization": {"bits": 4, "group_size": 64}}, 2 * GB)
    assert "quantization" not in str(error.value)  # it is there already


def test_a_base_that_cannot_fit_is_refused_whatever_the_rows(phi3_mini):
    sizes = sizes_of(phi3_mini, LoraConfig())
    check_room(sizes, "phi3", 16 * GB)
    with pytest.raises(UserError, match=r"phi3 .* 7.8 GB before .* 4.8 GB: set model.quantization"):
        check_room(sizes, "phi3", int(8 * GB * 2 / 3))


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "mxfp8", "nvfp4"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_quantised_base_is_as_large_as_the_plan_says(mode, dtype):
    quantization = packing(Quantization(mode=mode))._asdict()
    config = Case(128, 2, 1, 64, 1000, Keep.INPUT, 0.0).config | {"torch_dtype": dtype}
    planned = sizes_of(config | {"quantization": quantization}, LoraConfig()).weights
    model = phi3.Model(phi3.ModelArgs.from_dict(config))
    model.set_dtype(getattr(mx, dtype))
    nn.quantize(model, **quantization)
    assert planned == tree_reduce(lambda total, a: total + a.nbytes, model.parameters(), 0)


def test_phi3_mini_in_4_bits_trains_in_under_4_gb(phi3_mini):
    """What configs/mac-8gb.yaml runs, at 1 x 256."""
    found = load_config(ROOT / "configs" / "mac-8gb.yaml")
    config = phi3_mini | {"quantization": packing(found.model.quantization)._asdict()}
    sizes = sizes_of(config, found.lora)
    shape = Shape(256, 1, 256, 128)
    for fused, keep in product((True, False), Keep):
        need = demand(sizes, shape, (keep,) * 32, dropout=True, fused_attention=fused)
        assert need.peak < need.footprint < 4 * GB
    again = demand(sizes, shape, (Keep.INPUT,) * 32, dropout=True, fused_attention=True)
    assert again.footprint < 2.7 * GB
