"""Our matching rules beside PEFT's own functions."""

import re
import time
import warnings
from itertools import count
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig as PeftLoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from mlx_yoda.config import lora_names
from mlx_yoda.config.lora_names import matches_target, pattern_value
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.errors import UserError
from tests.machine import within

NAMES = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head", "proj"]
PATHS = [
    "lm_head",
    "qkv_proj",
    "model.norm",
    "model.layers.0.self_attn.qkv_proj",
    "model.layers.1.self_attn.o_proj",
    "model.layers.2.mlp.gate_up_proj",
    "model.layers.12.mlp.down_proj",
    "model.layers.1.experts.0.down_proj",
    "layers.0.self_attn.qkv_proj",
    "model.layers.0.self_attn.my_qkv_proj",
]
EXPRESSIONS = [
    r".*proj",
    r"model\.layers\.[01]\..*",
    r"proj",
    r".*\.(qkv|o)_proj",
    r"",
    r"layers.1.self_attn.o_proj",
    r"down_proj|qkv_proj",
    r"model\.layers\.\d+",
]

parts = st.sampled_from(["model", "layers", "0", "1", "12", "self_attn", "experts", *NAMES])
paths = st.one_of(
    st.sampled_from(PATHS),
    st.lists(parts, min_size=1, max_size=6).map(".".join),
)
expressions = st.sampled_from(EXPRESSIONS)
name_lists = st.lists(st.one_of(st.sampled_from(NAMES), paths), min_size=1, max_size=3)
layer_choices = st.one_of(st.none(), st.integers(0, 12), st.lists(st.integers(0, 12), max_size=3))


@given(
    path=paths,
    targets=name_lists,
    exclude=st.one_of(st.none(), expressions, name_lists),
    layers=layer_choices,
)
def test_lists_of_names_match_as_in_peft(path, targets, exclude, layers):
    theirs = PeftLoraConfig(
        target_modules=targets, exclude_modules=exclude, layers_to_transform=layers
    )
    ours = LoraConfig(target_modules=targets, exclude_modules=exclude, layers_to_transform=layers)
    assert matches_target(path, ours) == bool(check_target_module_exists(theirs, path))


@given(path=paths, targets=expressions, exclude=st.one_of(st.none(), expressions, name_lists))
def test_regular_expressions_match_as_in_peft(path, targets, exclude):
    theirs = PeftLoraConfig(target_modules=targets, exclude_modules=exclude)
    ours = LoraConfig(target_modules=targets, exclude_modules=exclude)
    assert matches_target(path, ours) == bool(check_target_module_exists(theirs, path))


@given(
    path=paths,
    pattern=st.dictionaries(st.one_of(expressions, paths), st.integers(1, 64), max_size=4),
)
def test_ranks_and_alphas_are_looked_up_as_in_peft(path, pattern):
    theirs = pattern.get(get_pattern_key(pattern.keys(), path), 8)
    assert pattern_value(path, pattern, 8) == theirs


def test_exclusion_excludes():
    config = LoraConfig(target_modules=["o_proj"], exclude_modules=r".*\.1\..*")
    assert matches_target("model.layers.0.self_attn.o_proj", config)
    assert not matches_target("model.layers.1.self_attn.o_proj", config)


def test_chosen_layers_are_chosen():
    config = LoraConfig(target_modules=["o_proj"], layers_to_transform=[1])
    assert matches_target("model.layers.1.self_attn.o_proj", config)
    assert not matches_target("model.layers.11.self_attn.o_proj", config)


def test_a_broken_expression_is_the_users_error():
    with pytest.raises(UserError, match=r"target_modules: '\(proj'"):
        matches_target("model.o_proj", LoraConfig(target_modules="(proj"))
    with pytest.raises(UserError, match="rank_pattern"):
        pattern_value("model.o_proj", {"(proj": 4}, 8)


def test_layers_beside_an_expression_are_refused_as_in_peft():
    with pytest.raises(ValueError, match="layers_to_transform"):
        PeftLoraConfig(target_modules=".*proj", layers_to_transform=[0])
    with pytest.raises(UserError, match="layers_to_transform"):
        matches_target("model.o_proj", LoraConfig(target_modules=".*proj", layers_to_transform=[0]))


@given(expression=st.text("ab.*+?()[]|^$\\d{1,}i:!=<", max_size=12), path=paths | st.text("ab.1\n"))
def test_any_expression_means_what_it_means_to_python(expression, path):
    config = LoraConfig(target_modules=expression)
    with warnings.catch_warnings(action="ignore"):
        try:
            wanted = re.compile(expression).fullmatch(path) is not None
        except (re.error, OverflowError):
            with pytest.raises(UserError, match="is not a regular expression Python can read"):
                matches_target(path, config)
            return
    assert matches_target(path, config) == wanted


@pytest.mark.parametrize("key", ["target_modules", "exclude_modules", "rank_pattern"])
@pytest.mark.parametrize("expression", [r"(\w|\w\w|\.)*[!?]", r"(.|..|...)*[^a-z]"])
def test_an_expression_that_would_take_for_ever_is_stopped(key, expression):
    path = PATHS[3] * 3
    with within(20), pytest.raises(UserError, match=f"lora.{key}.*takes too long"):
        if key == "rank_pattern":
            pattern_value(path, {"no": 1, expression: 2, "else": 3}, 4)
        else:
            matches_target(path, LoraConfig(**{"target_modules": ".*", key: expression}))


def test_a_machine_that_is_busy_is_not_taken_for_an_endless_expression(monkeypatch):
    """Between any two looks at the clock an hour goes by, in which others compute."""
    clock = SimpleNamespace(monotonic=count(0, 3600).__next__, process_time=time.process_time)
    monkeypatch.setattr(lora_names, "time", clock)
    config = LoraConfig(target_modules=r".*\.o_proj", exclude_modules="no", rank_pattern={"o.*": 2})
    assert matches_target(PATHS[3], config) == PATHS[3].endswith(".o_proj")
    assert pattern_value(f"a.{NAMES[1]}", config.rank_pattern, 4) == 2
    listed = LoraConfig(target_modules=["o_proj"], layers_to_transform=[1])
    assert matches_target("model.h.1.o_proj", listed, ["h"])


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 5000 + ")" * 5000,
        "(?:" * 300 + ")" * 300,
        "a{99999999999999999999}",
        "a" * 10**6,
        "[[",
    ],
)
def test_an_expression_that_python_cannot_take_is_one_sentence(expression):
    with pytest.raises(UserError, match="is not a regular expression Python can read") as error:
        matches_target(PATHS[3], LoraConfig(target_modules=expression))
    assert len(str(error.value)) < 300
