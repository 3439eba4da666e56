"""The command line. A command and what it needs are imported only when it is called."""

import os
import signal
import sys

from mlx_yoda.cli.streams import open_standard_streams, redacted_streams
from mlx_yoda.pytorch import hide_pytorch

_INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGHUP)


def main() -> None:
    """Run `mlx-yoda` with the arguments of this process, and exit."""
    hide_pytorch()
    # What concerns the user is said by this program, once and in its own words.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    has_output = open_standard_streams()
    try:
        from mlx_yoda.cli.program import program, refuse

        if not has_output:
            sys.exit(refuse("standard output is closed: send it to a file or to /dev/null"))
        program.main(prog_name="mlx-yoda")
    except SystemExit as end:
        _leave_at_once_if_broken(end.code)
        raise
    except KeyboardInterrupt:
        os._exit(128 + signal.SIGINT)
    except BaseException as error:  # a fault of this program; Rust's panics are no Exception
        from mlx_yoda.cli.fault import report_fault

        with redacted_streams():
            code = report_fault(error)
        _leave_at_once_if_broken(code)
        sys.exit(code)


def _leave_at_once_if_broken(code: object) -> None:
    """Skip the interpreter's own end where it would say something or could be disturbed.

    That is where a standard stream cannot be written to, which it would tell at length, and after
    a signal, where an impatient second one would find it half taken down.
    """
    number = code if isinstance(code, int) else 0
    broken = []
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            broken.append(stream)
    if sys.stdout in broken:
        os._exit(number or 1)
    if broken or number in _INTERRUPTED:
        os._exit(number)
