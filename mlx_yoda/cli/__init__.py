"""The command line. A command and what it needs are imported only when it is called."""

import sys
import traceback

from mlx_yoda.cli.streams import redacted_streams


def main() -> None:
    """Run `mlx-yoda` with the arguments of this process, and exit."""
    from mlx_yoda.cli.program import program

    try:
        program.main(prog_name="mlx-yoda")
    except Exception:  # a fault of this program
        with redacted_streams():
            traceback.print_exc()
        sys.exit(1)
