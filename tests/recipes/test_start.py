"""Where training starts: new layers, or those of an adapter of PEFT or of mlx-lm."""

import json
from dataclasses import replace

import mlx.core as mx
import pytest

from mlx_yoda.config.parse import load_config
from mlx_yoda.config.schema import Config, LoraConfig, ModelConfig, TrainConfig
from mlx_yoda.errors import UserError
from mlx_yoda.lora.binding import adapter_of
from mlx_yoda.recipes.export import export
from mlx_yoda.recipes.respond import read_adapter
from mlx_yoda.recipes.start import model_to_train, notes_on, parameters

KEYS = {"r": 3, "lora_alpha": 9, "target_modules": ["o_proj", "qkv_proj"], "use_rslora": True}
OURS = "lora.lora_dropout"


@pytest.fixture
def configured(base_folder):
    def make(adapter=None, **lora):
        model = ModelConfig(
            str(base_folder), init_adapter=None if adapter is None else str(adapter)
        )
        return Config(model=model, lora=LoraConfig(**lora))

    return make


def same(one, other):
    return one.keys() == other.keys() and all(
        mx.array_equal(one[path][name], other[path][name]) for path in one for name in one[path]
    )


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("kind", ["peft", "mlx-lm"])
def test_an_adapter_is_gone_on_from_bit_for_bit(configured, make_adapter, tmp_path, kind, dora):
    source = make_adapter(**KEYS, use_dora=dora, lora_dropout=0.25)
    stored = read_adapter(str(source))
    if kind == "mlx-lm":
        export(str(source), tmp_path / "mlx", "mlx-lm", ModelConfig(), base_of_adapter=True)
        source = tmp_path / "mlx"
    config, _, layers = model_to_train(configured(source))
    assert config.lora == stored.lora  # dropout too, where none is configured
    assert same(adapter_of(layers), stored.weights())
    config, _, layers = model_to_train(configured(source, lora_dropout=0.5, r=3))
    assert config.lora == replace(stored.lora, lora_dropout=0.5)
    assert {layer.dropout for layer in layers.values()} == {0.5}
    again, _, _ = model_to_train(replace(config, model=configured(source).model))
    assert again == config  # config.yaml of the run repeats it


@pytest.mark.parametrize("way", ["file", "set", "option", "python"])
def test_a_dropout_that_is_the_default_holds_if_it_is_set(base_folder, make_adapter, tmp_path, way):
    source = make_adapter(**KEYS, lora_dropout=0.5)
    options = {"model.model_name_or_path": str(base_folder), "model.init_adapter": str(source)}
    assert model_to_train(load_config(None, (), options))[0].lora.lora_dropout == 0.5
    file = tmp_path / "run.yaml"
    file.write_text("lora:\n  lora_dropout: 0.05\n" if way == "file" else "")
    overrides = ["lora.lora_dropout=0.05"] if way == "set" else []
    config = load_config(file, overrides, options | ({OURS: 0.05} if way == "option" else {}))
    if way == "python":
        config = replace(config, lora=LoraConfig(lora_dropout=0.05))
    config, _, layers = model_to_train(config)
    assert config.lora.lora_dropout == 0.05
    assert {layer.dropout for layer in layers.values()} == {0.05}


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"r": 4}, "lora.r is 4, but the adapter .* has 3"),
        ({"target_modules": ["down_proj"]}, "lora.target_modules"),
        ({"use_dora": True}, "lora.use_dora"),
        ({"init_lora_weights": "pissa"}, "lora.init_lora_weights"),
        # Set to the default, which is not the adapter's either.
        ({"r": 8}, "lora.r is 8, but the adapter .* has 3"),
        ({"use_rslora": False}, "lora.use_rslora is False, but the adapter .* has True"),
        ({"target_modules": LoraConfig().target_modules}, "lora.target_modules"),
    ],
)
def test_settings_that_are_not_the_adapters_are_refused(configured, make_adapter, lora, message):
    with pytest.raises(UserError, match=message):
        model_to_train(configured(make_adapter(**KEYS), **lora))


def test_an_adapter_of_another_model_is_refused(make_adapter):
    model = ModelConfig("demo", init_adapter=str(make_adapter(**KEYS)))
    with pytest.raises(UserError, match="made for another model"):
        model_to_train(Config(model=model))


def test_an_adapter_that_cannot_learn_is_refused(configured, make_adapter):
    """PEFT loads an alpha of 0; then nothing that is trained counts."""
    source = make_adapter(r=2, lora_alpha=0, target_modules=["o_proj"])
    with pytest.raises(UserError, match=r"has lora\.lora_alpha 0, but to train it must be above 0"):
        model_to_train(configured(source))


@pytest.mark.parametrize(
    ("dora", "dropout", "said"), [(True, 0.05, 1), (True, 0.0, 0), (False, 0.05, 0)]
)
def test_doras_dropout_is_said_to_be_another_than_pefts(dora, dropout, said):
    notes = notes_on(LoraConfig(use_dora=dora, lora_dropout=dropout))
    assert len(notes) == said
    assert all("PEFT" in note and "lora_dropout 0.05" in note for note in notes)


def test_weight_decay_is_refused_with_pissa(configured):
    config = replace(configured(init_lora_weights="pissa"), train=TrainConfig(weight_decay=0.1))
    with pytest.raises(UserError, match=r"train\.weight_decay"):
        model_to_train(config)


def test_an_mlx_lm_adapter_without_our_settings_is_read(configured, make_adapter, tmp_path):
    """As mlx-lm's own trainer writes it."""
    source = make_adapter(**KEYS | {"use_rslora": False})
    export(str(source), tmp_path / "mlx", "mlx-lm", ModelConfig(), base_of_adapter=True)
    file = tmp_path / "mlx" / "adapter_config.json"
    config = json.loads(file.read_text())
    del config["peft_config"]
    config["lora_parameters"]["keys"] = ["self_attn.qkv_proj", "self_attn.o_proj"]
    file.write_text(json.dumps(config))
    found, _, layers = model_to_train(configured(tmp_path / "mlx"))
    assert (found.lora.r, found.lora.lora_alpha) == (3, 9)
    assert (found.lora.target_modules, found.lora.layers_to_transform) == (
        ["o_proj", "qkv_proj"], [0, 1]
    )  # fmt: skip
    assert same(adapter_of(layers), read_adapter(str(source)).weights())


def test_of_pissas_parameters_those_count_that_train(configured):
    counts = []
    for method in (True, "pissa"):
        config, base, _ = model_to_train(configured(init_lora_weights=method))
        counts.append(parameters(config, base))
    assert counts[0] == counts[1]
