"""From Hugging Face's layout to MLX's: other dtype, fewer bits."""

import contextlib
import sys
from pathlib import Path

from mlx_lm.utils import save

from mlx_yoda.config.quantization import trouble
from mlx_yoda.config.schema import Quantization
from mlx_yoda.errors import UserError
from mlx_yoda.files import new_directory, sweep, writing
from mlx_yoda.model.load import MODEL_FILES, fetch, load_lazily, load_tokenizer_in
from mlx_yoda.model.quantize import quantize


def convert(
    source: str | Path,
    destination: Path,
    *,
    quantization: Quantization | None = None,
    dtype: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Write a model folder in MLX layout, which `model.load` reads as any other.

    Memory holds the weights as they will be written, and one layer of them as they are.

    Args:
        source: folder or Hub id of the model.
        destination: folder to make; it appears only when it is whole.
        quantization: how to pack linear layers and embedding; None leaves them.
        dtype: float32, float16 or bfloat16 for what is not quantised (and for scales and biases);
            None leaves it.
        revision: branch, tag or commit of a Hub id.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        UserError: the destination exists, the source is no model, it cannot be quantised so, or
            the disk is full.
    """
    if destination.exists():
        raise UserError(f"{destination} exists: name a new folder.")
    if quantization is not None and (need := trouble(quantization)):
        raise UserError(f"the model cannot be quantised so: {need}.")
    path = fetch(source, revision, MODEL_FILES)
    model, config = load_lazily(path, dtype, trust_remote_code)
    tokenizer = load_tokenizer_in(path, config, trust_remote_code)
    with contextlib.redirect_stdout(sys.stderr):
        if dtype is not None:
            config = {**config, "torch_dtype": dtype}
            config.pop("dtype", None)
        if quantization is not None:
            config = quantize(model, config, quantization, path)
        sweep(destination.parent)
        with writing(destination), new_directory(destination) as folder:
            save(folder, path, model, tokenizer, config)
