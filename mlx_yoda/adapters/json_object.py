"""A JSON file of an adapter, which may be a stranger's."""

from pathlib import Path
from typing import Any

from mlx_yoda import strict_json
from mlx_yoda.errors import UserError

_LONGEST = 1 << 20  # bytes; adapter_config.json has about a thousand


def read_object(path: Path) -> dict[str, Any]:
    """Read a small file that holds a JSON object.

    Raises:
        UserError: it is not there, too large, not JSON (`strict_json`) or not an object.
    """
    if not path.is_file():  # nor a pipe, which would never end
        raise UserError(f"{path.parent} is no adapter: it has no {path.name}.")
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise UserError(f"{path} has more than {_LONGEST:,} bytes: it is no adapter's.")
        keys = strict_json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(keys, dict):
        raise UserError(f"{path} must hold a JSON object.")
    return keys
