"""Events without secrets, whatever a data set, a path or an error text has brought into them."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

from mlx_yoda.report.events import Event, Reporter
from mlx_yoda.secrets import redact


def redacted(report: Reporter) -> Reporter:
    """A reporter that hears of each event without the access tokens in its texts."""

    def hear(event: Event) -> None:
        report(clean(event))

    return hear


def clean(value: Any) -> Any:
    """A value, and whatever it holds, without access tokens."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, tuple | list):
        return type(value)(map(clean, value))
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        changes = {field.name: clean(getattr(value, field.name)) for field in fields(value)}
        return replace(value, **changes)
    return value
