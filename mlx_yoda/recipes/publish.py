"""From an output folder to a repository on the Hugging Face Hub."""

from pathlib import Path

from mlx_yoda.hub.base import public_base
from mlx_yoda.hub.contents import Item, contents
from mlx_yoda.hub.push import license_of
from mlx_yoda.hub.record import read_record
from mlx_yoda.train.checkpoint import checkpoints


def gather(
    folder: Path,
    repo_id: str,
    *,
    base_model: str | None = None,
    license: str | None = None,
    include_checkpoints: bool = False,
    ask_hub: bool = True,
) -> list[Item]:
    """Everything to publish of a run; the first one is its card.

    Args:
        folder: the run's output folder.
        repo_id: where it will be, for the card.
        base_model: the base's Hub id, where the run took it from a folder.
        license: of the adapter; None for the one that the base's page on the Hub names.
        include_checkpoints: publish the checkpoints too.
        ask_hub: whether the base's page may be looked at.

    Raises:
        UserError: the folder is no finished run, or has something that is not to be published.
    """
    record = read_record(folder)
    base = public_base(record, base_model)
    if license is None and ask_hub:
        license = license_of(base)
    return contents(
        record,
        base,
        adapter=repo_id,
        license=license,
        checkpoints=checkpoints(folder) if include_checkpoints else (),
    )
