"""From an output folder to a repository on the Hugging Face Hub."""

from dataclasses import replace
from pathlib import Path

from mlx_yoda.hub.base import public_base
from mlx_yoda.hub.contents import Item, contents
from mlx_yoda.hub.push import check_name, license_of
from mlx_yoda.hub.record import METRICS_FILE, read_record
from mlx_yoda.report.jsonl import blamed
from mlx_yoda.train.checkpoint import checkpoints
from mlx_yoda.train.integrity import SEAL, resealed


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
        UserError: the name is none, the folder is no finished run, or it has something that is
            not to be published.
    """
    check_name(repo_id)
    record = read_record(folder)
    base = public_base(record, base_model)
    if license is None and ask_hub:
        license = license_of(base)
    found = checkpoints(folder) if include_checkpoints else []
    with blamed(folder / METRICS_FILE):
        items = contents(record, base, adapter=repo_id, license=license, checkpoints=found)
    return [_whole(item, items) for item in items]


def _whole(item: Item, items: list[Item]) -> Item:
    """A checkpoint's seal, made to fit siblings that say other names than on this machine."""
    folder, _, name = item.path.rpartition("/")
    if name != SEAL:
        return item
    changed = {
        other.path.removeprefix(f"{folder}/"): other.content
        for other in items
        if other.path.startswith(f"{folder}/") and isinstance(other.content, bytes)
    }
    seal = item.content if isinstance(item.content, bytes) else item.content.read_bytes()
    return replace(item, content=resealed(seal, changed)) if changed else item
