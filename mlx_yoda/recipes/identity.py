"""What a checkpoint belongs to: everything that changes the mathematics of a run."""

import json
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

from mlx_yoda.config.keys import keys
from mlx_yoda.config.schema import Config
from mlx_yoda.digests import digest_of
from mlx_yoda.lora.pissa import as_saved
from mlx_yoda.model.load import DEMO, Loaded, is_demo
from mlx_yoda.recipes.dataset import Dataset
from mlx_yoda.train.checkpoint import Identity
from mlx_yoda.train.plan import Plan

_PAGES, _PAGE = 64, 4096  # of a file of weights, and their bytes


def identify(config: Config, base: Loaded, data: Dataset, plan: Plan) -> Identity:
    """Fingerprint a run: the settings that the schema marks, the base, the rows and the steps."""
    sections, stored = asdict(config), dict(base.config)
    packing = None
    if config.model.quantization is not None:  # what was done on load is no part of the files
        packing = stored.pop("quantization")
        del stored["quantization_config"]
    fingerprints = {
        path: sections[key.section][key.name] for path, key in keys().items() if key.identity
    }
    fingerprints |= {
        "model.quantization": packing,
        "the base's config.json": _digest(json.dumps(stored, sort_keys=True).encode()),
        "the base's weights": _digest_pages(base.path),
        "all bytes of the base's weights": _digest_weights(base.path),
        "the training rows": data.train.digest(),
        "the held-out rows": data.validation.digest(),
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


def _digest_pages(folder: Path) -> str:
    """Of the sizes of all weight files and of 64 pages of each: all that older checkpoints have."""
    digest = sha256()
    for path in _weight_files(folder):
        size = path.stat().st_size
        digest.update(str(size).encode())
        with path.open("rb") as file:
            for page in range(_PAGES):
                file.seek(max(0, size - _PAGE) * page // (_PAGES - 1))
                digest.update(file.read(_PAGE))
    return digest.hexdigest()[:16]


def _digest_weights(folder: Path) -> str:
    """Of every byte of all weight files."""
    digest = sha256()
    for path in _weight_files(folder):
        digest.update(digest_of(path).encode())
    return digest.hexdigest()[:16]


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))
