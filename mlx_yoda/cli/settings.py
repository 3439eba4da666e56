"""Options made from the configuration's fields: no name, type or default is written twice."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import click
from click.shell_completion import CompletionItem

from mlx_yoda.cli.command import Command
from mlx_yoda.config.schema import Config

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_CHOSEN = "mlx_yoda.chosen"
_NAMES = {
    "model.model_name_or_path": "--model",
    "model.quantization": "--quantize",
    "data.dataset_name": "--data",
}
_PATHS = (
    "model.model_name_or_path", "model.init_adapter", "data.dataset_name", "train.output_dir"
)  # fmt: skip
_WORDS = {bool: "true|false", int: "INTEGER", float: "NUMBER", str: "TEXT", NoneType: "null"}
_TITLES = {"model": "Model", "lora": "LoRA", "data": "Data", "train": "Training"}


class Setting(click.Option):
    """An option for one field of the configuration.

    Attributes:
        key: the field, as `section.name`.
        field: the field itself.
        main: whether `--help` explains it; else it only names it.
    """

    def __init__(
        self, names: list[str], *, field: Field[Any], key: str, main: bool, **attrs: Any
    ) -> None:
        self.key, self.field, self.main = key, field, main
        kind: dict[str, Any] = {"type": str, "metavar": _metavar(field.type)}
        attrs |= {"default": None} if field.type is bool else kind
        super().__init__(names, expose_value=False, callback=_remember, **attrs)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What Tab offers: the words that the field's type knows, or paths."""
        words = [word for word in _metavar(self.field.type).split("|") if word.islower()]
        if self.key in _PATHS:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


class Configured(Command):
    """A command with settings: `--help` explains the main ones and names the others."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; for an option of another program's name, say ours."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if words := self._called_here(ctx, error.option_name):
                message = f"There is no option {error.option_name}: {words}."
                raise click.NoSuchOption(error.option_name, message, ctx=ctx) from None
            raise

    def _called_here(self, ctx: click.Context, option: str) -> str | None:
        """What to write for an option that is a setting's name, here or elsewhere."""
        from mlx_yoda.config.keys import counterpart

        name = option.lstrip("-").replace("-", "_")
        ours = counterpart(name)
        if ours is None and (switched := counterpart(name.removeprefix("no_"))):
            ours = f"{switched.partition('=')[0]}=false"
        if ours is None:
            return None
        key, _, value = ours.partition("=")
        params = self.get_params(ctx)
        names = [p.opts[0] for p in params if isinstance(p, Setting) and p.key == key]
        if names:
            return f"write {names[0]} {shlex.quote(value)}" if value else f"write {names[0]}"
        if any(param.name == "overrides" for param in params):
            example = f"{key}={value or 'VALUE'}"
            return f"write --set {shlex.quote(example)}"
        return None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the names of the settings that `--settings` explains."""
        params = self.get_params(ctx)
        others = [param for param in params if isinstance(param, Setting) and not param.main]
        if not others:
            return super().format_options(ctx, formatter)
        shown = [param.get_help_record(ctx) for param in params if param not in others]
        with formatter.section("Options"):
            formatter.write_dl([record for record in shown if record])
        with formatter.section("Settings, each an option too (lora_alpha is --lora-alpha)"):
            formatter.write_dl(
                [
                    (_TITLES[section], " ".join(setting.key.split(".")[1] for setting in found))
                    for section, found in _by_section(others)
                ]
            )


def settings(*main: str) -> Decorator:
    """Give a command an option for each of these fields (`section.name`)."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        schema = dict(_schema())
        for key in reversed(main):  # decorators are applied from below
            function = _option(key, schema[key], main=True, help=_help(schema[key]))(function)
        return function

    return decorate


def all_settings(*main: str) -> Decorator:
    """Give a command an option for every field; these are explained first, with their defaults."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        schema = dict(_schema())
        for key in reversed([*main, *(key for key in schema if key not in main)]):
            text = f"{_help(schema[key])}  [{_written(_default(schema[key]))}]"
            function = _option(key, schema[key], main=key in main, help=text)(function)
        return function

    return decorate


def config_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--config FILE` (`file`) and `--set section.key=value` (`overrides`)."""
    function = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Change one value of the configuration; may be repeated.",
    )(function)
    return click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        shell_complete=_complete_config,
        help="A YAML file, or one of the package's, such as demo.",
    )(function)


def _complete_config(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from mlx_yoda.config.shipped import shipped

    names = [name for name in shipped() if name.startswith(incomplete)]
    return [*map(CompletionItem, names), CompletionItem(incomplete, type="file")]


def settings_help(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--settings`, which explains every setting with its default."""
    return click.option(
        "--settings",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_explain,
        help="Explain every setting, with its default, and exit.",
    )(function)


def is_chosen(key: str) -> bool:
    """Whether the command line has an option for this field."""
    return key in _chosen(click.get_current_context())


def configuration(file: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """The defaults, then the file, then `--set`, then the options of this command line.

    Raises:
        UserError: one of them is wrong.
    """
    # They bring PyYAML, which help can do without.
    from mlx_yoda.config.parse import Setting as Written
    from mlx_yoda.config.parse import load_config
    from mlx_yoda.config.yaml_text import read_value

    options = {}
    for key, (field, value) in _chosen(click.get_current_context()).items():
        # Text and truth are said as they are; all else is YAML, as it is after --set.
        meant = value if _as_is(field) else read_value(str(value))
        options[key] = Written(meant, _name(key))
    return load_config(file, overrides, options)


def _schema() -> Iterator[tuple[str, Field[Any]]]:
    """`section.name` and field, in the schema's order."""
    for section in fields(Config):
        for field in fields(section.type):  # type: ignore[arg-type]
            yield f"{section.name}.{field.name}", field


def _option(key: str, field: Field[Any], *, main: bool, help: str) -> Decorator:
    name = _name(key)
    names = f"{name}/--no-{name[2:]}" if field.type is bool else name
    return click.option(names, cls=Setting, field=field, key=key, main=main, help=help)


def _name(key: str) -> str:
    """A field's option: `--r` for `lora.r`."""
    return _NAMES.get(key, f"--{key.partition('.')[2].replace('_', '-')}")


def _help(field: Field[Any]) -> str:
    return str(field.metadata["help"])


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    assert isinstance(param, Setting)
    if value is not None:
        _chosen(ctx)[param.key] = (param.field, value)


def _chosen(ctx: click.Context) -> dict[str, tuple[Field[Any], str | bool]]:
    """`section.name` → field and value of the settings on the command line."""
    found: dict[str, tuple[Field[Any], str | bool]] = ctx.meta.setdefault(_CHOSEN, {})
    return found


def _as_is(field: Field[Any]) -> bool:
    return field.type in (bool, str, str | None)


def _explain(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    formatter = ctx.make_formatter()
    found = [param for param in ctx.command.get_params(ctx) if isinstance(param, Setting)]
    for section, members in _by_section(found):
        with formatter.section(f"{_TITLES[section]}  ({section}: in the configuration file)"):
            records = [setting.get_help_record(ctx) for setting in members]
            formatter.write_dl([record for record in records if record])
    click.echo(formatter.getvalue(), nl=False)
    ctx.exit()


def _by_section(found: list[Setting]) -> list[tuple[str, list[Setting]]]:
    groups = [(title, [s for s in found if s.key.startswith(f"{title}.")]) for title in _TITLES]
    return [(title, members) for title, members in groups if members]


def _metavar(kind: Any) -> str:
    """A type as it stands behind an option: `none|concat|best_fit`, `INTEGER|null`."""
    if kind in _WORDS:
        return _WORDS[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "|".join(arguments)
    if is_dataclass(kind):
        return "VALUE|MAPPING"  # one value is short for a mapping with it
    if origin in (list, dict):
        return "LIST" if origin is list else "MAPPING"
    if str in arguments and NoneType in arguments and len(arguments) == 2:
        return "TEXT"  # text is taken as it is, so null cannot be said here
    return "|".join(_metavar(member) for member in arguments)


def _written(default: Any) -> str:
    """A default as one would write it in YAML."""
    match default:
        case None | True | False:
            return {None: "null", True: "true", False: "false"}[default]
        case list():
            return ", ".join(default)
        case _:
            return str(default)
