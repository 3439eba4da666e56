"""The files of a tokenizer, which a finished run keeps beside its adapter, as TRL's runs do."""

from pathlib import Path

from mlx_yoda import files

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)


def copy_tokenizer(source: Path, destination: Path) -> None:
    """Copy the tokenizer of a model folder into another folder, file by whole file."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            files.write_bytes(destination / name, (source / name).read_bytes())
