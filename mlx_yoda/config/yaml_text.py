"""YAML in and out: a file's keys with the lines they stand on, and a configuration as text."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

import yaml
from yaml.composer import ComposerError

from mlx_yoda.config.elsewhere import counterparts, program_of
from mlx_yoda.config.keys import advice, own_names, sections
from mlx_yoda.config.schema import Config
from mlx_yoda.config.values import Plain, shown
from mlx_yoda.errors import UserError

_DEEPEST = 3  # a list in a mapping in a value; nothing in the schema is that deep


class Entry(NamedTuple):
    """A key of a file with its raw value and the line, from 1, that it stands on."""

    section: str
    name: str
    value: Any
    line: int


class _Loader(yaml.SafeLoader):
    """Reads every plain scalar as text; the schema says what it means.

    Aliases are refused: a few lines of them can stand for more values than any memory holds.
    """

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 (PyYAML's way to configure a loader)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose what comes next, unless it repeats something."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            problem = f"aliases, such as *{event.anchor[:40]}, are not read here"
            raise ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)


def read_entries(text: str, file: str) -> list[Entry]:
    """The entries of a configuration file, in its order.

    Args:
        text: the file's content.
        file: its name, for messages.

    Raises:
        UserError: it is no YAML, or not sections of keys, or says a key twice.
    """
    root = _compose(text, file)
    if root is None or _is_null(root):
        return []
    top = list(_pairs(root, file, "the file"))
    _refuse_foreign(top, file)
    entries = []
    for section, node, line in top:
        if section not in sections():
            raise UserError(
                f"{file}:{line}: there is no section {shown(Plain(section))}; "
                f"{advice(None, section)}."
            )
        if _is_null(node):
            continue
        for name, value, at in _pairs(node, file, section):
            entries.append(
                Entry(section, name, _value(value, f"{file}:{at}: {section}.{name}"), at)
            )
    return entries


def read_value(text: str) -> Any:
    """What an option's text means: a flow list, a flow mapping, a quoted text, or `Plain`.

    What only looks like YAML, such as the expression `[a-z]+_proj`, is taken as it is.
    """
    if text[:1] in ("[", "{", '"', "'"):
        try:
            node = _compose(text, "")
            return Plain(text) if node is None else _value(node, "")
        except UserError:
            pass
    return Plain(text)


def to_yaml(config: Config) -> str:
    """The whole configuration as YAML; `load_config` on it gives the same configuration."""
    # In ASCII: PyYAML folds a bare U+0085 as if it were a space, and loses it.
    return yaml.safe_dump(asdict(config), sort_keys=False, width=100)


def _compose(text: str, file: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UserError(f"{file}:{line} is broken YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} is broken YAML: {reason}.") from None
    except (ValueError, OverflowError) as error:  # PyYAML's own: of a version, of an escape
        raise UserError(f"{file} is broken YAML: {str(error)[:100]}.") from None
    except RecursionError:
        raise UserError(f"{file} is nested too deeply to be a configuration.") from None


def _refuse_foreign(top: list[tuple[str, yaml.Node, int]], file: str) -> None:
    """Say what to write for a file without sections, as mlx-lm and TRL have them.

    Raises:
        UserError: it has none, and some of its keys are known.
    """
    names = []
    for name, node, _ in top:
        inner = node.value if isinstance(node, yaml.MappingNode) else []
        if name in sections() and (inner or _is_null(node)):
            return
        scalars = [key.value for key, _ in inner if isinstance(key, yaml.ScalarNode)]
        names += [f"{name}.{key}" for key in scalars] if name == "lora_parameters" else [name]
    pairs, unknown = counterparts(names, own_names())
    if len(names) < 2 or not pairs:
        return
    nothing = f" Nothing here stands for {', '.join(map(_shown_name, unknown))}." * bool(unknown)
    raise UserError(
        f"{file}: this is {program_of(name for name, _, _ in top)} configuration, and here keys "
        f"stand in sections, as in 'lora: {{r: 8}}'. Write {', '.join(pairs)}.{nothing}"
    )


def _shown_name(name: str) -> str:
    return shown(Plain(name))


def _pairs(node: yaml.Node, file: str, what: str) -> Iterator[tuple[str, yaml.Node, int]]:
    """The keys of a mapping with their nodes and lines, each once."""
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        raise UserError(
            f"{file}:{line}: {what} must hold keys and values, as in 'lora:' or 'r: 8'."
        )
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"{file}:{line}: a key must be a name.")
        if key.value in seen:
            first = seen[key.value]
            name = shown(Plain(key.value))
            raise UserError(f"{file}:{line}: {name} is there already, on line {first}.")
        seen[key.value] = line
        yield key.value, value, line


def _value(node: yaml.Node, place: str, depth: int = 0) -> Any:
    if node.tag not in _PLAIN_TAGS:
        raise UserError(f"{place}: YAML's tags, such as {shown(node.tag)}, are not read here.")
    if depth == _DEEPEST:
        raise UserError(f"{place} is nested too deeply.")
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style else Plain(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, place, depth + 1) for item in node.value]
    values: dict[str, Any] = {}
    for key, value in node.value:
        name = _value(key, place, depth + 1)
        if not isinstance(name, str) or name in values:
            raise UserError(f"{place}: the name {shown(name)} is no text, or is there twice.")
        values[str(name)] = _value(value, place, depth + 1)
    return values


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not node.style and node.value in ("", "null", "~")


_PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))
