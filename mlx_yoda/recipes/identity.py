"""What a checkpoint belongs to: everything that changes the mathematics of a run."""

import json
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

from mlx_yoda.config.schema import Config
from mlx_yoda.lora.pissa import as_saved
from mlx_yoda.model.load import DEMO, Loaded, is_demo
from mlx_yoda.train.checkpoint import Identity
from mlx_yoda.train.plan import Plan

_PAGES, _PAGE = 64, 4096  # of a file of weights, and their bytes
_TRAIN_KEYS = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "warmup_ratio",
    "loraplus_lr_ratio",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "logging_steps",
    "metric_for_best_model",
    "greater_is_better",
    "seed",
)


def identify(config: Config, base: Loaded, plan: Plan) -> Identity:
    """Fingerprint a run.

    Of the base's gigabytes of weights some pages of each file are hashed, not all: another base
    differs nearly everywhere.
    """
    train, stored = asdict(config.train), dict(base.config)
    packing = None
    if config.model.quantization is not None:  # what was done on load is no part of the files
        packing = stored.pop("quantization")
        del stored["quantization_config"]
    fingerprints = {f"train.{key}": train[key] for key in _TRAIN_KEYS}
    fingerprints |= {f"lora.{key}": value for key, value in asdict(config.lora).items()}
    fingerprints |= {
        "model.dtype": config.model.dtype,
        "model.quantization": packing,
        "the base's config.json": _digest(json.dumps(stored, sort_keys=True).encode()),
        "the base's weights": _digest_weights(base.path),
        "the training rows": plan.rows.digest(),
        "rows per optimizer step": plan.rows_per_step,
        "total steps": plan.total_steps,
    }
    return Identity(
        lora=as_saved(config.lora),
        base=base_name(base),
        revision=config.model.model_revision,
        fingerprints=fingerprints,
        architecture=base.config["model_type"],
        processes=plan.part.planned,
    )


def base_name(base: Loaded) -> str:
    """The base as an adapter names it: a Hub id or `demo` as it is, a folder by its absolute path.

    The demo's folder belongs to an installation, which the next one replaces.
    """
    return public_name(base) or str(base.path.resolve())


def public_name(base: Loaded) -> str | None:
    """What others find the base by: its Hub id, or `demo`; None for a folder here."""
    if is_demo(base.path):
        return DEMO
    return None if Path(base.name).exists() else base.name


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:16]


def _digest_weights(folder: Path) -> str:
    """Of the sizes of all weight files and of 64 pages of each, evenly spread."""
    digest = sha256()
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(str(size).encode())
        with path.open("rb") as file:
            for page in range(_PAGES):
                file.seek(max(0, size - _PAGE) * page // (_PAGES - 1))
                digest.update(file.read(_PAGE))
    return digest.hexdigest()[:16]
