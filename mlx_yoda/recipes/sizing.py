"""How large a run's base will be, before anything but its config.json is fetched."""

from typing import Any

from mlx_yoda.config.quantization import packing
from mlx_yoda.config.schema import Config, ModelConfig
from mlx_yoda.errors import UserError
from mlx_yoda.model.config_json import read_config
from mlx_yoda.model.departures import refuse_departures
from mlx_yoda.model.load import fetch
from mlx_yoda.model.sizes import sizes_of
from mlx_yoda.model.weight_files import check_quantization
from mlx_yoda.train.fit import check_room, machine_memory


def config_when_loaded(model: ModelConfig) -> dict[str, Any]:
    """config.json of a base to train, with the quantisation that loading will add to it.

    Raises:
        UserError: there is none, the base is quantised already or by another library, or it sets
            something that is not computed here.
    """
    name = model.model_name_or_path
    folder = fetch(name, model.model_revision, ["config.json"])
    found = read_config(folder)
    refuse_departures(found, name)
    check_quantization(folder, found)
    if model.quantization is None:
        return found
    if found.get("quantization") or found.get("quantization_config"):
        raise UserError(f"{name} is quantised already: leave model.quantization out.")
    return {**found, "quantization": packing(model.quantization)._asdict()}


def check_base(config: Config) -> None:
    """Refuse a base that this machine cannot train, before it is fetched and loaded.

    Raises:
        UserError: it cannot be; of other architectures than Phi-3 that is not known.
    """
    found = config_when_loaded(config.model)
    if found.get("model_type") != "phi3":
        return
    try:
        sizes = sizes_of(found, config.lora, config.model.dtype)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return  # a config.json that is broken: loading says how
    check_room(sizes, config.model.model_name_or_path, machine_memory())
