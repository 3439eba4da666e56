"""Writes the demo's sentences: `python -m mlx_yoda.demo.dataset DIR` makes train and valid."""

import argparse
import json
from pathlib import Path

from mlx_yoda.demo.grammar import pairs
from mlx_yoda.files import new_directory, write_text

SEED = 7
TRAIN_ROWS = 720
VALID_ROWS = 72


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the demo's training and held-out rows.")
    parser.add_argument("directory", type=Path, help="where to write them; must not exist")
    save(parser.parse_args().directory)


def save(directory: Path) -> None:
    """Write train.jsonl and valid.jsonl; no sentence is in both."""
    rows = pairs(SEED, TRAIN_ROWS + VALID_ROWS)
    with new_directory(directory) as folder:
        write_text(folder / "train.jsonl", _json_lines(rows[:TRAIN_ROWS]))
        write_text(folder / "valid.jsonl", _json_lines(rows[TRAIN_ROWS:]))


def _json_lines(rows: list[tuple[str, str]]) -> str:
    lines = [json.dumps({"sentence": plain, "translation": yoda}) for plain, yoda in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
