"""What the README promises word for word is there."""

import re
from pathlib import Path

import pytest

from mlx_yoda import __version__

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def section(title):
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def sources():
    """All messages of the package, with what is written over several lines put together."""
    text = "\n".join(path.read_text("utf-8") for path in (ROOT / "mlx_yoda").rglob("*.py"))
    return re.sub(r'"\s*\n\s*f?"', "", text)


MESSAGES = re.findall(r"^\| `([^`]+)` \|", section("When something goes wrong"), re.MULTILINE)


@pytest.mark.parametrize("message", MESSAGES)
def test_the_messages_that_are_explained_are_printed(message):
    for part in message.split("…"):
        assert part.strip() in sources()


def test_there_are_messages():
    assert len(MESSAGES) >= 10


def test_every_picture_and_file_it_links_to_is_there():
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", README)
    assert "benchmarks/demo.svg" in links
    for link in links:
        assert (ROOT / link).is_file(), link


def test_the_spanish_commands_are_the_english_ones():
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert len(commands) == 4
    assert commands[:2] == commands[2:]


def test_the_version_to_cite_is_this_one():
    assert f"version = {{{__version__}}}" in section("How to cite")
