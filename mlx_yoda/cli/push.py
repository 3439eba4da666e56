"""`mlx-yoda push`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_yoda.cli.command import Command, remark, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlx_yoda.hub.contents import Item

_EXAMPLES = """\
mlx-yoda push outputs/phi3-mini-yoda me/phi3-mini-yoda --dry-run
mlx-yoda push outputs/phi3-mini-yoda me/phi3-mini-yoda --private
mlx-yoda push outputs/r16 me/yoda --base-model microsoft/Phi-3-mini-4k-instruct --license mit
mlx-yoda push outputs/r16 me/yoda --revision r16 --include-checkpoints
"""


@click.command(
    "push", cls=Command, epilog=_EXAMPLES, short_help="Publish an adapter on the Hugging Face Hub."
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("repo_id", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Make the repository private.")
@click.option("--revision", metavar="BRANCH", help="Commit to this branch instead of main.")
@click.option("--message", metavar="TEXT", help="The commit's message.")
@click.option(
    "--base-model", metavar="OWNER/NAME", help="The base's Hub id, where it was a folder here."
)
@click.option(
    "--license", metavar="ID", help="The adapter's licence; without it, the base's on the Hub."
)
@click.option(
    "--include-checkpoints", is_flag=True, help="Publish checkpoints with their training state."
)
@click.option("--dry-run", is_flag=True, help="Show what would be published; no token, no network.")
def command(
    folder: Path,
    repo_id: str,
    private: bool,
    revision: str | None,
    message: str | None,
    base_model: str | None,
    license: str | None,
    include_checkpoints: bool,
    dry_run: bool,
) -> None:
    """Publish the adapter in FOLDER on the Hugging Face Hub, in one commit.

    What goes there: the adapter, a model card, the tokenizer, config.yaml and metrics.jsonl;
    never the optimizer's state, unless checkpoints are asked for. The repository is made if
    there is none. Paths of this machine are not published.
    """
    from mlx_yoda.hub.push import push
    from mlx_yoda.recipes.publish import gather

    items = gather(
        folder,
        repo_id,
        base_model=base_model,
        license=license,
        include_checkpoints=include_checkpoints,
        ask_hub=not dry_run,
    )
    if dry_run:
        say(f"Would be published in {repo_id} ({revision or 'main'}), in one commit:")
        say(_list(items))
        say(f"\n{items[0].path}:\n")
        say(_text(items[0]))
        return
    remark(f"Publishing {len(items)} files in {repo_id} …\n{_list(items)}")
    address = push(
        items,
        repo_id,
        message=message or f"Adapter trained with mlx-yoda: {folder.resolve().name}",
        private=private,
        revision=revision,
        remark=remark,
    )
    say(address)


def _list(items: "Sequence[Item]") -> str:
    from mlx_yoda.report.words import size

    rows = [(item.size, item.path) for item in items]
    rows.append((sum(item.size for item in items), "in all"))
    return "\n".join(f"{size(number):>12}  {path}" for number, path in rows)


def _text(item: "Item") -> str:
    content = item.content if isinstance(item.content, bytes) else item.content.read_bytes()
    return content.decode("utf-8", errors="replace").rstrip("\n")
