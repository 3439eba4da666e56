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
# As bash 3.2, which macOS has: `complete` knows no nosort, and there is no compopt.
OLD = """
enable -n compopt
complete() {
    case " $* " in *" nosort "*) echo "complete: nosort: invalid option name" >&2; return 2 ;; esac
    builtin complete "$@"
}
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

    def run(*words, old=False):
        text = COMPLETE.format(words=" ".join(map(repr, words)), at=len(words) - 1)
        done = subprocess.run(
            [bash, "--norc", "-c", old * OLD + text, "bash", folder / "script"],
            env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            cwd=folder,
        )
        assert not done.stderr
        return done.stdout.split()

    return run


def test_bash_completes_commands_options_and_choices(complete):
    assert complete("mlx-yoda", "tra") == ["train"]
    assert complete("mlx-yoda", "e") == ["evaluate", "export"]
    assert "--learning-rate" in complete("mlx-yoda", "train", "--learn")
    assert complete("mlx-yoda", "export", "--to", "m") == ["mlx-lm", "merged"]


@pytest.mark.parametrize("old", [False, True], ids=["bash", "bash 3.2"])
def test_bash_completes_values_and_leaves_paths_to_readline(complete, old):
    assert complete("mlx-yoda", "tra", old=old) == ["train"]
    assert complete("mlx-yoda", "train", "--dtype", "", old=old) == [
        "float32", "float16", "bfloat16", "null",
    ]  # fmt: skip
    assert complete("mlx-yoda", "train", "--packing", "b", old=old) == ["best_fit"]
    assert complete("mlx-yoda", "train", "--config", "de", old=old) == ["demo"]
    assert complete("mlx-yoda", "train", "--config", "scr", old=old) == []
    assert {"demo", "script"} <= {*complete("mlx-yoda", "train", "--config", "", old=old)}
    for words in (("train", "--model"), ("generate", "--adapter"), ("report",), ("export",)):
        assert complete("mlx-yoda", *words, "", old=old) == []


def test_zsh_needs_no_compinit_before(invoke, tmp_path):
    if not (zsh := shutil.which("zsh")):
        pytest.skip("there is no zsh")
    (tmp_path / "script").write_text(invoke("completion", "zsh").stdout)
    done = subprocess.run(
        [zsh, "-f", "-c", 'source ./script; print -r -- "$_comps[mlx-yoda]"'],
        env={**os.environ, "ZDOTDIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("_mlx_yoda_completion\n", "")


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
