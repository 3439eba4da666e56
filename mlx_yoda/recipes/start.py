"""The model to train: the base with LoRA layers in it, new ones or those of an adapter."""

from dataclasses import replace

import mlx.core as mx

from mlx_yoda.config.checks import problems
from mlx_yoda.config.schema import Config, LoraConfig, ModelConfig
from mlx_yoda.errors import UserError
from mlx_yoda.generation import attach
from mlx_yoda.lora.binding import Layers
from mlx_yoda.lora.inject import inject
from mlx_yoda.model.inventory import count_parameters
from mlx_yoda.model.load import Loaded, load
from mlx_yoda.recipes.respond import read_adapter
from mlx_yoda.recipes.sizing import check_base


def model_to_train(config: Config) -> tuple[Config, Loaded, Layers]:
    """Load the base and put the layers in it that will train.

    Returns:
        The configuration, with the LoRA settings of `model.init_adapter` if there is one, the
        base, and path → layer.

    Raises:
        UserError: one of them cannot be loaded, or they do not fit together.
    """
    if config.lora.init_lora_weights is not True and config.train.weight_decay:
        raise UserError(
            "train.weight_decay pulls A and B to zero, and with PiSSA (lora.init_lora_weights) "
            "that is away from the base: set it to 0."
        )
    source = config.model.init_adapter
    if source is None:
        check_base(config)
        base = load_base(config.model)
        return config, base, inject(base.model, config.lora, mx.random.key(config.train.seed))
    adapter = read_adapter(source)
    config = replace(config, lora=_continued(config.lora, adapter.lora))
    for key, wanted in problems(config):
        section, name = key.split(".")
        raise UserError(
            f"the adapter that model.init_adapter names has {key} "
            f"{getattr(getattr(config, section), name)!r}, but to train it must be {wanted}."
        )
    check_base(config)
    base = load_base(config.model)
    return config, base, attach(base.model, replace(adapter, lora=config.lora))


def parameters(config: Config, base: Loaded) -> tuple[int, int]:
    """Count `(trainable, total)` parameters; of PiSSA's A and B only one half trains."""
    trainable, total = count_parameters(base.model)
    still = 0 if config.lora.init_lora_weights is True else trainable // 2
    return trainable - still, total - still


def notes_on(lora: LoraConfig) -> list[str]:
    """What a user of other programs would expect to be otherwise."""
    if not (lora.use_dora and lora.lora_dropout > 0):
        return []
    return [
        f"DoRA with lora_dropout {lora.lora_dropout:g}: dropout falls on the input of the low-rank "
        "branch alone; PEFT's falls on a part of the base's product too, so that its training "
        "differs (with lora_dropout 0 it does not)"
    ]


def load_base(model: ModelConfig) -> Loaded:
    """Load the base as it is configured.

    Raises:
        UserError: it cannot be loaded.
    """
    return load(
        model.model_name_or_path,
        revision=model.model_revision,
        dtype=model.dtype,
        quantization=model.quantization,
        trust_remote_code=model.trust_remote_code,
    )


def _continued(wanted: LoraConfig, theirs: LoraConfig) -> LoraConfig:
    """The adapter's settings; dropout, which is the run's alone, may be set anew.

    Raises:
        UserError: a setting is given that is not the adapter's.
    """
    changed = "lora_dropout" in wanted.fields_set
    for name in sorted(wanted.fields_set - {"lora_dropout"}):
        value, found = getattr(wanted, name), getattr(theirs, name)
        if _sorted(value) != _sorted(found):
            raise UserError(
                f"lora.{name} is {value!r}, but the adapter that model.init_adapter names has "
                f"{found!r}, which cannot change: leave lora.{name} out."
            )
    return replace(theirs, lora_dropout=wanted.lora_dropout) if changed else theirs


def _sorted(value: object) -> object:
    return sorted(value) if isinstance(value, list) else value
