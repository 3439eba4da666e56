"""The base of an adapter under a name that means something on other machines too."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlx_yoda.errors import UserError
from mlx_yoda.hub.record import Record
from mlx_yoda.hub_client import is_repo_id
from mlx_yoda.model.load import DEMO, is_demo


@dataclass(frozen=True)
class Base:
    """How an adapter's base is called in public.

    Attributes:
        name: the Hub id, `demo`, or of a folder here its last part alone.
        kind: on the Hub, in this package, or a folder that only this machine has.
    """

    name: str
    kind: Literal["hub", "demo", "folder"]


def public_base(record: Record, given: str | None = None) -> Base:
    """Name the base of a run without telling where this machine keeps it.

    Args:
        record: the run.
        given: the Hub id that the user says the base has, which goes before all else.

    Raises:
        UserError: what is given is no Hub id.
    """
    if given is not None:
        if not is_repo_id(given):
            raise UserError(f"--base-model must be a Hub id such as owner/name, not {given!r}.")
        return Base(given, "hub")
    known = record.last("started").get("base_model")
    if known == DEMO or is_demo(record.base):
        return Base(DEMO, "demo")
    if is_repo_id(record.base) and (known == record.base or not Path(record.base).exists()):
        return Base(record.base, "hub")
    return Base(Path(record.base).name or "base", "folder")
