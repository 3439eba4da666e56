"""Parts of the README that are made by a program, each between two markers of its own."""

from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def replaced(readme: str, name: str, text: str) -> str:
    """A README with this text between the markers of that name.

    Raises:
        ValueError: the markers are not there once each.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, opened, rest = readme.partition(begin)
    _, closed, after = rest.partition(end)
    if not (opened and closed) or begin in after or end in after:
        raise ValueError(f"the README needs {begin.strip()} and {end} once each")
    return f"{before}{begin}{text}{end}{after}"


def write(name: str, text: str) -> None:
    """Put the text between the markers in the README itself."""
    README.write_text(replaced(README.read_text("utf-8"), name, text), encoding="utf-8")
