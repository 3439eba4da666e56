"""Choosing targets: names, regular expressions, and errors that help."""

from itertools import combinations

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models import llama, phi3

from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.errors import UserError
from mlx_yoda.lora.inject import disabled, inject, lora_layers, remove
from mlx_yoda.lora.layer import LoRALinear

KEY = mx.random.key(0)


def tiny_phi3(layers: int = 2, bits: int | None = None) -> nn.Module:
    model = phi3.Model(
        phi3.ModelArgs(
            model_type="phi3",
            hidden_size=64,
            num_hidden_layers=layers,
            intermediate_size=96,
            num_attention_heads=4,
            rms_norm_eps=1e-5,
            vocab_size=100,
        )
    )
    if bits:
        nn.quantize(model, 32, bits)
    model.freeze()
    return model


def tiny_llama() -> nn.Module:
    model = llama.Model(
        llama.ModelArgs(
            model_type="llama",
            hidden_size=64,
            num_hidden_layers=2,
            intermediate_size=96,
            num_attention_heads=4,
            num_key_value_heads=2,
            rms_norm_eps=1e-5,
            vocab_size=100,
        )
    )
    model.freeze()
    return model


@pytest.mark.parametrize("bits", [None, 4])
def test_the_default_targets_are_all_of_phi3s_linear_layers(bits):
    model = tiny_phi3(bits=bits)
    layers = inject(model, LoraConfig(), KEY)
    names = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
    assert set(layers) == {f"model.layers.{i}.{name}" for i in range(2) for name in names}
    trainable = {name for name, _ in nn.utils.tree_flatten(model.trainable_parameters())}
    assert trainable == {f"{path}.{ab}" for path in layers for ab in ("lora_A", "lora_B")}
    qkv = layers["model.layers.0.self_attn.qkv_proj"]
    assert qkv.lora_A.shape == (8, 64)
    assert qkv.lora_B.shape == (192, 8)
    assert qkv.scale == 2


def test_initialisation_is_kaiming_uniform_and_reproducible():
    one, two = (inject(tiny_phi3(), LoraConfig(), KEY) for _ in range(2))
    for path, layer in one.items():
        bound = layer.lora_A.shape[1] ** -0.5
        assert mx.array_equal(layer.lora_A, two[path].lora_A)
        assert 0.9 * bound < mx.abs(layer.lora_A).max().item() <= bound
        assert not layer.lora_B.any()
    for layer, other in combinations(one.values(), 2):  # also those of one shape
        assert not mx.array_equal(layer.lora_A[:, :64], other.lora_A[:, :64])


def test_a_new_adapter_changes_nothing_and_can_be_taken_out():
    model = tiny_phi3()
    tokens = mx.array([[1, 2, 3]])
    before = model(tokens)
    layers = inject(model, LoraConfig(), KEY)
    assert mx.allclose(before, model(tokens), atol=1e-6)
    for layer in layers.values():
        layer.lora_B = mx.ones(layer.lora_B.shape)
    changed = model(tokens)
    assert not mx.allclose(before, changed, atol=1e-2)
    with disabled(model):
        assert not lora_layers(model)
        assert mx.array_equal(before, model(tokens))
    with pytest.raises(ZeroDivisionError), disabled(model):  # also where the base's answer fails
        raise ZeroDivisionError
    assert mx.array_equal(changed, model(tokens))
    remove(model)
    assert mx.array_equal(before, model(tokens))


def test_patterns_give_ranks_and_scales_of_their_own():
    config = LoraConfig(
        rank_pattern={"layers.1.mlp.down_proj": 2}, alpha_pattern={"o_proj": 64}, use_rslora=True
    )
    layers = inject(tiny_phi3(), config, KEY)
    assert layers["model.layers.1.mlp.down_proj"].lora_A.shape[0] == 2
    assert layers["model.layers.0.mlp.down_proj"].lora_A.shape[0] == 8
    assert layers["model.layers.1.self_attn.o_proj"].scale == pytest.approx(64 / 8**0.5)
    assert layers["model.layers.1.mlp.down_proj"].scale == pytest.approx(16 / 2**0.5)


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (["o_proj"], 12),
        (r".*layers\.(0|1)\.mlp\..*", 4),
        (["model.layers.3.mlp.down_proj"], 1),
    ],
)
def test_targets_are_names_or_one_regular_expression(targets, count):
    model = tiny_phi3(layers=12)
    layers = inject(model, LoraConfig(target_modules=targets), KEY)
    assert len(layers) == count
    assert list(layers) == list(lora_layers(model))
    assert all(isinstance(layer, LoRALinear) for layer in layers.values())


def test_layer_10_comes_after_layer_2():
    layers = list(inject(tiny_phi3(layers=12), LoraConfig(target_modules=["o_proj"]), KEY))
    assert [int(path.split(".")[2]) for path in layers] == list(range(12))


def test_any_architecture_with_linear_targets_works():
    model = tiny_llama()
    layers = inject(model, LoraConfig(target_modules=["q_proj", "v_proj"]), KEY)
    assert len(layers) == 4


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["q_proj", "v_proj"], "fuses it into qkv_proj"),
        (["o_proj", "up_proj"], "fuses it into gate_up_proj"),
        (["qkv_proj", "nonsense"], "'nonsense' matches no linear layer"),
        (["self_attn"], "is no linear layer"),
        ("nothing.*", "this model: lm_head, down_proj, gate_up_proj, o_proj, qkv_proj."),
    ],
)
def test_a_target_that_matches_nothing_is_an_error_that_helps(targets, said):
    model = tiny_phi3()
    with pytest.raises(UserError) as error:
        inject(model, LoraConfig(target_modules=targets), KEY)
    assert said in str(error.value)
    assert not lora_layers(model)
