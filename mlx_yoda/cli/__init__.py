"""The command line. A command and what it needs are imported only when it is called."""

import os
import signal
import sys
import traceback

from mlx_yoda.cli.streams import redacted_streams

_INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGHUP)


def main() -> None:
    """Run `mlx-yoda` with the arguments of this process, and exit."""
    from mlx_yoda.cli.program import program

    try:
        program.main(prog_name="mlx-yoda")
    except SystemExit as end:
        # At once, lest an impatient second signal find the interpreter half taken down.
        if end.code in _INTERRUPTED:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(end.code))
        raise
    except Exception:  # a fault of this program
        with redacted_streams():
            traceback.print_exc()
        sys.exit(1)
