"""The tables of a model card: rows of cells that are safe in Markdown."""

import re
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from mlx_yoda.hub.record import Record
from mlx_yoda.report.words import duration, size

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~$&])")
_ALWAYS = {  # shown whatever their values
    "lora": ("r", "lora_alpha", "lora_dropout", "target_modules"),
    "data": ("train_on", "max_length"),
    "train": (
        "num_train_epochs",
        "learning_rate",
        "lr_scheduler_type",
        "max_grad_norm",
        "seed",
    ),
}
_NEVER = {"output_dir", "dataset_name", "logging_steps", "per_device_train_batch_size"}

Cells = list[tuple[str, ...]]


def cell(text: object, limit: int = 240) -> str:
    """Any text as one cell of a table: one line, nothing in it means anything to Markdown."""
    line = " ".join(str(text).split())
    line = "".join(char if char.isprintable() else "�" for char in line)
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    return _SPECIAL.sub(r"\\\1", line)


def code(value: object) -> str:
    """A value in the type of a typewriter, unless that would break it."""
    text = str(value)
    return f"`{text}`" if not set(text) & set("`|\n") and len(text) <= 240 else cell(text)


def samples(record: Record) -> Cells:
    """Prompt, the base's answer, the adapter's, and the one wanted."""
    before = {
        sample["prompt"]: sample["answer"]
        for sample in record.last("generate", when="before").get("samples", ())
    }
    return [
        tuple(
            cell(text)
            for text in (
                sample["prompt"],
                before.get(sample["prompt"], ""),
                sample["answer"],
                sample["reference"],
            )
        )
        for sample in record.last("generate", when="after").get("samples", ())
    ]


def results(record: Record) -> Cells:
    """What was measured: name, of the base, with the adapter; empty where it was not."""
    before = record.last("generate", when="before")
    after = record.last("generate", when="after")
    evaluated, finished = record.evaluated, record.last("finished")
    rows = [
        ("held-out loss", None, evaluated.get("eval_loss"), ".4f"),
        ("held-out perplexity", None, evaluated.get("eval_perplexity"), ".3f"),
        ("exact match", before.get("exact_match"), after.get("exact_match"), ".3f"),
        ("chrF", before.get("chrf"), after.get("chrf"), ".1f"),
        ("mean training loss", None, finished.get("train_loss"), ".4f"),
    ]
    return [
        (name, *("" if value is None else format(value, form) for value in (base, tuned)))
        for name, base, tuned, form in rows
        if tuned is not None
    ]


def settings(record: Record) -> Cells:
    """The settings that matter, and every other one that is not its default's."""
    if record.config is None:
        kept = ("r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora")
        return [
            (code(name), code(_words(record.keys[name]))) for name in kept if name in record.keys
        ]
    started = record.last("started")
    rows: Cells = []
    if started:
        rows.append(("rows in an optimizer step", code(started["rows_per_step"])))
    for section, always in _ALWAYS.items():
        values = getattr(record.config, section)
        defaults = asdict(type(values)())
        for field in fields(values):
            value = getattr(values, field.name)
            shown = field.name in always or value != defaults[field.name]
            if shown and field.name not in _NEVER:
                rows.append((code(field.name), code(_words(value))))
    if dtype := record.config.model.dtype:
        rows.append(("dtype of the base", code(dtype)))
    return rows


def machine(record: Record) -> Cells:
    """The hardware, how long it took, and the versions."""
    started, finished = record.last("started"), record.last("finished")
    facts, versions = started.get("machine") or {}, started.get("versions") or {}
    rows: list[tuple[str, Any]] = [
        ("chip", facts.get("chip")),
        ("memory", _if_number(facts.get("memory_bytes"), size)),
        ("system", facts.get("os")),
        ("MLX computed on the", facts.get("device")),
        ("time in steps", _if_number(finished.get("train_runtime"), duration)),
        ("tokens seen, supervised", _counts(finished)),
        ("peak of MLX's allocator", _if_number(record.last("step").get("peak_memory"), size)),
        ("versions", ", ".join(f"{name} {v}" for name, v in versions.items() if v)),
    ]
    return [(name, cell(value)) for name, value in rows if value]


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {v}" for name, v in value.items())
    match value:
        case None:
            return "none"
        case True | False:
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _if_number(value: Any, words: Callable[[Any], str]) -> str | None:
    return words(value) if isinstance(value, int | float) else None


def _counts(finished: dict[str, Any]) -> str | None:
    if "input_tokens" not in finished:
        return None
    return f"{finished['input_tokens']:,}, {finished['supervised_tokens']:,}"
