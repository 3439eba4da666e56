"""The step benchmark, and what it is there to show: memory in any order of evaluation."""

import json

import mlx.core as mx
import pytest

from benchmarks.contenders.one_step import ORDERS, Material, mlx_yoda
from benchmarks.step import BASELINE, UPPER_BASELINE, compare, main, ways
from mlx_yoda.train.recompute import Keep

SMALL = {"width": 64, "layers": 4, "vocabulary": 500, "rows": 2, "length": 32, "supervised": 16}


def test_every_way_takes_its_turn():
    material = Material.random(**SMALL, dropout=0.05)
    eager = [name for name in ways(material) if "compiled" not in name]
    results = compare(material, eager, rounds=1)
    assert [result.name for result in results] == eager
    assert all(result.seconds > 0 and result.peak > 0 for result in results)
    against = {result.name: result.against for result in results}
    assert against["sources kept"] == BASELINE
    assert against["upper half, prefix run once"] == UPPER_BASELINE


def test_the_command_writes_its_table(tmp_path, capsys):
    sizes = "--hidden-size 64 --layers 2 --vocab-size 500 --batch-size 2 --length 32"
    options = [*sizes.split(), "--supervised", "16", "--rounds", "1", "--output", str(tmp_path)]
    main([*options, "--ways", "sources kept"])
    assert "sources kept" in capsys.readouterr().out
    written = json.loads((tmp_path / "step.json").read_text())
    assert [result["name"] for result in written["results"]] == [BASELINE, "sources kept"]


def peak_of(step) -> int:
    step()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    step()
    return mx.get_peak_memory() - before


@pytest.mark.slow
@pytest.mark.parametrize("keep", [Keep.SOURCES, Keep.ATTENTION, Keep.INPUT])
def test_no_order_of_evaluation_makes_many_layers_again_at_once(keep):
    """Without the chain of `lora_product` the largest peak here is a multiple of the smallest."""
    sizes = SMALL | {"width": 128, "layers": 8, "length": 128, "supervised": 8}
    material = Material.random(**sizes, dropout=0.05)
    peaks = [peak_of(mlx_yoda(material, keep, order=order)) for order in ORDERS]
    assert max(peaks) < 1.3 * min(peaks)
