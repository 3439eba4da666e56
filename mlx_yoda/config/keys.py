"""The keys of the configuration, as the schema has them, and help with a key that is none."""

from dataclasses import MISSING, Field, dataclass, fields
from difflib import get_close_matches
from functools import cache
from typing import Any, get_type_hints

from mlx_yoda.config.elsewhere import ELSEWHERE
from mlx_yoda.config.schema import Config


@dataclass(frozen=True)
class Key:
    """One thing that can be configured.

    Attributes:
        section: `model`, `lora`, `data` or `train`.
        name: the field's name, unique over all sections.
        annotation: the field's type.
        default: its default value.
        help: its one-line help.
        identity: whether a resumed run must have the value that the run began with.
    """

    section: str
    name: str
    annotation: Any
    default: Any
    help: str
    identity: bool

    @property
    def path(self) -> str:
        """The key in full: `lora.r`."""
        return f"{self.section}.{self.name}"


@cache
def sections() -> dict[str, type]:
    """Section name → its dataclass, in the schema's order."""
    return get_type_hints(Config)


@cache
def keys() -> dict[str, Key]:
    """Full name → key, in the schema's order."""
    found = {}
    for section, cls in sections().items():
        annotations = get_type_hints(cls)
        for field in fields(cls):
            annotation = annotations[field.name]
            key = Key(section, field.name, annotation, _default(field), **field.metadata)
            found[key.path] = key
    return found


@cache
def own_names() -> dict[str, str]:
    """A field's name → its full name: `r` → `lora.r`."""
    return {key.name: path for path, key in keys().items()}


def counterpart(name: str) -> str | None:
    """Our key for a name that stands alone or comes from another program.

    Returns:
        `lora.r` for `rank`; `model.quantization={bits: 4}` where only one value means the same;
        None where nothing does.
    """
    return own_names().get(name) or ELSEWHERE.get(name)


def advice(section: str | None, name: str) -> str:
    """What to say about a key that does not exist: where it belongs, or what it may be.

    Args:
        section: the section it was looked for in; None for the top level.
        name: the unknown name.
    """
    if ours := counterpart(name):
        return f"write {ours}" if "=" in ours else f"it is called {ours} here"
    if section is None and (near := get_close_matches(name, sections(), n=1)):
        return f"did you mean the section {near[0]}"
    of_section = [key.name for key in keys().values() if key.section == section]
    candidates = {key.name: key.path for key in keys().values() if key.name not in of_section}
    candidates |= {own: f"{section}.{own}" for own in of_section}
    near = get_close_matches(name, of_section, n=1) or get_close_matches(name, candidates, n=1)
    if near:
        return f"did you mean {candidates[near[0]]}"
    if section is None:
        return f"the sections are {', '.join(sections())}"
    return f"the keys of {section} are {', '.join(of_section)}"


def _default(field: Field) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default
