"""The command line. A command and what it needs are imported only when it is called."""


def main() -> None:
    """Run `mlx-yoda` with the arguments of this process, and exit."""
    from mlx_yoda.cli.program import program

    program.main(prog_name="mlx-yoda")
