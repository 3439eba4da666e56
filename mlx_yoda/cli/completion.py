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
# For every bash since 3.2, which is macOS's: that has no nosort and no compopt. Paths alone are
# left to readline's own completion (-o default), which knows of slashes, blanks and ~.
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion paths=
    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \
%(complete_var)s=bash_complete $1)
    COMPREPLY=()
    for completion in $response; do
        case $completion in
            plain,*) COMPREPLY+=("${completion#plain,}") ;;
            *) paths=1 ;;
        esac
    done
    if [[ -n $paths && ${#COMPREPLY[@]} -gt 0 ]]; then
        COMPREPLY+=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
    fi
    return 0
}
complete -o nosort -o default -F %(complete_func)s %(prog_name)s 2>/dev/null ||
    complete -o default -F %(complete_func)s %(prog_name)s
"""
# A zsh whose start-up files do not ask for completion has no compdef yet.
_COMPDEF = "    compdef "
_WITH_COMPINIT = (
    "    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }\n" + _COMPDEF
)


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
    template = _BASH if shell == "bash" else script.source_template
    say(template.replace(_COMPDEF, _WITH_COMPINIT) % script.source_vars())
