"""From a file, `--set` and options to one checked configuration.

Defaults < file < `--set key=value` < named options: the later one counts. Each setting keeps the
place where it was written, so that whatever is wrong with it can be found.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from mlx_yoda.config.checks import conflicts, problems
from mlx_yoda.config.keys import advice, keys, sections
from mlx_yoda.config.schema import Config
from mlx_yoda.config.shipped import find, shipped
from mlx_yoda.config.values import Mismatch, Plain, as_mapping, convert, expected, shown, structure
from mlx_yoda.config.yaml_text import read_entries, read_value, to_yaml
from mlx_yoda.errors import UserError

__all__ = ["load_config", "to_yaml"]

_LARGEST = 256 << 10  # bytes of a file; ours have about a thousand
# TRL's switch for cut-and-chain packing, as the notebook has it.
_OLD_PACKING = {"true": "concat", "false": "none"}


class Setting(NamedTuple):
    """A raw value and where it was written: `phi3.yaml:12`, `--set lora.r=8` or `--r`."""

    value: Any
    place: str


def load_config(
    file: Path | None, overrides: Sequence[str] = (), options: Mapping[str, Any] | None = None
) -> Config:
    """Read a configuration.

    Args:
        file: a YAML file with the sections `model`, `lora`, `data`, `train`, or the name of one in
            the package, such as `demo`; None for defaults.
        overrides: `section.key=value`, as `--set` takes them; a later one counts.
        options: full key → value, which count before all else; text that may mean a number or
            null is given as `values.Plain`. A `Setting` says itself where it was written.

    Returns:
        The configuration, every value of its field's type and in its range.

    Raises:
        UserError: the file cannot be read, a key is unknown, or a value is of the wrong type or
            makes no sense; the message names file and line, or the option.
    """
    settings: dict[str, Setting] = {}
    settings.update(_from_file(file) if file is not None else ())
    for path, setting in (*map(_from_override, overrides), *_from_options(options or {})):
        settings.update([_within(settings, path, setting)])
    values: dict[str, dict[str, Any]] = {section: {} for section in sections()}
    for path, setting in settings.items():
        section, _, name = path.partition(".")
        values[section][name] = _typed(path, setting)
    if place := values["train"].get("output_dir"):
        values["train"]["output_dir"] = os.path.expanduser(place)  # `~`, which YAML has as it is
    config = Config(**{section: cls(**values[section]) for section, cls in sections().items()})
    for path, wanted in problems(config):
        value, place = settings[path]
        raise UserError(f"{place}: {path} must be {wanted}, not {shown(value)}.")
    for path, need in conflicts(config):
        raise UserError(f"{settings[path].place}: {path} {need}.")
    return config


def _from_file(config: Path) -> Iterator[tuple[str, Setting]]:
    file = find(config)
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        known = ", ".join(shipped())
        raise UserError(
            f"there is no configuration file {file}; those of the package are {known}."
        ) from None
    except IsADirectoryError:
        raise UserError(f"{file} is a folder: name a file, such as a run's config.yaml.") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text: is it a configuration?") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}.") from None
    if len(content) > _LARGEST:
        raise UserError(f"{file} has more than {_LARGEST:,} bytes: is it a configuration?")
    for section, name, value, line in read_entries(text, str(file)):
        place = f"{file}:{line}"
        yield _known(section, name, place), Setting(value, place)


def _from_override(text: str) -> tuple[str, Setting]:
    path, equals, value = text.partition("=")
    place = f"--set {text}"
    if not equals:
        raise UserError(f"{place}: write it as section.key=value.")
    path = path.strip()
    outer, _, name = path.rpartition(".")
    if outer in keys() and structure(keys()[outer].annotation):
        _check_inner(outer, [name], place)
    else:
        path = _known(outer or None, name, place)
    return path, Setting(read_value(value.strip()), place)


def _from_options(options: Mapping[str, Any]) -> Iterator[tuple[str, Setting]]:
    for path, value in options.items():
        section, _, name = path.rpartition(".")
        place = f"--{name.replace('_', '-')}"
        setting = value if isinstance(value, Setting) else Setting(value, place)
        yield _known(section or None, name, setting.place), setting


def _within(settings: Mapping[str, Setting], path: str, setting: Setting) -> tuple[str, Setting]:
    """A setting in full: `model.quantization.bits` is a change to `model.quantization` so far."""
    if path in keys():
        return path, setting
    outer, _, inner = path.rpartition(".")
    cls, before = structure(keys()[outer].annotation), {}
    if cls and outer in settings and (value := settings[outer].value) is not None:
        with suppress(Mismatch):  # what is no mapping, such as null, is replaced
            before = as_mapping(value, cls)
    return outer, Setting({**before, inner: setting.value}, setting.place)


def _check_inner(path: str, names: Iterable[str], place: str) -> None:
    """Refuse names that the structure at `path` does not have."""
    cls = structure(keys()[path].annotation)
    known = [field.name for field in fields(cls)]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            help = f"did you mean {path}.{near[0]}" if near else f"it has {', '.join(known)}"
            raise UserError(f"{place}: there is no key {shown(Plain(f'{path}.{name}'))}; {help}.")


def _known(section: str | None, name: str, place: str) -> str:
    """The full key, if there is such a one."""
    path = name if section is None else f"{section}.{name}"
    if path in keys():
        return path
    if section is not None and section not in sections():
        known = advice(None, section)
        raise UserError(f"{place}: there is no section {shown(Plain(section))}; {known}.")
    raise UserError(f"{place}: there is no key {shown(Plain(path))}; {advice(section, name)}.")


def _typed(path: str, setting: Setting) -> Any:
    value, place = setting
    if path == "data.packing":
        value = _OLD_PACKING.get(str(value).lower(), value)
    annotation = keys()[path].annotation
    if isinstance(value, dict) and structure(annotation):
        return _typed_inner(path, setting)
    return _converted(path, value, annotation, place)


def _converted(path: str, value: Any, annotation: Any, place: str) -> Any:
    try:
        return convert(value, annotation)
    except Mismatch:
        raise UserError(
            f"{place}: {path} must be {expected(annotation)}, not {shown(value)}."
        ) from None


def _typed_inner(path: str, setting: Setting) -> Any:
    """The dataclass that a field holds, of a mapping from its fields' names."""
    value, place = setting
    cls = structure(keys()[path].annotation)
    _check_inner(path, map(str, value), place)
    found = {}
    for field in fields(cls):
        if field.name in value:
            found[field.name] = _converted(
                f"{path}.{field.name}", value[field.name], field.type, place
            )
    return cls(**found)
