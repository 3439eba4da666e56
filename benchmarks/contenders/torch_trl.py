"""TRL's SFTTrainer on rows already tokenised."""

import tempfile
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from benchmarks.contenders.job import Job, Outcome, Row
from benchmarks.contenders.torch_peft import (
    Clock,
    base_model,
    outcome,
    peft_config,
    settings,
    warm_up,
)


def run(job: Job) -> Outcome:
    """One epoch, without packing, which in TRL wants FlashAttention to be exact."""
    rows, valid = job.read_rows()
    torch.manual_seed(job.seed)
    clock, computed = Clock(), 0
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=base_model(job),
            args=SFTConfig(**settings(job, folder), max_length=job.max_length, bf16=False),
            train_dataset=Dataset.from_list([_columns(row) for row in rows]),
            peft_config=peft_config(job),
            callbacks=[clock],
        )
        collate = trainer.data_collator

        def counted(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            nonlocal computed
            batch = collate(examples)
            computed += batch["input_ids"].numel()
            return batch

        trainer.data_collator = counted
        warm_up_seconds = warm_up(trainer.model, rows, job)
        trainer.train()
    return outcome(trainer, job, clock, computed, warm_up_seconds, valid)


def _columns(row: Row) -> dict[str, list[int]]:
    start = max(1, row.prompt)
    return {
        "input_ids": row.tokens,
        "labels": [-100] * start + row.tokens[start:],
    }
