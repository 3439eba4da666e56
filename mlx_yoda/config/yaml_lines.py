"""A configuration file's values with the lines they stand on."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mlx_yoda.errors import UserError


class Entry(NamedTuple):
    """One value on its way into the configuration.

    Attributes:
        section, key: where it belongs.
        value: as YAML has it.
        place: where it was written, for messages: `run.yaml, line 7`.
    """

    section: str
    key: str
    value: Any
    place: str


def read_entries(file: Path) -> list[Entry]:
    """Read a configuration file.

    Raises:
        UserError: it cannot be read, is no YAML, is no mapping of sections to mappings, or
            holds a key twice.
    """
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise UserError(f"there is no configuration file {file}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}.") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{file}, line {line}: no valid YAML ({error.problem}).") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{file} is no valid YAML ({type(error).__name__}).") from None
    entries = []
    for section, node in _items(root, file, "the file"):
        for key, value in _items(node, file, section):
            entries.append(Entry(section, key, _value(value, file), _place(file, value)))
    return entries


class _Loader(yaml.SafeLoader):
    """YAML without anchors: a configuration needs none, and ten lines of them fill the memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, "aliases are not supported", event.start_mark
            )
        return super().compose_node(parent, index)


def _items(node: yaml.Node | None, file: Path, name: str) -> list[tuple[str, yaml.Node]]:
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
        return []  # an empty file, or a section with everything commented out
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{_place(file, node)}: {name} must be a mapping of keys to values.")
    seen: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"{_place(file, key)}: a key must be a name.")
        if key.value in seen:
            raise UserError(f"{_place(file, key)}: {key.value} stands twice in {name}.")
        seen[key.value] = value
    return list(seen.items())


def _value(node: yaml.Node, file: Path) -> Any:
    constructor = yaml.constructor.SafeConstructor()
    try:
        return constructor.construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        problem = getattr(error, "problem", None) or error
        raise UserError(f"{_place(file, node)}: no usable value ({problem}).") from None


def _place(file: Path, node: yaml.Node) -> str:
    return f"{file}, line {node.start_mark.line + 1}"
