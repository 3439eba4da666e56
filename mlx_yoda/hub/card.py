"""The model card: README.md of an adapter, made from the files beside it.

The Hub's own card classes write it (huggingface_hub's ModelCard, ModelCardData, EvalResult); its
text is the template `card.md` in this folder.
"""

import json
import math
import re
import shlex
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from mlx_yoda import files
from mlx_yoda.hub.base import Base, public_base
from mlx_yoda.hub.picture import loss_picture
from mlx_yoda.hub.record import METRICS_FILE, Record, read_record
from mlx_yoda.hub.tables import machine, results, samples, settings
from mlx_yoda.report.jsonl import blamed

CARD_FILE, LOSS_FILE = "README.md", "loss.svg"
_OURS = "<!-- Made by mlx-yoda"
MARKER = f"{_OURS} from the files beside it. Without this line it is left alone. -->"

_TEMPLATE = Path(__file__).parent / "card.md"
_METRICS = (  # key of the event, the Hub's identifier, its name for people
    ("eval_loss", "loss", "Held-out loss, nats a token"),
    ("eval_perplexity", "perplexity", "Held-out perplexity"),
    ("exact_match", "exact_match", "Exact match of greedy answers"),
    ("chrf", "chrf", "chrF of greedy answers"),
)


def make_card(record: Record, base: Base, *, adapter: str, license: str | None = None) -> ModelCard:
    """Write the card of a run; nothing in it tells where this machine keeps its files.

    Args:
        record: the run.
        base: its base's name in public.
        adapter: where readers find the adapter: a Hub id, or a folder's name.
        license: the Hub's identifier of the adapter's licence; None leaves it out.
    """
    started, after = record.last("started"), record.last("generate", when="after")
    finished = record.last("finished")
    held_out = started.get("validation_rows") if record.evaluated else after.get("rows")
    prompt = next((s["prompt"] for s in after.get("samples", ())), "Where are you going?")
    return ModelCard.from_template(
        _metadata(record, base, adapter, license),
        template_path=str(_TEMPLATE),
        marker=MARKER,
        title=adapter.rpartition("/")[2],
        adapter=adapter,
        base=base.name,
        base_kind=base.kind,
        base_words=_link(base.name, "") if base.kind == "hub" else f"`{base.name}`",
        data_words=_data_words(record),
        method="DoRA" if record.keys.get("use_dora") else "LoRA",
        bits=started.get("base_bits"),
        steps=finished.get("step"),
        kept=kept if (kept := finished.get("kept_step")) != finished.get("step") else None,
        picture=loss_picture(record) is not None,
        samples=samples(record),
        results=results(record),
        held_out=held_out,
        prompt=_python_text(prompt),
        prompt_word=shlex.quote(" ".join(prompt.split())),
        base_word=shlex.quote(base.name),
        adapter_word=shlex.quote(adapter),
        settings=settings(record),
        config_file=record.config is not None,
        machine=machine(record),
    )


def write_card(folder: Path) -> None:
    """Write README.md and its picture into the folder of a run, unless the user's own is there."""
    if is_ours(folder / CARD_FILE):
        record = read_record(folder)
        with blamed(folder / METRICS_FILE):
            picture = loss_picture(record)
            card = make_card(record, public_base(record), adapter=_where(record))
        if picture:
            files.write_text(folder / LOSS_FILE, picture)
        files.write_text(folder / CARD_FILE, as_text(card))


def as_text(card: ModelCard) -> str:
    """The whole file, metadata and text."""
    return str(card).rstrip("\n") + "\n"


def is_ours(card: Path) -> bool:
    """Whether a README.md may be written anew: there is none, or it is one that we made."""
    return not card.is_file() or _OURS in card.read_text(encoding="utf-8", errors="replace")


def _metadata(record: Record, base: Base, adapter: str, license: str | None) -> ModelCardData:
    """What the Hub files the adapter under. It takes Hub ids alone for base and data set."""
    dataset = _dataset(record)
    measured = _eval_results(record)
    return ModelCardData(
        base_model=base.name if base.kind == "hub" else None,
        base_model_relation="adapter" if base.kind == "hub" else None,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["dora" if record.keys.get("use_dora") else "lora", "sft", "mlx", "mlx-yoda"],
        datasets=[dataset] if dataset and dataset != "demo" else None,
        license=license or ("apache-2.0" if base.kind == "demo" else None),
        metrics=[result.metric_type for result in measured] or None,
        model_name=adapter.rpartition("/")[2] if measured else None,
        eval_results=measured or None,
    )


def _eval_results(record: Record) -> list[EvalResult]:
    """What the run measured at its end, as the Hub's model-index has it."""
    name, measured = _dataset_name(record), record.last("generate", when="after") | record.evaluated
    found = []
    for key, metric, words in _METRICS:
        value = measured.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            found.append(
                EvalResult(
                    task_type="text-generation",
                    dataset_type=_dataset(record) or re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII),
                    dataset_name=name,
                    dataset_split="validation",
                    metric_type=metric,
                    metric_name=words,
                    metric_value=round(value, 6),
                )
            )
    return found


def _dataset(record: Record) -> str | None:
    """The data set's Hub id or `demo`, if others can find it."""
    found = record.last("started").get("dataset")
    return found if isinstance(found, str) else None


def _dataset_name(record: Record) -> str:
    configured = record.config.data.dataset_name if record.config else ""
    return _dataset(record) or Path(configured).name or "data"


def _data_words(record: Record) -> str | None:
    started, dataset = record.last("started"), _dataset(record)
    if not started:
        return None
    rows = f"{started['train_rows']} rows"
    if dataset == "demo":
        return f"{rows} of mlx-yoda's demonstration data"
    return f"{rows} of {_link(dataset, 'datasets/')}" if dataset else f"{rows} of its maker's own"


def _where(record: Record) -> str:
    """The folder as the run's configuration has it, but no more than its name if that is long."""
    configured = Path(record.config.train.output_dir) if record.config else record.folder
    plain = not configured.is_absolute() and ".." not in configured.parts
    return str(configured) if plain else record.folder.resolve().name


def _link(hub_id: str, kind: str) -> str:
    return f"[{hub_id}](https://huggingface.co/{kind}{hub_id})"


def _python_text(text: str) -> str:
    """Text as a Python literal in double quotes, which JSON's are."""
    return json.dumps(" ".join(text.split()), ensure_ascii=False)
