"""`mlx-yoda completion`."""

from typing import Literal

import click
from click.shell_completion import get_completion_class

from mlx_yoda.cli.command import Command, say

_EXAMPLES = """\
mlx-yoda completion bash >> ~/.bashrc
mlx-yoda completion zsh >> ~/.zshrc
mlx-yoda completion fish > ~/.config/fish/completions/mlx-yoda.fish
"""


@click.command(
    "completion", cls=Command, epilog=_EXAMPLES, short_help="Let the shell complete commands."
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Write the script that lets SHELL complete commands and options with the Tab key."""
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    program = click.get_current_context().find_root().command
    # `source` would first ask bash for its version; the script itself is the same for all.
    script = kind(program, {}, "mlx-yoda", "_MLX_YODA_COMPLETE")
    say(script.source_template % script.source_vars())
