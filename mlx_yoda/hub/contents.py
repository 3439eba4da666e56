"""What is published of an output folder: which files, and without this machine's own paths.

    adapter_model.safetensors, adapter_config.json    # what PEFT loads
    README.md, loss.svg                               # the card and its picture
    tokenizer.json, tokenizer_config.json, …
    config.yaml, metrics.jsonl                        # how the run was made, and how it went
    checkpoint-*/                                     # only where asked for: training state

Where a file says how a folder of this machine is called, what is published says a public name.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mlx_yoda.adapters.json_object import read_object
from mlx_yoda.adapters.peft import CONFIG_FILE, TENSOR_FILE
from mlx_yoda.config.parse import to_yaml
from mlx_yoda.config.schema import Config
from mlx_yoda.errors import UserError
from mlx_yoda.files import cache_folder
from mlx_yoda.hub.base import Base
from mlx_yoda.hub.card import CARD_FILE, LOSS_FILE, as_text, is_ours, make_card
from mlx_yoda.hub.picture import loss_picture
from mlx_yoda.hub.record import METRICS_FILE, SETTINGS_FILE, Record
from mlx_yoda.hub_client import is_repo_id
from mlx_yoda.model.tokenizer_files import TOKENIZER_FILES
from mlx_yoda.secrets import redact

# An absolute path in running text, without what ends the sentence around it.
_PATH = re.compile(rb"(?<![\w/.:~<>)}\]-])/[^\s\"'`,;:<>|{}]*[^\s\"'`,;:<>|{}.)\]\\]")
_ANSWERS = b'{"event": "generate"'  # words of the data, which may look like a path

# In these any text may be a token, even what looks like a path.
_VOCABULARY = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")


@dataclass(frozen=True)
class Item:
    """A file to publish.

    Attributes:
        path: its path in the repository.
        content: its bytes, or the file that is uploaded as it is.
    """

    path: str
    content: bytes | Path

    @property
    def size(self) -> int:
        """In bytes."""
        if isinstance(self.content, bytes):
            return len(self.content)
        return self.content.stat().st_size


def contents(
    record: Record,
    base: Base,
    *,
    adapter: str,
    license: str | None = None,
    checkpoints: Sequence[Path] = (),
) -> list[Item]:
    """Everything to publish of a run, in the order in which people look at it.

    Args:
        record: the run.
        base: its base's name in public.
        adapter: the Hub id that the adapter will have.
        license: the Hub's identifier of its licence, for the card.
        checkpoints: folders in it to publish too, with their training state.

    Raises:
        UserError: the base is a folder that only this machine has, or a file holds a token.
    """
    if base.kind == "folder":
        raise UserError(
            f"the base of this adapter is a folder on this machine ({record.base}), which nobody "
            "else has: name the model that it holds with --base-model OWNER/NAME."
        )
    folder, names = record.folder, _public_names(record, base)
    items = [
        Item(CARD_FILE, _card(record, base, adapter, license)),
        Item(TENSOR_FILE, folder / TENSOR_FILE),
        _adapter_config(folder, "", base, names),
    ]
    picture = loss_picture(record)
    items.append(Item(LOSS_FILE, picture.encode() if picture else folder / LOSS_FILE))
    items += [_plain(folder / name, name, names) for name in TOKENIZER_FILES]
    if record.config is not None:
        settings = _settings(record, record.config, base)
        items.append(Item(SETTINGS_FILE, _without_paths(settings, names)))
    items.append(_plain(folder / METRICS_FILE, METRICS_FILE, names))
    for checkpoint in checkpoints:
        items += _checkpoint(checkpoint, base, names)
    items = [item for item in items if isinstance(item.content, bytes) or item.content.is_file()]
    for item in items:
        _refuse_tokens(item)
    return items


def _card(record: Record, base: Base, adapter: str, license: str | None) -> bytes:
    """A new card with the repository's name in it, or one in the folder that says more.

    That is one in the user's own words, or ours where the run's records were left behind.
    """
    there = record.folder / CARD_FILE
    if not is_ours(there) or (there.is_file() and not record.events):
        return there.read_bytes()
    return as_text(make_card(record, base, adapter=adapter, license=license)).encode()


def _adapter_config(folder: Path, prefix: str, base: Base, names: Mapping[str, str]) -> Item:
    """adapter_config.json with the base's public name; as it is where it has that already."""
    path = folder / CONFIG_FILE
    keys = read_object(path)
    if keys.get("base_model_name_or_path") == base.name:
        return _plain(path, prefix + CONFIG_FILE, names)
    keys |= {"base_model_name_or_path": base.name, "revision": None}
    content = json.dumps(keys, indent=2).encode() + b"\n"
    return Item(prefix + CONFIG_FILE, _without_paths(content, names))


def _checkpoint(folder: Path, base: Base, names: Mapping[str, str]) -> list[Item]:
    prefix = f"{folder.name}/"
    others = sorted(p for p in folder.iterdir() if p.is_file() and p.name != CONFIG_FILE)
    return [
        _adapter_config(folder, prefix, base, names),
        *(_plain(path, prefix + path.name, names) for path in others),
    ]


def _plain(file: Path, path: str, names: Mapping[str, str]) -> Item:
    """A file as it is, unless it tells a path of this machine."""
    if not file.is_file() or file.suffix == ".safetensors" or file.name in _VOCABULARY:
        return Item(path, file)
    content = file.read_bytes()
    clean = _without_paths(content, names)
    return Item(path, file if clean == content else clean)


def _settings(record: Record, config: Config, base: Base) -> bytes:
    """The configuration as it can be used elsewhere."""
    public = record.last("started").get("dataset") or Path(config.data.dataset_name).name
    start = config.model.init_adapter
    first = Path(start).name if start and _is_local(start) else start
    model = replace(config.model, model_name_or_path=base.name, init_adapter=first)
    data = replace(config.data, dataset_name=str(public))
    train = replace(config.train, output_dir=Path(config.train.output_dir).name)
    return to_yaml(replace(config, model=model, data=data, train=train)).encode()


def _public_names(record: Record, base: Base) -> dict[str, str]:
    """Paths of this machine → what is said in their place, the longest first."""
    names = {str(record.folder.resolve()): record.folder.resolve().name, record.base: base.name}
    if record.config is not None:
        model, data = record.config.model, record.config.data.dataset_name
        output = record.config.train.output_dir
        names |= {output: Path(output).name, model.model_name_or_path: base.name}
        others = [data] if record.last("started").get("dataset") != data else []
        names |= {path: Path(path).name for path in (*others, model.init_adapter or "")}
    with suppress(UserError):  # without a home folder there is no cache
        names[str(cache_folder())] = "cache"
    names[os.path.expanduser("~")] = "~"
    private = {path: name for path, name in names.items() if len(path) > 1 and _is_local(path)}
    return dict(sorted(private.items(), key=lambda item: -len(item[0])))


def _is_local(name: str) -> bool:
    """Whether a name is a path, absolute or not, rather than a Hub id or one word."""
    return "/" in name and (os.path.exists(os.path.expanduser(name)) or not is_repo_id(name))


def _without_paths(content: bytes, names: Mapping[str, str]) -> bytes:
    """Say the public names, in plain text and in JSON's spelling, and of other paths the last part.

    What a run noted may name any folder: of a cache, of a checkpoint that was passed over. Only
    what begins as this machine's folders do is a path.
    """
    for path, name in names.items():
        for spelt in (path, json.dumps(path)[1:-1]):
            # /home/me is not /home/meg, and runs/a is not of /x/runs/a
            whole = rb"(?<![\w/.~-])" + re.escape(spelt.encode()) + rb"(?!\w)"
            content = re.sub(whole, name.replace("\\", r"\\").encode(), content)
    lines = content.splitlines(keepends=True)
    return b"".join(_PATH.sub(_last_part, s) if s[:20] != _ANSWERS else s for s in lines)


def _last_part(path: re.Match[bytes]) -> bytes:
    """What is said of a path: nothing else if the first of its folders is not there."""
    _, first, *below = path[0].split(b"/")
    return below[-1] if below and os.path.isdir(b"/" + first) and first else path[0]


def _refuse_tokens(item: Item) -> None:
    if item.path.endswith(".safetensors"):
        return
    content = item.content if isinstance(item.content, bytes) else item.content.read_bytes()
    text = content.decode("utf-8", errors="replace")
    if redact(text) != text:
        raise UserError(
            f"{item.path} holds what looks like an access token or password, and is not published: "
            "take it out."
        )
