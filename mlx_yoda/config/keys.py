"""The keys of the configuration, as the schema has them, and help with a key that is none."""

from dataclasses import MISSING, Field, dataclass, fields
from difflib import get_close_matches
from functools import cache
from typing import Any, get_type_hints

from mlx_yoda.config.schema import Config

# What other programs, the notebook's among them, call our keys.
_ELSEWHERE = {
    "alpha": "lora.lora_alpha",
    "assistant_only_loss": "data.train_on",
    "batch_size": "train.per_device_train_batch_size",
    "completion_only_loss": "data.train_on",
    "dataset_text_field": "data.text_column",
    "dropout": "lora.lora_dropout",
    "epochs": "train.num_train_epochs",
    "evaluation_strategy": "train.eval_strategy",
    "grad_accumulation_steps": "train.gradient_accumulation_steps",
    "grad_checkpoint": "train.gradient_checkpointing",
    "iters": "train.max_steps",
    "load_in_4bit": "model.quantization={bits: 4}",
    "load_in_8bit": "model.quantization={bits: 8}",
    "lora_r": "lora.r",
    "lora_target_modules": "lora.target_modules",
    "lr": "train.learning_rate",
    "max_new_tokens": "train.generation_max_new_tokens",
    "max_seq_length": "data.max_length",
    "model_id": "model.model_name_or_path",
    "model_name": "model.model_name_or_path",
    "num_epochs": "train.num_train_epochs",
    "q_bits": "model.quantization={bits: 4}",
    "q_group_size": "model.quantization={bits: 4, group_size: 64}",
    "q_mode": "model.quantization={mode: mxfp4}",
    "quantization_config": "model.quantization",
    "quantize": "model.quantization",
    "rank": "lora.r",
    "revision": "model.model_revision",
    "torch_dtype": "model.dtype",
}


@dataclass(frozen=True)
class Key:
    """One thing that can be configured.

    Attributes:
        section: `model`, `lora`, `data` or `train`.
        name: the field's name, unique over all sections.
        annotation: the field's type.
        default: its default value.
        help: its one-line help.
    """

    section: str
    name: str
    annotation: Any
    default: Any
    help: str

    @property
    def path(self) -> str:
        """The key in full: `lora.r`."""
        return f"{self.section}.{self.name}"


@cache
def sections() -> dict[str, type]:
    """Section name → its dataclass, in the schema's order."""
    return get_type_hints(Config)


@cache
def keys() -> dict[str, Key]:
    """Full name → key, in the schema's order."""
    found = {}
    for section, cls in sections().items():
        annotations = get_type_hints(cls)
        for field in fields(cls):
            help = field.metadata["help"]
            key = Key(section, field.name, annotations[field.name], _default(field), help)
            found[key.path] = key
    return found


def advice(section: str | None, name: str) -> str:
    """What to say about a key that does not exist: where it belongs, or what it may be.

    Args:
        section: the section it was looked for in; None for the top level.
        name: the unknown name.
    """
    elsewhere = [key.path for key in keys().values() if key.name == name]
    if elsewhere or name in _ELSEWHERE:
        ours = elsewhere[0] if elsewhere else _ELSEWHERE[name]
        return f"write {ours}" if "=" in ours else f"it is called {ours} here"
    if section is None and (near := get_close_matches(name, sections(), n=1)):
        return f"did you mean the section {near[0]}"
    of_section = [key.name for key in keys().values() if key.section == section]
    candidates = {key.name: key.path for key in keys().values() if key.name not in of_section}
    candidates |= {own: f"{section}.{own}" for own in of_section}
    near = get_close_matches(name, of_section, n=1) or get_close_matches(name, candidates, n=1)
    if near:
        return f"did you mean {candidates[near[0]]}"
    if section is None:
        return f"the sections are {', '.join(sections())}"
    return f"the keys of {section} are {', '.join(of_section)}"


def _default(field: Field) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default
