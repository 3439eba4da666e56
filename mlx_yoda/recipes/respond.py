"""A model with or without an adapter, ready to answer."""

import os
import re
import shlex
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlx_yoda.adapters.mlx_lm import WEIGHTS_FILE, load_mlx_lm
from mlx_yoda.adapters.peft import CONFIG_FILE, TENSOR_FILE, Adapter, load_adapter
from mlx_yoda.adapters.safetensors_header import shown
from mlx_yoda.config.parse import load_config
from mlx_yoda.config.quantization import short
from mlx_yoda.config.schema import ModelConfig
from mlx_yoda.errors import UserError
from mlx_yoda.generation import Messages, Note, attach, stream
from mlx_yoda.lora.inject import disabled
from mlx_yoda.model.load import Loaded, fetch, load, resolve
from mlx_yoda.train.checkpoint import checkpoints, is_checkpoint
from mlx_yoda.train.integrity import flaw

_SETTINGS = "config.yaml"  # of the run that made an adapter
# Up out of a folder, somebody's home, another machine.
_TRICK = re.compile(r"(^|[/\\])\.\.([/\\]|$)|^~|://|\\|^.{513}")


@dataclass(frozen=True)
class Responder:
    """What answers.

    Attributes:
        base: the model; the adapter is in its module tree.
        adapter: where the adapter came from, or None for the base alone.
        trained_on: the base that the adapter names.
    """

    base: Loaded
    adapter: str | None
    trained_on: str | None = None

    def stream(
        self, messages: Messages, *, note: Note = warnings.warn, **sampling: Any
    ) -> Iterator[str]:
        """Yield the answer to a conversation piece by piece; options as `generation.pieces`."""
        return stream(self.base.model, self.base.tokenizer, messages, note=note, **sampling)

    def disable_adapter(self) -> AbstractContextManager[None]:
        """Let the base answer alone for the length of a `with` block; the name is PEFT's."""
        return disabled(self.base.model)


def open_responder(
    model: ModelConfig, adapter: str | None = None, *, base_of_adapter: bool = False
) -> Responder:
    """Load a model and put an adapter into it.

    Args:
        model: which model, and how to load it.
        adapter: folder or Hub id of a PEFT or mlx-lm adapter; None leaves the base alone.
        base_of_adapter: take the model that the adapter names, not `model_name_or_path`.

    Raises:
        UserError: one of them cannot be loaded, or they do not fit together.
    """
    loaded = read_adapter(adapter) if adapter is not None else None
    if loaded and base_of_adapter:
        model = on_named_base(model, loaded, str(adapter))
    base = load(
        model.model_name_or_path,
        revision=model.model_revision,
        dtype=model.dtype,
        quantization=model.quantization,
        trust_remote_code=model.trust_remote_code,
    )
    if loaded:
        for layer in attach(base.model, loaded).values():
            layer.settle(True)
    return Responder(base, adapter, loaded.base_model_name_or_path if loaded else None)


def read_adapter(name: str) -> Adapter:
    """Read a PEFT or mlx-lm adapter from a folder or the Hub.

    Raises:
        UserError: it is not there, or is none that we can honour.
    """
    folder = fetch(newest_in(name), None, [CONFIG_FILE, TENSOR_FILE, WEIGHTS_FILE])
    theirs = (folder / WEIGHTS_FILE).is_file() and not (folder / TENSOR_FILE).is_file()
    return load_mlx_lm(folder) if theirs else load_adapter(folder)


def newest_in(name: str) -> str:
    """The newest intact checkpoint of a run that was interrupted, or the name as it is.

    Raises:
        UserError: the run has checkpoints, and all of them are corrupt.
    """
    folder = Path(os.path.expanduser(name))
    found = checkpoints(folder) if folder.is_dir() else []
    if not found or any((folder / file).exists() for file in (CONFIG_FILE, WEIGHTS_FILE)):
        return name
    for checkpoint in reversed(found):
        if flaw(checkpoint) is None:
            return str(checkpoint)
    raise UserError(f"{name} has no adapter, and its checkpoints are corrupt: {flaw(found[-1])}.")


def interrupted(name: str) -> str | None:
    """A remark if the adapter is a checkpoint, for the run in that folder has not ended."""
    taken = newest_in(name)
    if taken == name:
        return None
    return f"The run in {name} has not finished: this is its newest checkpoint, {taken}."


def on_named_base(model: ModelConfig, adapter: Adapter, name: str) -> ModelConfig:
    """The base that the adapter called `name` names, loaded as `model` says.

    Raises:
        UserError: it names none, a folder that is not here, or something that only looks like
            a name; or the user trusts a model's own code without having named the model.
    """
    base = adapter.base_model_name_or_path
    if not base:
        raise UserError(f"the adapter {name} does not say which model is its base: give --model.")
    named = f"the adapter {name} names {shown(base)} as its base"
    if not base.isprintable() or _TRICK.search(base):
        raise UserError(f"{named}, which is no Hub id and no plain folder: give --model.")
    if Path(base).is_absolute() and not Path(resolve(base)).is_dir():
        raise UserError(f"{named}, which is not here: give --model.")
    if model.trust_remote_code:
        raise UserError(
            f"{named}, but an adapter's word is not enough to run that model's own code: give "
            "--model too, if you trust it."
        )
    revision = model.model_revision or adapter.revision
    return replace(model, model_name_or_path=base, model_revision=revision)


def another_base(responder: Responder) -> str | None:
    """A remark if the adapter was trained on a model of another name than the one that answers.

    PEFT says nothing then; a quantised or converted copy is as good as the model it came from.
    """
    trained_on, base = responder.trained_on, responder.base.name
    if not trained_on or resolve(trained_on) == resolve(base):  # the demo has several names
        return None
    return (
        f"The adapter {responder.adapter} names {shown(trained_on)} as its base; "
        f"it answers on {base}."
    )


def settings_file(adapter: str) -> Path | None:
    """The config.yaml of the run that made an adapter, an output folder or a checkpoint in one."""
    folder = Path(adapter)
    if is_checkpoint(folder):
        folder = folder.resolve().parent
    return file if (file := folder / _SETTINGS).is_file() else None


def fewer_bits(model: ModelConfig, adapter: str) -> str | None:
    """A remark if the adapter was trained on its base in fewer bits than `model` loads it in.

    Where the whole base did not fit into memory for training, it does not fit now.
    """
    if (settings := settings_file(adapter)) is None:
        return None
    try:
        trained_in = load_config(settings).model.quantization
    except UserError:  # it is not needed to answer
        return None
    if trained_in is None or "quantization" in model.fields_set:
        return None
    return (
        f"The adapter {adapter} was trained on its base quantised on load: "
        f"--quantize {shlex.quote(short(trained_in))} loads it so."
    )
