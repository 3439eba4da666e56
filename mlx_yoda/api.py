"""The Python interface: the same as the commands, for notebooks and programs.

    from mlx_yoda import finetune, generate, load

As with the commands, mlx and all else is imported when a function is called, and whatever the
caller can put right is a `mlx_yoda.errors.UserError` of one sentence.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_yoda.cli.blas import prefer_openblas
from mlx_yoda.config.schema import Config, ModelConfig
from mlx_yoda.errors import UserError
from mlx_yoda.kernels import keep_kernels_private

if TYPE_CHECKING:
    from mlx_yoda.generation import Messages
    from mlx_yoda.recipes.outcome import Outcome
    from mlx_yoda.recipes.respond import Responder
    from mlx_yoda.report.events import Reporter

_SHORT = {"model": "model.model_name_or_path", "data": "data.dataset_name"}  # as the options


def load(
    model: str | Path | None = None,
    adapter: str | Path | None = None,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    quantization: int | str | Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> "Responder":
    """Load a model, or a base with an adapter in it, to generate with.

    Args:
        model: folder or Hub id of a model, or `demo`; None takes the base that the adapter names.
        adapter: folder or Hub id of a PEFT or mlx-lm adapter; None leaves the base alone.
        revision: the model's branch, tag or commit on the Hub.
        dtype: float32, float16 or bfloat16; None leaves the weights as they are.
        quantization: as `model.quantization`: `{"bits": 4, "group_size": 64}`, or in short 4 or
            "mxfp4"; None leaves the weights as they are.
        trust_remote_code: run Python code that comes with the model.

    Returns:
        What `generate` takes. Its `stream(messages, …)` yields an answer piece by piece, and
        within `with it.disable_adapter():` the base answers alone.

    Raises:
        UserError: one of them cannot be loaded, or they do not fit together.
    """
    if model is None and adapter is None:
        raise UserError("give load() a model, an adapter, or both.")
    prefer_openblas()
    keep_kernels_private()
    from mlx_yoda.config.parse import load_config
    from mlx_yoda.recipes.respond import open_responder

    options = load_config(None, (), {"model.quantization": quantization})
    chosen = ModelConfig(
        model_name_or_path=str(model or ""),
        model_revision=revision,
        dtype=dtype,  # type: ignore[arg-type]
        quantization=options.model.quantization,
        trust_remote_code=trust_remote_code,
    )
    name = str(adapter) if adapter is not None else None
    return open_responder(chosen, name, base_of_adapter=model is None)


def finetune(
    config: str | Path | Config | None = None,
    *,
    reporter: "Reporter | None" = None,
    resume: bool | str | Path = False,
    overwrite: bool = False,
    force: bool = False,
    **settings: Any,
) -> "Outcome":
    """Fine-tune a model with LoRA and write the adapter, as `mlx-yoda train` does.

    Args:
        config: a YAML file, or a configuration; None begins with the defaults.
        reporter: told of everything that happens, as `report.events` has it; None shows the run
            on standard error, and `lambda event: None` nothing.
        resume: go on from the newest checkpoint in the output folder, or from this one.
        overwrite: replace what an earlier run left in the output folder.
        force: resume although the run differs from the checkpoint's.
        **settings: changes to a file or to the defaults, under the names of the configuration
            (`learning_rate=1e-3`, `output_dir="outputs/r16"`); `model` and `data` are short for
            model_name_or_path and dataset_name.

    Returns:
        Where the adapter is (`path`), the mean `train_loss` in nats a token, and the `steps`.

    Raises:
        UserError: configuration, data or folders are wrong, or training went wrong.
        Interrupted: Ctrl-C or SIGTERM came while training (`recipes.interruption`); the state
            is saved.
    """
    prefer_openblas()
    keep_kernels_private()
    resolved = _configuration(config, settings)
    from mlx_yoda.recipes import finetune as recipe
    from mlx_yoda.recipes.joining import joined
    from mlx_yoda.report.console import Console

    checkpoint = Path(resume) if isinstance(resume, str) else resume
    options: dict[str, Any] = {"resume": checkpoint, "overwrite": overwrite, "force": force}
    with joined() as group, nullcontext(reporter) if reporter else Console() as told:
        return recipe.finetune(resolved, reporter=told, group=group, **options)


def generate(
    model: "Responder",
    prompt: "str | Messages",
    *,
    system: str | None = None,
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
) -> str:
    """Answer a prompt, or go on with a conversation.

    Args:
        model: what `load` gave.
        prompt: what the user says, or `[{"role": "user", "content": …}, …]`.
        system: a system message before it.
        max_tokens: longest answer, in tokens.
        temperature: 0 takes the likeliest token each time; larger is more random.
        top_p: sample among the likeliest tokens that together have this probability.
        seed: makes sampling repeatable.

    Raises:
        UserError: an option is out of its range, or the chat template refuses the conversation.
    """
    said = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    messages = [{"role": "system", "content": system}, *said] if system else said
    sampling: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "seed": seed}
    return "".join(model.stream(messages, max_tokens=max_tokens, **sampling))


def _configuration(config: str | Path | Config | None, settings: Mapping[str, Any]) -> Config:
    from mlx_yoda.config.keys import keys
    from mlx_yoda.config.parse import load_config

    if isinstance(config, Config):
        if settings:
            raise UserError("give finetune() settings with a file or alone, not with a Config.")
        return config
    full = {key.rpartition(".")[2]: key for key in keys()} | _SHORT
    options = {full.get(name, name): value for name, value in settings.items()}
    return load_config(Path(config) if config is not None else None, (), options)
