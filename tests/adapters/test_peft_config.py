"""adapter_config.json: PEFT reads ours, and we read every key that PEFT writes."""

import json
import warnings

from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig as PeftLoraConfig

from mlx_yoda.adapters.peft_config import from_peft, to_peft
from mlx_yoda.config.schema import LoraConfig

names = st.sampled_from(["qkv_proj", "o_proj", "gate_up_proj", "down_proj"])
name_lists = st.lists(names, min_size=1, unique=True).map(sorted)
configs = st.builds(
    LoraConfig,
    r=st.integers(1, 256),
    lora_alpha=st.one_of(st.integers(1, 512), st.floats(0.1, 100)),
    lora_dropout=st.floats(0, 0.99),
    target_modules=st.one_of(st.just(r".*_proj"), name_lists),
    exclude_modules=st.one_of(st.none(), st.just(r".*\.3\..*"), name_lists),
    use_rslora=st.booleans(),
    use_dora=st.booleans(),
    rank_pattern=st.dictionaries(names, st.integers(1, 64)),
    alpha_pattern=st.dictionaries(names, st.floats(0.1, 64)),
)
chosen_layers = st.one_of(st.integers(0, 31), st.lists(st.integers(0, 31)))


@given(config=configs)
def test_a_configuration_survives_pefts_keys(config):
    assert from_peft(json.loads(json.dumps(to_peft(config, "base", None))), "x") == config


@given(config=configs, layers=chosen_layers)
def test_peft_reads_our_configuration_without_a_warning(tmp_path_factory, config, layers):
    folder = tmp_path_factory.mktemp("peft")
    keys = to_peft(config, "base", "main")
    if not isinstance(config.target_modules, str):
        keys["layers_to_transform"] = layers
    (folder / "adapter_config.json").write_text(json.dumps(keys))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = PeftLoraConfig.from_pretrained(folder)
    targets, exclude = theirs.target_modules, theirs.exclude_modules
    assert theirs.base_model_name_or_path == "base"
    assert theirs.inference_mode
    assert (theirs.r, theirs.lora_alpha) == (config.r, config.lora_alpha)
    assert (theirs.lora_dropout, theirs.use_rslora) == (config.lora_dropout, config.use_rslora)
    assert (theirs.rank_pattern, theirs.alpha_pattern) == (
        config.rank_pattern,
        config.alpha_pattern,
    )
    assert (sorted(targets) if isinstance(targets, set) else targets) == config.target_modules
    assert (sorted(exclude) if isinstance(exclude, set) else exclude) == config.exclude_modules


@given(config=configs)
def test_every_key_that_peft_writes_is_read_or_known_to_be_idle(config):
    theirs = PeftLoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.target_modules,
        exclude_modules=config.exclude_modules,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        rank_pattern=config.rank_pattern,
        alpha_pattern=config.alpha_pattern,
        task_type="CAUSAL_LM",
    )
    keys = {k: sorted(v) if isinstance(v, set) else v for k, v in theirs.to_dict().items()}
    assert from_peft(json.loads(json.dumps(keys)), "x") == config
