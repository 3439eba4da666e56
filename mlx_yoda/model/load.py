"""The base model: from a folder or the Hub to a frozen MLX module with its tokenizer."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from huggingface_hub import snapshot_download
from mlx.utils import tree_map_with_path
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_model, load_tokenizer

from mlx_yoda.config.schema import Quantization
from mlx_yoda.errors import UserError, first_line
from mlx_yoda.hub_client import explain, is_repo_id, limited_patience
from mlx_yoda.model.config_json import read_config
from mlx_yoda.model.departures import is_checked, model_classes, notes
from mlx_yoda.model.limits import Limits, check_tokenizer, limits_of
from mlx_yoda.model.quantize import quantize, settle
from mlx_yoda.model.rotary import as_before_5
from mlx_yoda.model.tokenizer_files import TOKENIZER_FILES
from mlx_yoda.model.tokenizer_trial import try_tokenizer
from mlx_yoda.model.weight_files import (
    check_pointer,
    check_quantization,
    check_weight_files,
    explain_names,
)
from mlx_yoda.pytorch import show_pytorch

DEMO = "demo"
_DEMO_FOLDER = Path(__file__).resolve().parent.parent / "demo" / "model"
_IN_PACKAGE = ("mlx_yoda", "demo", "model")
FILES_BUT_WEIGHTS = ["*.json", "*.jinja", "*.py", "*.txt", "tokenizer.model"]
MODEL_FILES = [*FILES_BUT_WEIGHTS, "model*.safetensors"]
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
# Phi-3 ends a turn with <|end|>, but its config.json knows only <|endoftext|>.
_PHI3_TYPES = ("phi3", "phi3small", "phimoe")
_PHI3_ENDS = ("<|end|>", "<|endoftext|>")


@dataclass(frozen=True)
class Loaded:
    """A base model that is ready to be adapted or to answer.

    Attributes:
        model: the frozen module, in evaluation mode; its `limits` are those of `model.limits`.
        tokenizer: mlx-lm's wrapper of the Hugging Face tokenizer; generation stops at any of
            its `eos_token_ids`.
        config: what config.json says, with generation_config.json's `eos_token_id`.
        path: the folder that the files came from.
        name: the name that was asked for, to be written into adapters.
    """

    model: nn.Module = field(repr=False)  # pages of modules and keys
    tokenizer: TokenizerWrapper = field(repr=False)
    config: dict[str, Any] = field(repr=False)
    path: Path
    name: str

    @property
    def limits(self) -> Limits:
        """What the model can be given."""
        limits: Limits = self.model.limits
        return limits

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know before the model's answers are relied on."""
        return tuple(notes(self.config, self.name))


def load(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    quantization: Quantization | None = None,
    trust_remote_code: bool = False,
) -> Loaded:
    """Load a model in Hugging Face or MLX layout, quantised or not.

    Memory holds the weights once and, while they are read, one more of them: each is read, cast
    and packed by itself.

    Args:
        name_or_path: a folder, a Hub id `owner/name`, or `demo` for the tiny Phi-3 in the package.
        revision: branch, tag or commit, for a Hub id.
        dtype: float32, float16 or bfloat16 for the floating-point weights; None leaves them.
        quantization: how to pack linear layers and embedding, which gives what `convert` writes;
            None leaves them as stored. `config["quantization"]` of the result says it.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        UserError: there is no such model, the Hub cannot be reached, the files are no model
            that mlx-lm knows, or it cannot be quantised so.
    """
    path = fetch(name_or_path, revision, MODEL_FILES)
    model, config = load_lazily(path, dtype, trust_remote_code)
    tokenizer = load_tokenizer_in(path, config, trust_remote_code)
    check_tokenizer(tokenizer, model.limits, path)
    with _explained(path, "the weights of"):
        if quantization is not None:
            config = quantize(model, config, quantization, path)
        settle(model)
    model.eval()
    model.freeze()
    return Loaded(model, tokenizer, config, path, str(name_or_path))


def load_lazily(
    path: Path, dtype: str | None, trust_remote_code: bool
) -> tuple[nn.Module, dict[str, Any]]:
    """Build the model in a folder and cast its weights, leaving them on disk until evaluated.

    Raises:
        UserError: as `load`.
    """
    found = _check_folder(path, trust_remote_code)
    with _explained(path, "the model in"):
        model, config = load_model(
            path, lazy=True, trust_remote_code=trust_remote_code, **_architecture(found)
        )
        if dtype is not None:
            _cast(model, dtype)
        # Whatever is given to the model is held against them, and only config.json knows them all.
        model.limits = limits_of(model, config)
    return model, config


def load_shapes(path: Path, trust_remote_code: bool) -> nn.Module:
    """Build the model that a folder's config.json describes; weights may lack, none is evaluated.

    Raises:
        UserError: as `load`.
    """
    found = _check_config(path, trust_remote_code)
    with _explained(path, "the model in"):
        options = {"trust_remote_code": trust_remote_code, **_architecture(found)}
        return load_model(path, lazy=True, strict=False, **options)[0]


def load_tokenizer_in(
    path: Path, config: dict[str, Any], trust_remote_code: bool
) -> TokenizerWrapper:
    """Load the tokenizer in a model folder, with all the tokens that end an answer.

    Raises:
        UserError: as `load`.
    """
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        raise UserError(f"{path} has no tokenizer: copy the model's tokenizer files there.")
    for name in TOKENIZER_FILES:
        check_pointer(path / name)
    if path.resolve() != _DEMO_FOLDER:
        try_tokenizer(path)
    with _explained(path, "the tokenizer in"):
        tokenizer = load_tokenizer(
            path, {"trust_remote_code": trust_remote_code}, config.get("eos_token_id")
        )
    if config["model_type"] in _PHI3_TYPES:
        vocabulary = tokenizer.get_vocab()
        for end in _PHI3_ENDS:
            if end in vocabulary:
                tokenizer.add_eos_token(end)
    return tokenizer


def fetch(
    name_or_path: str | Path, revision: str | None = None, patterns: list[str] | None = None
) -> Path:
    """Find a folder, or download a snapshot of a Hub repository.

    Args:
        name_or_path: a folder, a Hub id `owner/name`, or `demo`.
        revision: branch, tag or commit, for a Hub id.
        patterns: glob patterns of the files wanted from the Hub; None wants all.

    Raises:
        UserError: there is no such folder or repository, or the Hub cannot be reached.
    """
    name = str(resolve(name_or_path))
    path = Path(os.path.expanduser(name))  # which leaves a user whom nobody knows as he is
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{name} is a file, but a folder is needed (with its config.json).")
    if not is_repo_id(name):
        raise UserError(
            f"{name}: there is no such folder, and it is not a Hub id (those look like owner/name)."
        )
    try:
        with limited_patience():
            return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    # HTTP, Xet, threads and whatever answers in the Hub's place: each raises its own kinds.
    except Exception as error:
        why = "; ".join(filter(None, explain(error)))
        raise UserError(f"{name}: there is no such folder here, and {why}.") from error


def is_here(name_or_path: str | Path) -> bool:
    """Whether a name is a folder of this machine, or `demo`, so that nothing is downloaded."""
    return os.path.isdir(os.path.expanduser(resolve(name_or_path)))


def resolve(name_or_path: str | Path) -> str | Path:
    """Map every name of the tiny Phi-3 in the package to its folder, anything else to itself."""
    return _DEMO_FOLDER if is_demo(name_or_path) else name_or_path


def is_demo(name_or_path: str | Path) -> bool:
    """Say whether a name means the tiny Phi-3 in the package: `demo`, or a path to it.

    Older adapters name their base by such a path. An installation that is replaced takes its
    folders along, so a path into one that is gone counts too.
    """
    path = Path(name_or_path)
    if str(name_or_path) == DEMO:
        return True
    if os.path.isdir(path):
        return path.resolve() == _DEMO_FOLDER
    return path.parts[-3:] == _IN_PACKAGE


def _check_config(path: Path, trust_remote_code: bool) -> dict[str, Any]:
    """What config.json says, if no model is refused for it or for code that is to run unasked."""
    config = read_config(path)
    if trust_remote_code:
        show_pytorch()  # such code may need it
    if config.get("model_file") is not None and not trust_remote_code:
        raise UserError(
            f"{path} wants to run its own code, {config['model_file']}; if you trust it, "
            "set model.trust_remote_code=true."
        )
    return config


def _check_folder(path: Path, trust_remote_code: bool) -> dict[str, Any]:
    """What config.json says; what a model folder lacks is named in better words than libraries'."""
    config = _check_config(path, trust_remote_code)
    check_weight_files(path)
    check_quantization(path, config)
    return config


def _architecture(config: dict[str, Any]) -> dict[str, Any]:
    """What mlx-lm is to build: the families that are checked from their table, the rest itself."""
    if is_checked(config):
        return {"get_model_classes": lambda config: model_classes(config)}
    return {"model_config": as_before_5(config)}


def _cast(model: nn.Module, dtype: str) -> None:
    """Cast the floating-point weights, but for those the architecture wants left alone."""
    to = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}[dtype]
    wanted = getattr(model, "cast_predicate", lambda _: True)

    def cast(name: str, weight: mx.array) -> mx.array:
        floating = mx.issubdtype(weight.dtype, mx.floating)
        return weight.astype(to) if floating and wanted(name) else weight

    model.update(tree_map_with_path(cast, model.parameters()))


@contextlib.contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    """Keep the libraries' chatter off standard output and their exceptions off the user."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except UserError:
        raise
    except ValueError as error:
        explained = explain_names(path, error)
        raise explained or _failed(path, what, error) from error
    except Exception as error:  # they raise nearly every kind at files they cannot make sense of
        raise _failed(path, what, error) from error


def _failed(path: Path, what: str, error: Exception) -> UserError:
    return UserError(
        f"{what} {path} cannot be loaded: {type(error).__name__}: {first_line(error)}."
    )
