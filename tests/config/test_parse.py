"""Configuration from YAML, --set and options: every field arrives, every mistake is named."""

import copy
import pickle
from dataclasses import FrozenInstanceError, asdict, fields, replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.config import Config, LoraConfig
from mlx_yoda.config.parse import load_config, to_yaml
from mlx_yoda.config.values import expected
from mlx_yoda.errors import UserError

# A value for each field that is not its default.
OTHER: dict[str, Any] = {
    "model.model_name_or_path": "some/model",
    "model.model_revision": "v2",
    "model.dtype": "float16",
    "model.quantization": {"bits": 8, "group_size": 32, "mode": "affine"},
    "model.trust_remote_code": True,
    "lora.r": 3,
    "lora.lora_alpha": 5.5,
    "lora.lora_dropout": 0.25,
    "lora.target_modules": ["o_proj"],
    "lora.exclude_modules": ["down_proj"],
    "lora.layers_to_transform": [1, 2],
    "lora.use_rslora": True,
    "lora.use_dora": True,
    "lora.init_lora_weights": "pissa",
    "model.init_adapter": "a/b",
    "train.loraplus_lr_ratio": 16.0,
    "lora.rank_pattern": {"o_proj": 4},
    "lora.alpha_pattern": {"o_proj": 8.5},
    "data.dataset_name": "rows.csv",
    "data.dataset_config": "english",
    "data.prompt_column": "question",
    "data.completion_column": "answer",
    "data.messages_column": "chat",
    "data.text_column": "story",
    "data.train_on": "all",
    "data.validation_split": 0.125,
    "data.max_length": 64,
    "data.packing": "best_fit",
    "train.output_dir": "elsewhere",
    "train.num_train_epochs": 1.5,
    "train.max_steps": 7,
    "train.per_device_train_batch_size": 3,
    "train.per_device_eval_batch_size": 5,
    "train.gradient_accumulation_steps": 2,
    "train.auto_find_batch_size": False,
    "train.gradient_checkpointing": True,
    "train.learning_rate": 1e-5,
    "train.lr_scheduler_type": "cosine",
    "train.warmup_steps": 9,
    "train.warmup_ratio": 0.1,
    "train.weight_decay": 0.01,
    "train.adam_beta1": 0.8,
    "train.adam_beta2": 0.95,
    "train.adam_epsilon": 1e-6,
    "train.max_grad_norm": 0.5,
    "train.logging_steps": 1,
    "train.eval_strategy": "steps",
    "train.eval_steps": 11,
    "train.save_strategy": "steps",
    "train.save_steps": 22,
    "train.save_total_limit": None,
    "train.stop_on_save_error": True,
    "train.load_best_model_at_end": True,
    "train.metric_for_best_model": "eval_perplexity",
    "train.greater_is_better": True,
    "train.early_stopping_patience": 3,
    "train.early_stopping_threshold": 0.25,
    "train.report_to": ["tensorboard", "wandb"],
    "train.run_name": "first",
    "train.project": "jedi",
    "train.predict_with_generate": True,
    "train.generation_max_new_tokens": 17,
    "train.compile": False,
    "train.seed": 1,
}
ONE_VALUE = {"lora.bias", "lora.task_type", "train.optim"}  # nothing else is supported


def keys() -> list[str]:
    config = Config()
    return [f"{s.name}.{f.name}" for s in fields(config) for f in fields(getattr(config, s.name))]


def value_of(config: Config, key: str) -> Any:
    section, name = key.split(".")
    return asdict(config)[section][name]


@pytest.mark.parametrize("key", sorted(set(keys()) - ONE_VALUE))
@pytest.mark.parametrize("way", ["file", "set", "option"])
def test_every_field_arrives(tmp_path, key, way):
    value = OTHER[key]
    assert value != value_of(Config(), key)
    section, name = key.split(".")
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({section: {name: value}}))
    if way == "file":
        config = load_config(file)
    elif way == "set":
        written = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n")
        config = load_config(None, [f"{key}={written}"])
    else:
        config = load_config(None, options={key: value})
    assert value_of(config, key) == value
    assert all(value_of(config, k) == value_of(Config(), k) for k in keys() if k != key)


def test_what_is_set_is_known_even_if_it_is_the_default(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("lora:\n  r: 8\ntrain:\n  output_dir: there\n")
    options = {"train.seed": 42, "model.quantization": 4}
    config = load_config(file, ["lora.lora_dropout=0.05", "model.quantization.bits=4"], options)
    assert config.lora.fields_set == {"r", "lora_dropout"}
    assert config.train.fields_set == {"output_dir", "seed"}
    assert config.model.fields_set == {"quantization"}
    assert config.data.fields_set == Config().data.fields_set == set()


def test_what_is_set_is_no_part_of_a_section():
    set_, left, positional = LoraConfig(r=8), LoraConfig(), LoraConfig(8, lora_alpha=16)
    assert set_ == left == positional
    assert (repr(set_), asdict(set_)) == (repr(left), asdict(left))
    assert positional.fields_set == {"r", "lora_alpha"}
    assert copy.deepcopy(set_).fields_set == pickle.loads(pickle.dumps(set_)).fields_set == {"r"}
    with pytest.raises(FrozenInstanceError):
        set_.fields_set = frozenset()  # type: ignore[misc]


def test_options_win_over_set_and_set_over_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("lora:\n  r: 2\n  lora_alpha: 3\n  lora_dropout: 0.5\n")
    config = load_config(file, ["lora.r=4", "lora.lora_alpha=5"], {"lora.r": 6})
    assert (config.lora.r, config.lora.lora_alpha, config.lora.lora_dropout) == (6, 5, 0.5)


def test_no_is_a_word_where_a_word_is_wanted(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("train:\n  eval_strategy: no\n")
    assert load_config(file).train.eval_strategy == "no"
    assert load_config(None, ["train.save_strategy=no"]).train.save_strategy == "no"


def test_numbers_that_yaml_reads_as_text():
    assert load_config(None, ["train.learning_rate=1e-5"]).train.learning_rate == 1e-5


@pytest.mark.parametrize(("written", "means"), [("true", "concat"), ("false", "none")])
def test_the_notebooks_packing(written, means):
    assert load_config(None, [f"data.packing={written}"]).data.packing == means


def test_all_fields_at_once_survive_yaml(tmp_path):
    config = load_config(None, options=OTHER)
    file = tmp_path / "run.yaml"
    file.write_text(to_yaml(config))
    assert load_config(file) == config


@given(
    st.text(min_size=1, max_size=20),
    st.floats(1e-9, 1e3),
    st.dictionaries(st.text(max_size=9), st.integers(1, 99), max_size=3),
    st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=3),
)
def test_any_text_and_number_survive_yaml(tmp_path_factory, text, number, ranks, names):
    base = Config()
    config = replace(
        base,
        model=replace(base.model, model_name_or_path=text),
        train=replace(base.train, learning_rate=number),
        lora=replace(base.lora, rank_pattern=ranks, target_modules=names),
    )
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(file) == config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lora.rr=1", "there is no key lora.rr; did you mean lora.r"),
        ("train.max_length=3", "it is called data.max_length here"),
        ("train.max_seq_length=3", "it is called data.max_length here"),
        ("train.evaluation_strategy=epoch", "it is called train.eval_strategy here"),
        ("lorra.r=1", "did you mean the section lora"),
        ("lora=1", "there is no key lora"),
        ("lora.r", "write it as section.key=value"),
        ("lora.r=[1", "must be a whole number, not [1"),
        ("lora.r=true", "must be a whole number, not true"),
        ("lora.r=1.5", "must be a whole number, not 1.5"),
        ("lora.r=0", "lora.r must be from 1 to 65536, not 0"),
        ("lora.lora_dropout=1", "must be from 0 to below 1"),
        ("lora.bias=all", "must be none"),
        ("lora.rank_pattern={a: b}", "a mapping from names to whole numbers"),
        ("train.learning_rate=.nan", "must be a finite number, not .nan"),
        ("train.learning_rate=1e999", "must be a finite number"),
        ("train.learning_rate=0", "must be above 0"),
        ("train.seed=-1", "must be from 0 to below 2**64"),
        ("lora.r=99999999999999999999", "must be from 1 to 65536"),
        ("train.max_steps=99999999999", "must be below 2147483648"),
        ("train.num_train_epochs=1e300", "must be above 0 and at most 1000000"),
        ("train.learning_rate=1e999", "must be a finite number"),
        ("train.learning_rate=.nan", "must be a finite number"),
        ("train.learning_rate=-inf", "must be a finite number"),
        ("train.gradient_checkpointing=maybe", "must be true, false or auto"),
        ("data.packing=tight", "none, concat or best_fit"),
        ("train.max_steps=0", "must be 1 or more, or -1"),
    ],
)
def test_mistakes_are_named(override, said):
    with pytest.raises(UserError) as error:
        load_config(None, [override])
    assert said in str(error.value)
    assert override.split("=")[0].split(".")[0] in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lora:\n  r: 8\n  r: 9\n", ":3: r is there already, on line 2"),
        ("lora:\n  r: 8\nlora:\n  r: 9\n", ":3: lora is there already, on line 1"),
        ("lora: &a {r: 1}\ntrain: *a\n", "2 is broken YAML: aliases, such as *a, are not read"),
        ("lora: 3\n", ":1: lora must hold keys and values"),
        ("- lora\n", ":1: the file must hold keys and values"),
        ("lora:\n  r: !!python/object:os.system {}\n", ":2: lora.r: YAML's tags"),
        ("lora:\n  r: [\n", "is broken YAML"),
        ("train:\n\n  learning_rat: 1\n", ":3: there is no key train.learning_rat"),
        ("? [a]\n: 1\n", "a key must be a name"),
        ("\x00", "is broken YAML"),
    ],
)
def test_mistakes_in_a_file_have_a_line(tmp_path, text, said):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        load_config(file)
    assert said in str(error.value)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("text", ["", "lora:\n", "# nothing\n", "lora: {}\n"])
def test_what_is_left_out_is_the_default(tmp_path, text):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    assert load_config(file) == Config()


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match="there is no configuration file"):
        load_config(tmp_path / "none.yaml")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    st.sampled_from(keys()),
)
def test_any_value_is_taken_or_refused_in_a_sentence(value, key):
    try:
        config = load_config(None, options={key: value})
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(config, Config)


def test_every_type_has_words():
    config = Config()
    for section in fields(config):
        for field in fields(getattr(config, section.name)):
            assert expected(field.type)
            assert field.metadata["help"].endswith(".")
