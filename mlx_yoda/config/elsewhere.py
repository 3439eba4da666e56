"""What other programs call our keys, and a configuration that was written for one of them."""

from collections.abc import Iterable

# Their name → our key, with a value where only one value of ours does what theirs does.
ELSEWHERE = {
    "adapter_path": "train.output_dir",
    "alpha": "lora.lora_alpha",
    "assistant_only_loss": "data.train_on",
    "base_model": "model.model_name_or_path",
    "batch_size": "train.per_device_train_batch_size",
    "bf16": "model.dtype=bfloat16",
    "completion_only_loss": "data.train_on",
    "cutoff_len": "data.max_length",
    "data": "data.dataset_name",
    "dataset": "data.dataset_name",
    "dataset_text_field": "data.text_column",
    "dora": "lora.use_dora",
    "dropout": "lora.lora_dropout",
    "epochs": "train.num_train_epochs",
    "evaluation_strategy": "train.eval_strategy",
    "fp16": "model.dtype=float16",
    "grad_accumulation_steps": "train.gradient_accumulation_steps",
    "grad_checkpoint": "train.gradient_checkpointing",
    "iters": "train.max_steps",
    "load_in_4bit": "model.quantization={bits: 4}",
    "load_in_8bit": "model.quantization={bits: 8}",
    "lora_r": "lora.r",
    "lora_rank": "lora.r",
    "lora_target_modules": "lora.target_modules",
    "lr": "train.learning_rate",
    "lr_schedule": "train.lr_scheduler_type",
    "lr_scheduler": "train.lr_scheduler_type",
    "mask_prompt": "data.train_on=completions",
    "max_new_tokens": "train.generation_max_new_tokens",
    "max_seq_len": "data.max_length",
    "max_seq_length": "data.max_length",
    "micro_batch_size": "train.per_device_train_batch_size",
    "model": "model.model_name_or_path",
    "model_id": "model.model_name_or_path",
    "model_max_length": "data.max_length",
    "model_name": "model.model_name_or_path",
    "num_epochs": "train.num_train_epochs",
    "optimizer": "train.optim",
    "q_bits": "model.quantization={bits: 4}",
    "q_group_size": "model.quantization={bits: 4, group_size: 64}",
    "q_mode": "model.quantization={mode: mxfp4}",
    "quantization_config": "model.quantization",
    "quantize": "model.quantization",
    "rank": "lora.r",
    "resume_adapter_file": "model.init_adapter",
    "revision": "model.model_revision",
    "save_every": "train.save_steps",
    "sequence_len": "data.max_length",
    "steps_per_eval": "train.eval_steps",
    "steps_per_report": "train.logging_steps",
    "torch_dtype": "model.dtype",
    "train_on_inputs": "data.train_on",
}
# Of mlx-lm's mapping `lora_parameters`, which has its own scale, not lora_alpha's.
_LORA_PARAMETERS = {
    "rank": "lora.r",
    "alpha": "lora.lora_alpha",
    "scale": "lora.lora_alpha (scale * rank)",
    "dropout": "lora.lora_dropout",
    "keys": "lora.target_modules",
}
_NESTED = "lora_parameters"
_PROGRAMS = {
    "mlx-lm's": {
        "adapter_path", "fine_tune_type", "grad_checkpoint", "iters", "lora_layers", _NESTED,
        "mask_prompt", "num_layers", "resume_adapter_file", "save_every", "steps_per_eval",
        "steps_per_report", "val_batches",
    },
    "TRL's or Transformers'": {
        "dataset_name", "lora_r", "lora_target_modules", "model_name_or_path", "num_train_epochs",
        "per_device_train_batch_size",
    },
}  # fmt: skip


def program_of(names: Iterable[str]) -> str:
    """Whose configuration has these top-level keys, as a possessive."""
    found = {*names}
    return next((whose for whose, marks in _PROGRAMS.items() if marks & found), "another program's")


def counterparts(names: Iterable[str], own: dict[str, str]) -> tuple[list[str], list[str]]:
    """What to write for the keys of another program's file.

    Args:
        names: of the keys; those within `lora_parameters` as `lora_parameters.rank`.
        own: our names → our keys in full.

    Returns:
        Pairs such as `iters → train.max_steps`, and the names that nothing here stands for.
    """
    pairs, unknown = [], []
    for name in names:
        outer, _, inner = name.partition(".")
        table = _LORA_PARAMETERS if outer == _NESTED else own | ELSEWHERE
        ours = table.get(inner or outer)
        if ours:
            pairs.append(f"{name} → {ours.replace('=', ': ', 1)}")
        else:
            unknown.append(name)
    return pairs, unknown
