"""The scripts for the shells: bash's in a real bash."""

import os
import shutil
import subprocess
import sys

import pytest

# Completes as the Tab key would: calls the function that the script has registered.
COMPLETE = """
source "$1"
COMP_WORDS=({words}); COMP_CWORD={at}
_mlx_yoda_completion mlx-yoda
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def complete(invoke, tmp_path_factory):
    """What a real bash offers after these words."""
    if not (bash := shutil.which("bash")):
        pytest.skip("there is no bash")
    folder = tmp_path_factory.mktemp("bash")
    (folder / "script").write_text(invoke("completion", "bash").stdout)
    program = folder / "mlx-yoda"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mlx_yoda "$@"\n')
    program.chmod(0o755)

    def run(*words):
        text = COMPLETE.format(words=" ".join(map(repr, words)), at=len(words) - 1)
        done = subprocess.run(
            [bash, "--norc", "-c", text, "bash", folder / "script"],
            env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        noise = "complete: nosort"  # an option that macOS's bash, of 2007, does not have
        assert not done.stderr or noise in done.stderr, done.stderr
        return done.stdout.split()

    return run


def test_bash_completes_commands_options_and_choices(complete):
    assert complete("mlx-yoda", "tra") == ["train"]
    assert complete("mlx-yoda", "e") == ["evaluate", "export"]
    assert "--learning-rate" in complete("mlx-yoda", "train", "--learn")
    assert complete("mlx-yoda", "export", "--to", "m") == ["mlx-lm", "merged"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_script_asks_this_program(invoke, shell):
    script = invoke("completion", shell).stdout
    assert "_MLX_YODA_COMPLETE" in script
    if program := shutil.which(shell):
        assert subprocess.run([program, "-n"], input=script, text=True).returncode == 0


def test_another_shell_is_one_sentence(invoke):
    result = invoke("completion", "tcsh")
    assert result.exit_code == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in result.stderr
