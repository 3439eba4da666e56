"""Quantising on load: the bits of a converted folder, with one layer at a time unpacked."""

import json

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten, tree_reduce
from mlx_lm.utils import quantize_model

from benchmarks.random_phi3 import write_random_phi3
from mlx_yoda.config.quantization import packing
from mlx_yoda.config.schema import Quantization
from mlx_yoda.errors import UserError
from mlx_yoda.model.convert import convert
from mlx_yoda.model.inventory import count_parameters
from mlx_yoda.model.load import load, load_lazily
from mlx_yoda.model.quantize import quantize, settle
from tests.model.phi3_configs import PHI

WAYS = [
    Quantization(4, 32),
    Quantization(8, 32),
    Quantization(mode="mxfp4"),
    Quantization(mode="mxfp8"),
    Quantization(mode="nvfp4"),
]
MANY_LAYERS = PHI["Phi-3-mini-4k"] | {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 1000,
}


@pytest.fixture(scope="module")
def many_layers(tmp_path_factory):
    """A narrow Phi-3 of 32 layers, 43 MB in several shards of bfloat16."""
    folder = tmp_path_factory.mktemp("many") / "phi3"
    write_random_phi3(folder, MANY_LAYERS, dtype="bfloat16", shard_bytes=8 << 20)
    assert len(list(folder.glob("*.safetensors"))) > 4
    return folder


def same(ours, theirs):
    ours, theirs = dict(tree_flatten(ours.parameters())), dict(tree_flatten(theirs.parameters()))
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype
        assert mx.array_equal(array, theirs[name]), name


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_it_is_what_converting_and_loading_gives(base_folder, tmp_path, way, dtype):
    convert(base_folder, tmp_path / "q", quantization=way, dtype=dtype)
    loaded = load(base_folder, quantization=way, dtype=dtype)
    converted = load(tmp_path / "q")
    same(loaded.model, converted.model)
    assert loaded.config["quantization"] == converted.config["quantization"]
    assert loaded.config["quantization"] == packing(way)._asdict()


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_it_is_what_mlx_lm_makes_of_all_layers_at_once(base_folder, way):
    theirs, config = load_lazily(base_folder, None, False)
    theirs, config = quantize_model(theirs, config, *packing(way))
    ours = load(base_folder, quantization=way)
    same(ours.model, theirs)
    assert ours.config["quantization"] == config["quantization"]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_it_counts_as_many_parameters_as_before(base_folder, our_base, way):
    packed = load(base_folder, quantization=way)
    assert count_parameters(packed.model) == count_parameters(our_base.model)


def load_peak(folder, **options):
    """The loaded weights, and the most that MLX held while loading them, in bytes."""
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    model = load_without_tokenizer(folder, **options)
    peak = mx.get_peak_memory() - before
    return tree_reduce(lambda total, array: total + array.nbytes, model.parameters(), 0), peak


def load_without_tokenizer(folder, quantization=None, dtype=None):
    model, config = load_lazily(folder, dtype, False)
    if quantization:
        quantize(model, config, quantization, folder)
    settle(model)
    return model


@pytest.mark.parametrize("bits", [4, 8])  # the others are made of many operations on the CPU
def test_one_layer_at_a_time_is_unpacked(many_layers, bits):
    weights, peak = load_peak(many_layers, quantization=Quantization(bits))
    assert weights < (bits + 0.6) / 16 * 43e6
    assert weights < peak < 1.3 * weights


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_weights_are_in_memory_once(many_layers, dtype):
    weights, peak = load_peak(many_layers, dtype=dtype)
    assert weights >= 43e6
    assert peak < weights + 2e6


def test_converting_holds_no_more(many_layers, tmp_path, monkeypatch):
    monkeypatch.setattr("mlx_yoda.model.convert.load_tokenizer_in", lambda *_: FakeTokenizer())
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    convert(many_layers, tmp_path / "q", quantization=Quantization(4))
    size = (tmp_path / "q" / "model.safetensors").stat().st_size
    assert mx.get_peak_memory() - before < 1.3 * size


class FakeTokenizer:
    def save_pretrained(self, folder):
        """There is none in a random model."""


def test_what_no_group_size_divides_stays_as_it_is(base_folder):
    model = load(base_folder, quantization=Quantization(4, 32)).model
    assert isinstance(model.layers[0].mlp.gate_up_proj, nn.QuantizedLinear)  # 32 wide
    assert not isinstance(model.layers[0].mlp.down_proj, nn.QuantizedLinear)  # 48 wide


def test_what_another_group_size_divides_is_refused(base_folder):
    with pytest.raises(UserError, match=r"32 wide, which groups of 64 .* take a group_size of 32"):
        load(base_folder, quantization=Quantization(4))


@pytest.mark.parametrize("key", ["quantization", "quantization_config"])
def test_a_quantised_base_is_not_quantised_again(base_folder, tmp_path, key):
    convert(base_folder, tmp_path / "q", quantization=Quantization(8, 32))
    file = tmp_path / "q" / "config.json"
    config = json.loads(file.read_text())
    del config["quantization_config" if key == "quantization" else "quantization"]
    config["quantization"] = config[key]
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"quantised already: leave model.quantization out"):
        load(tmp_path / "q", quantization=Quantization(4, 32))


def test_an_architecture_s_own_choice_is_kept():
    class Chosen(nn.Module):
        def __init__(self):
            super().__init__()
            self.router, self.gate, self.wide = (nn.Linear(64, 64) for _ in range(3))

        @property
        def quant_predicate(self):
            return lambda path, _: {"router": {"group_size": 64, "bits": 8}, "gate": False}.get(
                path, True
            )

    model = Chosen()
    config = quantize(model, {}, Quantization(4), "here")
    assert (model.router.bits, model.wide.bits) == (8, 4)
    assert not isinstance(model.gate, nn.QuantizedLinear)
    assert config["quantization"]["router"] == {"group_size": 64, "bits": 8}


def test_the_allocator_s_cache_is_bounded_as_before(base_folder):
    before = mx.set_cache_limit(12345)
    load(base_folder, quantization=Quantization(4, 32))
    assert mx.set_cache_limit(before) == 12345
