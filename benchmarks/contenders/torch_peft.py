"""Transformers' Trainer with PEFT's LoRA, on MPS, CUDA or the CPU, whichever there is."""

import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from benchmarks.contenders import resident
from benchmarks.contenders.job import TARGETS, Job, Outcome, Row, padded


class Clock(TrainerCallback):
    """Takes the time and the memory of a training."""

    seconds, started, resident = 0.0, 0.0, 0
    allocated: int | None = None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        resident.reset_peak()
        self.started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """MPS tells no peak, but what it holds now, freed blocks included."""
        if torch.backends.mps.is_available():
            held = torch.mps.driver_allocated_memory()
            self.allocated = max(self.allocated or 0, held)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop, when the device is done."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            self.allocated = torch.cuda.max_memory_allocated()
        elif torch.backends.mps.is_available():
            torch.mps.synchronize()
        self.seconds = time.perf_counter() - self.started
        self.resident = resident.peak()


class Collator:
    """Pads to the longest row of a batch, and counts what it makes."""

    def __init__(self) -> None:
        self.computed = 0

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Tensors `(B, T)`."""
        rows = [Row(example["tokens"], example["prompt"]) for example in examples]
        batch = tensors(rows)
        self.computed += batch["input_ids"].numel()
        return batch


def run(job: Job) -> Outcome:
    """One epoch."""
    rows, valid = job.read_rows()
    torch.manual_seed(job.seed)
    model = get_peft_model(base_model(job), peft_config(job))
    collator, clock = Collator(), Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(**settings(job, folder), remove_unused_columns=False),
            train_dataset=[row._asdict() for row in rows],
            data_collator=collator,
            callbacks=[clock],
        )
        warm_up_seconds = warm_up(trainer.model, rows, job)
        trainer.train()
    return outcome(trainer, job, clock, collator.computed, warm_up_seconds, valid)


def base_model(job: Job) -> Any:
    """The base in the job's dtype."""
    return AutoModelForCausalLM.from_pretrained(job.model, dtype=getattr(torch, job.dtype))


def peft_config(job: Job) -> LoraConfig:
    """LoRA as everyone has it."""
    return LoraConfig(
        r=job.rank,
        lora_alpha=job.alpha,
        lora_dropout=job.dropout,
        target_modules=list(TARGETS),
        task_type="CAUSAL_LM",
    )


def settings(job: Job, folder: str) -> dict[str, Any]:
    """Transformers' TrainingArguments for one epoch with nothing on the side."""
    return {
        "output_dir": folder,
        "num_train_epochs": 1,
        "per_device_train_batch_size": job.batch_size,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "constant",
        "gradient_checkpointing": job.checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "seed": job.seed,
    }


def tensors(rows: list[Row]) -> dict[str, torch.Tensor]:
    """A padded batch."""
    tokens, labels = padded(rows)
    mask = [[int(t < len(row.tokens)) for t in range(tokens.shape[1])] for row in rows]
    return {
        "input_ids": torch.tensor(tokens),
        "labels": torch.tensor(labels),
        "attention_mask": torch.tensor(mask),
    }


def warm_up(model: Any, rows: list[Row], job: Job) -> float:
    """Gradients of the longest rows and of the shortest, thrown away; the seconds it took."""
    started = time.perf_counter()
    model.train()
    order = sorted(rows, key=lambda row: len(row.tokens))
    for batch in (order[-job.batch_size :], order[: job.batch_size]):
        inputs = {name: t.to(model.device) for name, t in tensors(batch).items()}
        model(**inputs).loss.backward()
        model.zero_grad()
    return time.perf_counter() - started


def outcome(
    trainer: Any, job: Job, clock: Clock, computed: int, warm_up_seconds: float, valid: list[Row]
) -> Outcome:
    """What the trained model and the clock tell."""
    rows, _ = job.read_rows()
    packages = ["torch", "transformers", "peft"]
    packages += ["trl"] if job.program == "torch_trl" else []
    return Outcome(
        seconds=clock.seconds,
        warm_up_seconds=warm_up_seconds,
        updates=trainer.state.global_step,
        input_tokens=sum(len(row.tokens) for row in rows),
        supervised_tokens=sum(row.targets for row in rows),
        computed_tokens=computed,
        peak_allocated=clock.allocated,
        peak_resident=clock.resident,
        held_out_loss=held_out(trainer.model, valid),
        device=str(trainer.model.device),
        versions={name: version(name) for name in packages},
        threads=torch.get_num_threads(),
    )


def held_out(model: Any, rows: list[Row]) -> float:
    """Nats a supervised token, row by row."""
    model.eval()
    cross_entropy: Callable[..., torch.Tensor] = torch.nn.functional.cross_entropy
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            inputs = {name: t.to(model.device) for name, t in tensors([row]).items()}
            labels = inputs.pop("labels")[0, 1:]
            logits = model(**inputs).logits[0, :-1].float()
            total += cross_entropy(logits, labels, ignore_index=-100, reduction="sum").item()
            count += row.targets
    return total / count
