"""A fault of this program: one sentence for the user, the whole report in a file of their own."""

import os
import platform
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

from mlx_yoda.cli.program import say_error
from mlx_yoda.errors import UserError, first_line
from mlx_yoda.files import cache_folder
from mlx_yoda.secrets import redact

EXIT_CODE = 70  # sysexits.h's EX_SOFTWARE
DEBUG = "MLX_YODA_DEBUG"


def report_fault(error: BaseException) -> int:
    """Write down an exception that nobody expected, and say in a sentence where.

    Returns:
        The exit code.
    """
    kind, said = type(error).__name__, first_line(error)
    what = f"mlx-yoda has a fault: {kind}" + (f" ({said})" if said != kind else "")
    place = _write(_report(error))
    where = f"the full report is in {place}" if place else "no report of it could be written"
    if os.environ.get(DEBUG, "0") not in ("", "0"):
        sys.stderr.write(redact("".join(traceback.format_exception(error))))
        say_error(f"{what}; {where}")
    else:
        say_error(f"{what}; {where}, and {DEBUG}=1 shows it")
    return EXIT_CODE


def _report(error: BaseException) -> str:
    """What a bug report needs."""
    lines = [f"arguments: {sys.argv[1:]}", f"system: {platform.platform()}"]
    with suppress(Exception):  # what is broken may be what is asked here
        from mlx_yoda.machine import versions

        lines += [f"{name}: {version}" for name, version in versions().items()]
    return "\n".join([*lines, "", *traceback.format_exception(error)])


def _write(report: str) -> Path | None:
    """Put it into a new private file, in the temporary directory or else the user's caches."""
    for folder in (tempfile.gettempdir, cache_folder):
        with suppress(OSError, UserError):
            place = Path(folder())
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(".txt", "mlx-yoda-fault-", place)
            with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(redact(report))
            return Path(name)
    return None
