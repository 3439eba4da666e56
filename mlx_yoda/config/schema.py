"""What can be configured: frozen dataclasses named as PEFT's LoraConfig and TRL's SFTConfig are.

Each field carries its one-line help, from which the command line's help and the reference are
made, and whether it is part of a run's identity; nothing else in the program holds a default.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self


def _field(default: Any, help: str, *, identity: bool) -> Any:
    """A dataclass field; dicts and lists become default factories.

    Args:
        default: its default.
        help: its help text.
        identity: whether a run must have the value of the checkpoint that it resumes from. Not so
            where a value cannot change the numbers, or only through what is compared itself: the
            base's weights, the rows, the rows of a step, the number of steps.
    """
    metadata = {"help": help, "identity": identity}
    if isinstance(default, dict | list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


class Section:
    """A part of the configuration that knows which of its fields somebody has set.

    A field that is set to its default is set all the same. `dataclasses.replace` sets every field.

    Attributes:
        fields_set: names of the arguments that it was made with (pydantic's `model_fields_set`).
            They are no field: equality, `asdict` and a checkpoint's identity do not see them.
    """

    fields_set: frozenset[str]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Note the arguments that `__init__` is about to get."""
        section = super().__new__(cls)
        positional = [field.name for field in fields(cls)[: len(args)]]  # type: ignore[arg-type]
        section.__dict__["fields_set"] = frozenset([*positional, *kwargs])  # it is frozen
        return section


@dataclass(frozen=True)
class Quantization:
    """How the base's weights are packed; which values go together says `config.quantization`.

    A plain value stands for the first field that it fits: `4` for bits, `mxfp4` for the mode.
    """

    bits: int | None = _field(
        None, "Bits a weight; null is the mode's own: 4, or 8 for mxfp8.", identity=True
    )
    group_size: int | None = _field(
        None, "Weights that share a scale; null is the mode's own: 64 for affine.", identity=True
    )
    mode: Literal["affine", "mxfp4", "mxfp8", "nvfp4"] = _field(
        "affine", "MLX's format.", identity=True
    )


@dataclass(frozen=True)
class ModelConfig(Section):
    """The frozen base model (names as in TRL's ModelConfig)."""

    model_name_or_path: str = _field(
        "microsoft/Phi-3-mini-4k-instruct",
        "Folder or Hub id of the base, in Hugging Face or MLX layout.",
        identity=False,
    )
    model_revision: str | None = _field(None, "Branch, tag or commit on the Hub.", identity=False)
    dtype: Literal["float32", "float16", "bfloat16"] | None = _field(
        None,
        "Cast the base's floating-point weights on load; null keeps them as stored.",
        identity=True,
    )
    quantization: Quantization | None = _field(
        None,
        "Pack the base's weights on load, to {bits: 4, group_size: 64, mode: affine} or, in short, "
        "4 or mxfp4; null leaves them as stored.",
        identity=True,
    )
    init_adapter: str | None = _field(
        None,
        "PEFT or mlx-lm adapter to go on from, a folder or Hub id; its LoRA settings hold.",
        identity=False,
    )
    trust_remote_code: bool = _field(
        False, "Allow code that ships with the model to run.", identity=False
    )


@dataclass(frozen=True)
class LoraConfig(Section):
    """The adapter (names and meaning as in PEFT's LoraConfig)."""

    r: int = _field(8, "Rank of the update.", identity=True)
    lora_alpha: float = _field(
        16, "Scale: the update is multiplied by lora_alpha / r.", identity=True
    )
    lora_dropout: float = _field(0.05, "Dropout on the input of the LoRA branch.", identity=True)
    bias: Literal["none"] = _field(
        "none", "Which biases train; only 'none' is supported.", identity=True
    )
    task_type: Literal["CAUSAL_LM"] = _field("CAUSAL_LM", "PEFT's task type.", identity=True)
    target_modules: str | list[str] = _field(
        ["o_proj", "qkv_proj", "gate_up_proj", "down_proj"],
        "Linear layers to adapt: names, or one regular expression over whole module paths.",
        identity=True,
    )
    exclude_modules: str | list[str] | None = _field(
        None, "Targets to leave out again: names, or one regular expression.", identity=True
    )
    layers_to_transform: int | list[int] | None = _field(
        None, "Indices of the decoder layers to adapt; null adapts all.", identity=True
    )
    use_rslora: bool = _field(
        False, "Scale by lora_alpha / sqrt(r) instead (arXiv 2312.03732).", identity=True
    )
    use_dora: bool = _field(
        False, "DoRA: train the length of each row too (arXiv 2402.09353).", identity=True
    )
    init_lora_weights: bool | Literal["pissa", "pissa_niter_4", "pissa_niter_16"] = _field(
        True,
        "true: A at random, B zero; pissa: the base's principal directions (arXiv 2404.02948), "
        "pissa_niter_N: the same by N quick steps. Saved as LoRA of twice the rank.",
        identity=True,
    )
    rank_pattern: dict[str, int] = _field(
        {}, "Ranks of their own for matching module names.", identity=True
    )
    alpha_pattern: dict[str, float] = _field(
        {}, "lora_alpha of their own for matching modules.", identity=True
    )


@dataclass(frozen=True)
class DataConfig(Section):
    """The rows, and how they become tokens with a loss mask."""

    dataset_name: str = _field(
        "dvgodoy/yoda_sentences",
        "A .csv, .json, .jsonl or .parquet file, a folder of train/valid/test files, a folder that "
        "datasets' save_to_disk has written, or a Hub id.",
        identity=False,
    )
    dataset_config: str | None = _field(
        None, "Configuration name of a Hub dataset.", identity=False
    )
    prompt_column: str | None = _field(
        None, "Column with the user's words; null recognises prompt or sentence.", identity=False
    )
    completion_column: str | None = _field(
        None,
        "Column with the answer; null recognises completion or translation_extra.",
        identity=False,
    )
    messages_column: str | None = _field(
        None, "Column with a list of {role, content}; null recognises messages.", identity=False
    )
    text_column: str | None = _field(
        None, "Column with plain text; null recognises text.", identity=False
    )
    train_on: Literal["completions", "all"] = _field(
        "completions",
        "Which tokens carry loss: those of the assistant's turns, or all.",
        identity=False,
    )
    validation_split: float = _field(
        0.0,
        "Share of the rows to hold out by seeded shuffle when the data has no such split.",
        identity=False,
    )
    max_length: int = _field(
        1024, "Longest row in tokens; what lies beyond is cut and counted.", identity=False
    )
    packing: Literal["none", "concat", "best_fit"] = _field(
        "none",
        "none: no padding is computed anyway; concat: TRL's old cut-and-chain rows of max_length; "
        "best_fit: whole examples share a row behind a block-diagonal mask.",
        identity=False,
    )


@dataclass(frozen=True)
class TrainConfig(Section):
    """The run (names and meaning as in transformers' TrainingArguments)."""

    output_dir: str = _field(
        "outputs/phi3-yoda", "Where the adapter and the checkpoints go.", identity=False
    )
    num_train_epochs: float = _field(10, "Passes over the training rows.", identity=False)
    max_steps: int = _field(
        -1, "Optimizer steps; overrides num_train_epochs if positive.", identity=False
    )
    per_device_train_batch_size: int = _field(4, "Rows in a micro-batch.", identity=False)
    per_device_eval_batch_size: int = _field(8, "Rows in an evaluation batch.", identity=False)
    gradient_accumulation_steps: int = _field(
        1, "Micro-batches in an optimizer step.", identity=False
    )
    auto_find_batch_size: bool = _field(
        True,
        "Lower the micro-batch, never the rows in an optimizer step, when memory does not allow "
        "more.",
        identity=False,
    )
    gradient_checkpointing: bool | Literal["auto"] = _field(
        "auto",
        "Recompute activations in the backward pass: always, never, or when needed.",
        identity=False,
    )
    optim: Literal["adamw_torch"] = _field(
        "adamw_torch", "PyTorch's AdamW, moments in float32.", identity=True
    )
    learning_rate: float = _field(3e-4, "Peak learning rate.", identity=True)
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = _field(
        "linear", "Transformers' schedule of that name.", identity=True
    )
    warmup_steps: int = _field(0, "Steps of linear warm-up.", identity=True)
    warmup_ratio: float = _field(
        0.0, "Warm-up as a share of all steps, if warmup_steps is 0.", identity=True
    )
    loraplus_lr_ratio: float = _field(
        1.0,
        "LoRA+ (arXiv 2402.12354): B learns at so many times A's rate; 1 is plain LoRA.",
        identity=True,
    )
    weight_decay: float = _field(0.0, "Decoupled weight decay on A and B.", identity=True)
    adam_beta1: float = _field(0.9, "Decay of the first moment.", identity=True)
    adam_beta2: float = _field(0.999, "Decay of the second moment.", identity=True)
    adam_epsilon: float = _field(1e-8, "Added to the root of the second moment.", identity=True)
    max_grad_norm: float = _field(
        1.0, "Clip the gradients to this global norm; 0 for never.", identity=True
    )
    logging_steps: int | float = _field(
        10, "Optimizer steps between two loss reports; below 1 a share of all steps.", identity=True
    )
    eval_strategy: Literal["no", "steps", "epoch"] = _field(
        "epoch", "When the held-out loss is measured, if there is a held-out split.", identity=False
    )
    eval_steps: int | float | None = _field(
        100,
        "Steps between evaluations, for eval_strategy: steps; below 1 a share of all steps, null "
        "for logging_steps.",
        identity=False,
    )
    save_strategy: Literal["no", "steps", "epoch", "best"] = _field(
        "epoch",
        "When a checkpoint is written; best: after an evaluation better than all before.",
        identity=False,
    )
    save_steps: int | float = _field(
        100,
        "Steps between checkpoints, for save_strategy: steps; below 1 a share of all steps.",
        identity=False,
    )
    save_total_limit: int | None = _field(
        2,
        "Checkpoints to keep, the newest and the best always among them; null keeps all.",
        identity=False,
    )
    stop_on_save_error: bool = _field(
        False,
        "End the run when a checkpoint cannot be written; else every step tries again.",
        identity=False,
    )
    load_best_model_at_end: bool = _field(
        False,
        "Write the adapter of the best checkpoint at the end, not the last one.",
        identity=False,
    )
    metric_for_best_model: str | None = _field(
        None,
        "What tells the best: loss, perplexity, exact_match or chrf; null means loss.",
        identity=True,
    )
    greater_is_better: bool | None = _field(
        None,
        "Whether more of that metric is better; null: of exact_match and chrf it is.",
        identity=True,
    )
    early_stopping_patience: int | None = _field(
        None,
        "Stop after so many evaluations in a row without improvement; null never stops.",
        identity=False,
    )
    early_stopping_threshold: float = _field(
        0.0,
        "By how much the metric must improve to count for early_stopping_patience.",
        identity=False,
    )
    report_to: str | list[str] = _field(
        "none",
        "Also log to tensorboard, wandb or trackio; a list of them, all, or none.",
        identity=False,
    )
    run_name: str | None = _field(
        None, "What the run is called there; null for the output folder's name.", identity=False
    )
    project: str = _field("mlx-yoda", "The project there, for wandb and trackio.", identity=False)
    predict_with_generate: bool = _field(
        False,
        "Generate the held-out answers before and after, and count exact matches.",
        identity=False,
    )
    generation_max_new_tokens: int = _field(
        64, "Longest generated answer, in tokens.", identity=True
    )
    compile: bool | Literal["auto"] = _field(
        "auto", "Compile the training step; auto compiles where that pays.", identity=False
    )
    seed: int = _field(42, "Seed of initialisation, data order and dropout.", identity=True)


@dataclass(frozen=True)
class Config:
    """A whole run: `model`, `lora`, `data` and `train`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
