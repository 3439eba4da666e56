"""Where a config.json asks for what is not computed here, and what mlx-lm is given of the rest."""

from collections.abc import Callable
from typing import Any

from mlx_lm.models import gemma3

from mlx_yoda.errors import UserError
from mlx_yoda.model.families import FAMILIES, Family
from mlx_yoda.model.gemma import Gemma3Model
from mlx_yoda.model.rotary import Config

_IMAGE_TEXT = "gemma3"  # whose text part is a gemma3_text


def is_checked(config: Config) -> bool:
    """Whether it is known which keys of a config.json are computed here."""
    known = config.get("model_type") in (*FAMILIES, _IMAGE_TEXT)
    return known and config.get("model_file") is None


def departures(config: Config) -> list[str]:
    """What a checked config.json sets that changes Transformers' logits but not ours."""
    family, text, within = _family(config)
    found = []
    for key, values in family.fixed.items():
        value = text.get(key, values[0])
        if value not in values:
            found.append(f"{key} {value!r} ({values[0]!r} is)")
    if not family.own_reader:
        found += family.rotaries(text)[0].departures(family.scalings)
    found += family.layers(text)[1]
    return [within + what for what in found]


def exact_up_to(config: Config) -> tuple[int, str] | None:
    """The longest row that is computed as in Transformers, in tokens, and the key behind it."""
    if not is_checked(config):
        return None
    family, text, within = _family(config)
    found: list[tuple[int, str]] = []
    if window := family.window(text):
        found.append((window, f"{within}sliding_window"))
    if not family.own_reader and family.rotaries(text)[0].kind == "dynamic":
        found.append(
            (_value("max_position_embeddings", family, text), f"{within}rope_type dynamic")
        )
    return min(found, default=None)


def refuse_departures(config: Config, name: str) -> None:
    """Refuse to train what would be another model than in Transformers.

    Raises:
        UserError: config.json sets something that is not computed here.
    """
    if is_checked(config) and (found := departures(config)):
        raise UserError(
            f"{name}: config.json sets {', '.join(found)}, which is not computed here, so an "
            "adapter would be trained for another model: such a model cannot be trained or planned."
        )


def notes(config: Config, name: str) -> list[str]:
    """What a user should know before answers or numbers of a model are relied on."""
    kind = config["model_type"]
    if not is_checked(config):
        return [
            f"The config.json of {name} (model_type {kind}) is not checked: what it sets and "
            "mlx-lm does not know is left out without a word."
        ]
    found = []
    if different := departures(config):
        found.append(
            f"The config.json of {name} sets {', '.join(different)}, which is not computed here: "
            "answers differ from Transformers'."
        )
    _, text, _ = _family(config)
    limit, positions = exact_up_to(config), text.get("max_position_embeddings")
    if limit and limit[1].endswith("sliding_window") and limit[0] < (positions or limit[0]):
        found.append(
            f"Beyond {limit[0]:,} tokens {name} answers otherwise than in Transformers: its "
            "sliding window is not computed here."
        )
    return found


def model_classes(config: Config) -> tuple[type, Any]:
    """The model's class and its arguments' for mlx-lm's loader.

    The loader calls `from_dict` of the latter with config.json, which is read here first.
    """
    if config["model_type"] == _IMAGE_TEXT:
        return Gemma3Model, _Reader(gemma3.ModelArgs, _image_text_arguments)
    family = FAMILIES[config["model_type"]]
    if family.own_reader:
        return family.model, family.args
    return family.model, _Reader(family.args, lambda config: _arguments(family, config))


class _Reader:
    """The arguments of a model as its family reads them from config.json."""

    def __init__(self, args: Any, read: Callable[[Config], dict[str, Any]]) -> None:
        self._args, self._read = args, read

    def from_dict(self, config: Config) -> Any:
        return self._args.from_dict({"model_type": config["model_type"], **self._read(config)})


def _family(config: Config) -> tuple[Family, Config, str]:
    """A family, its part of config.json, and what to put before that part's keys."""
    if config["model_type"] == _IMAGE_TEXT:
        return FAMILIES["gemma3_text"], config.get("text_config") or {}, "text_config."
    return FAMILIES[config["model_type"]], config, ""


def _image_text_arguments(config: Config) -> dict[str, Any]:
    family, text, _ = _family(config)
    given = {"model_type": "gemma3_text", **_arguments(family, text)}
    return {"vocab_size": given["vocab_size"], "text_config": given}


def _arguments(family: Family, config: Config) -> dict[str, Any]:
    given = {key: _value(key, family, config) for key in family.honoured}
    turned, further = family.rotaries(config)[0], family.layers(config)[0]
    scaling = turned.scaling(given["max_position_embeddings"])
    return given | {"rope_theta": turned.theta, "rope_scaling": scaling} | further


def _value(key: str, family: Family, config: Config) -> Any:
    """An honoured key's value, or Transformers' default.

    Raises:
        UserError: it is null where a model needs one.
    """
    default = family.honoured[key]
    value = config.get(key, default)
    if value is None and key == "num_key_value_heads":
        return _value("num_attention_heads", family, config)
    if value is None and default is not None:
        raise UserError(f"config.json sets {key} to null, without which nothing is computed here.")
    return value
