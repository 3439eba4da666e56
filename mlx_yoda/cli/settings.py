"""One option for each field of the configuration, made from the schema; no default is here."""

from collections.abc import Callable, Iterator
from dataclasses import Field, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import click

from mlx_yoda.cli.command import Command
from mlx_yoda.config.schema import Config

_LONG_NAMES = {"model_name_or_path": "--model", "dataset_name": "--data"}
_WORDS = {int: "INTEGER", float: "NUMBER", str: "TEXT", list: "LIST", dict: "MAPPING"}
_TITLES = {"model": "Model", "lora": "LoRA", "data": "Data", "train": "Training"}

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Setting(click.Option):
    """An option that stands for the field `section.name` of the configuration."""

    def __init__(self, section: str, field: Field[Any]) -> None:
        self.section, self.field = section, field
        self.key = f"{section}.{field.name}"
        flag = "--" + field.name.replace("_", "-")
        switch = field.type is bool
        names = [_LONG_NAMES.get(field.name, flag)]
        super().__init__(
            [f"{names[0]}/--no-{names[0][2:]}" if switch else names[0], self.key],
            type=click.BOOL if switch else _Yaml(field.type),
            default=None,
            metavar=None if switch else "|".join(_words(field.type)),
            help=f"{field.metadata['help']} [{_shown(_default(field))}]",
        )
        self.name = self.key


class _Yaml(click.ParamType):
    """Text for a field of text, YAML for any other; the configuration checks the rest."""

    name = "yaml"

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the value as the configuration file would."""
        if self.kind in (str, str | None) or not isinstance(value, str):
            return value
        import yaml

        try:
            return yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError):
            self.fail(f"{value!r} is no YAML; quote it", param, ctx)


class Configured(Command):
    """A command with settings: its help names them by section, `--settings` explains them."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in full and the settings by name."""
        own, settings = _parted(self.get_params(ctx), ctx)
        with formatter.section("Options"):
            formatter.write_dl(own)
        if settings:
            with formatter.section("Settings, explained by --settings"):
                formatter.write_dl(
                    [
                        (_TITLES[section], " ".join(setting.opts[0] for setting in found))
                        for section, found in settings
                    ]
                )


def settings(*main: str) -> Decorator:
    """Add an option for every field; those named (`section.name`) are shown first.

    The command gets them as one mapping, `options`, of those that were given.
    """
    ...


def all_settings() -> Iterator[Setting]:
    """A setting for each field, in the schema's order."""
    for part in fields(Config):
        for field in fields(part.type):  # type: ignore[arg-type]
            yield Setting(part.name, field)
