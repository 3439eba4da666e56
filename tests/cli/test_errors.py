"""Bad input: one sentence on standard error, exit code 2, and nothing touched."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_yoda.cli.program import Program

ROOT = Path(__file__).resolve().parents[2]
OUT = "--output-dir {tmp}/out"
TRAIN = f"train --model demo --data {{data}} {OUT}"
LONG = "word " * 200

# Files that the cases may name, in {tmp}.
FILES = {
    "empty.jsonl": "",
    "broken.jsonl": '{"prompt": "a", "completion": "b"}\n{"prompt": \n',
    "columns.csv": "question,reply\nwhy,because\n",
    "long.jsonl": f'{{"prompt": "{LONG}", "completion": "b"}}\n',
    "null.jsonl": '{"prompt": "a", "completion": null}\n',
    "key.yaml": "lora:\n  rank_patern: {}\n",
    "type.yaml": "train:\n  seed: 1\n  learning_rate: fast\n",
    "no.yaml": "lora: [\n",
    "old/adapter_config.json": "{}",
    "blank.txt": "\n  \n",
    "latin.txt": b"\xe4\xff\n",
    "nomodel/readme.txt": "",
}
CASES = {
    # model
    "missing model": (f"train --model {{tmp}}/none --data {{data}} {OUT}", "no such folder"),
    "model is a file": (f"train --model {{tmp}}/key.yaml --data {{data}} {OUT}", "is a file"),
    "no model in it": (f"train --model {{tmp}}/nomodel --data {{data}} {OUT}", "no config.json"),
    "model, no network": (f"train --model owner/name --data {{data}} {OUT}", "cannot be reached"),
    "q_proj": (f"{TRAIN} --target-modules [q_proj]", "qkv_proj"),
    # data
    "missing data": (f"train --model demo --data {{tmp}}/none.csv {OUT}", "no file or folder"),
    "data, no network": (f"train --model demo --data owner/name {OUT}", "cannot be reached"),
    "unknown column": (
        f"train --model demo --data {{tmp}}/columns.csv --prompt-column asked {OUT}",
        "'asked'; the columns are 'question', 'reply'",
    ),
    "no known columns": (f"train --model demo --data {{tmp}}/columns.csv {OUT}", "'question'"),
    "empty file": (f"train --model demo --data {{tmp}}/empty.jsonl {OUT}", "empty.jsonl"),
    "broken line": (f"train --model demo --data {{tmp}}/broken.jsonl {OUT}", "broken.jsonl:2"),
    "null answer": (f"train --model demo --data {{tmp}}/null.jsonl {OUT}", "null.jsonl:1"),
    "nothing supervised": (
        f"train --model demo --data {{tmp}}/long.jsonl --max-length 20 {OUT}",
        "long.jsonl:1: the prompt fills all of the 20 tokens",
    ),
    "no row left": (f"{TRAIN} --max-length 5000 --packing concat", "too few for one row of 5000"),
    # configuration
    "missing file": ("train --config {tmp}/none.yaml", "none.yaml"),
    "broken file": ("train --config {tmp}/no.yaml", "no.yaml:"),
    "a switch with a value": (
        f"{TRAIN} --use-dora false",
        "--use-dora takes no value: write --use-dora or --no-use-dora",
    ),
    "a flag with a value": ("info --json True", "--json takes no value: write --json."),
    "unknown key": ("train --config {tmp}/key.yaml", "key.yaml:2: *rank_pattern"),
    "unknown --set key": (f"{TRAIN} --set train.learning_rat=1", "learning_rate"),
    "unknown section": (f"{TRAIN} --set lore.r=1", "lora"),
    "no value": (f"{TRAIN} --set lora.r", "section.key=value"),
    "wrong type in file": ("train --config {tmp}/type.yaml", "type.yaml:3: train.learning_rate"),
    "wrong type in --set": (f"{TRAIN} --set lora.r=1.5", "lora.r must be a whole number"),
    "wrong type of option": (f"{TRAIN} --learning-rate fast", "train.learning_rate must be a"),
    "wrong choice": (f"{TRAIN} --packing best", "data.packing must be"),
    "out of range": (f"{TRAIN} --learning-rate -1", "train.learning_rate must be"),
    # output folder
    "output exists": ("train --data {data} --output-dir {tmp}/old", "--overwrite"),
    "output is a file": ("train --data {data} --output-dir {tmp}/key.yaml", "is a file"),
    "nothing to resume": (f"{TRAIN} --resume", "no checkpoint"),
    "no such checkpoint": (f"{TRAIN} --resume {{tmp}}/none", "no checkpoint"),
    "both": (f"{TRAIN} --resume --overwrite", "--overwrite and --resume"),
    "nothing to force": (f"{TRAIN} --force", "--force is for --resume"),
    # usage
    "unknown command": ("trian", "No such command 'trian'. Did you mean 'train'? Try"),
    "unknown command, nothing near": ("xyz", "No such command 'xyz'"),
    "unknown option": ("train --learning-rates 1", "'--learning-rate', '--logging-steps'?) Try"),
    "stray argument": ("train demo", "demo"),
    # generate, chat, evaluate, convert
    "nothing to answer": ("generate Hello", "--adapter"),
    "nothing to talk to": ("chat", "--adapter"),
    "nothing to measure": ("evaluate --data {data}", "--adapter"),
    "no prompt": ("generate --model demo --file {tmp}/blank.txt", "no prompt in"),
    "no prompt file": ("generate --model demo --file {tmp}/none.txt", "none.txt cannot be read"),
    "prompts in Latin 1": ("generate --model demo --file {tmp}/latin.txt", "UTF-8"),
    "two kinds of prompt": ("generate --model demo --file {tmp}/blank.txt Hello", "not both"),
    "missing adapter": ("generate --adapter {tmp}/none Hello", "no such folder"),
    "no adapter in it": ("generate --adapter {tmp}/nomodel Hello", "is no adapter"),
    "adapter, no network": ("generate --adapter owner/name Hello", "cannot be reached"),
    "temperature": ("generate --model demo --temperature -1 Hello", "temperature"),
    "max tokens": ("generate --model demo --max-tokens 0 Hello", "max_tokens"),
    "top p": ("chat --model demo --top-p 2", "top_p"),
    "not a number": ("generate --model demo --seed one Hello", "--seed"),
    "no such split": ("evaluate --model demo --data {tmp}/null.jsonl", "no validation split"),
    "unknown split": ("evaluate --model demo --split some", "--split"),
    "limit": ("evaluate --model demo --data {data} --limit 0", "--limit"),
    "convert from nowhere": ("convert {tmp}/none {tmp}/out", "no such folder"),
    "convert to what exists": ("convert demo {tmp}/nomodel", "exists"),
    "seven bits": ("convert demo {tmp}/out --quantize 7", "needs bits 2, 3, 4, 5, 6 or 8, not 7"),
}  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """A folder with the files of the table."""
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path


def snapshot(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def refused(result, *words):
    """One line on standard error besides what it was busy with, nothing on standard output."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = [text for text in result.stderr.splitlines() if not text.endswith("…")]
    assert line.startswith("error: ")
    assert line.endswith(".")
    assert "?." not in line
    for word in words:
        assert word in line
    assert "Traceback" not in line


@pytest.mark.parametrize(("line", "message"), CASES.values(), ids=CASES)
def test_bad_input_is_refused_in_one_sentence(invoke, place, data, line, message, monkeypatch):
    monkeypatch.chdir(place)
    before = snapshot(place)
    args = [part.format(tmp=place, data=data) for part in line.split()]
    stdin = "Hello\n" if args[0] == "chat" else None
    refused(invoke(*args, stdin=stdin), *message.split(" *"))
    assert snapshot(place) == before


def test_a_long_row_is_cut_and_counted_once(invoke, data, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        (data / "train.jsonl").read_text()
        + f'{{"text": "{LONG}"}}\n'.replace('"text"', '"prompt": "Say it.", "completion"')
    )
    args = ["--data", rows, "--output-dir", tmp_path / "out", "--max-length", 40, "--max-steps", 1]
    result = invoke("train", "--model", "demo", *args)
    assert result.exit_code == 0
    assert result.stderr.count("note: 1 of 17 training rows are longer than") == 1


def test_no_prompt_on_standard_input(invoke):
    refused(invoke("generate", "--model", "demo", stdin="\n\n"), "no prompt in standard input")


def test_an_adapter_of_another_model_is_refused_by_its_tensor(invoke, adapter, base_folder):
    result = invoke("generate", "--model", base_folder, "--adapter", adapter, "Hello")
    refused(result, "made for another model", "layers.")


def test_an_adapter_whose_base_has_gone_says_so(invoke, adapter, tmp_path):
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / name).write_bytes((adapter / name).read_bytes())
    config = tmp_path / "adapter_config.json"
    config.write_text(config.read_text().replace('"demo"', '"/nowhere/phi3"'))
    refused(invoke("generate", "--adapter", tmp_path, "Hello"), "/nowhere/phi3", "--model")
    assert invoke("generate", "--model", "demo", "--adapter", tmp_path, "Hello").exit_code == 0
    config.write_text(config.read_text().replace('"/nowhere/phi3"', "null"))
    refused(invoke("generate", "--adapter", tmp_path, "Hello"), "does not say", "--model")


class Raising(Program):
    """A program whose every command ends so."""

    error: BaseException

    def invoke(self, ctx):
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "\n"),
        (OSError(errno.ENOSPC, "No space left on device", "out/x"), 2,
         "error: out/x: No space left on device.\n"),
        (PermissionError(errno.EACCES, "Permission denied"), 2, "error: Permission denied.\n"),
    ],
)  # fmt: skip
def test_what_the_machine_does_is_no_traceback_either(invoke, error, code, said, capsys):
    raising = Raising(name="mlx-yoda")
    raising.error = error
    with pytest.raises(SystemExit) as end:
        raising.main(["info"])
    assert end.value.code == code
    assert capsys.readouterr() == ("", said)


def test_a_fault_of_ours_keeps_its_traceback():
    raising = Raising(name="mlx-yoda")
    raising.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        raising.main(["info"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("[Compile::eval_cpu] Failed to compile function F: No space"), "TMPDIR"),
        (ValueError("not allowed to raise maximum limit"), "ulimit -Hn 4096"),
    ],
)
def test_what_libraries_say_of_the_machine_is_explained(error, said, capsys):
    raising = Raising(name="mlx-yoda")
    raising.error = error
    with pytest.raises(SystemExit) as end:
        raising.main(["info"])
    out, err = capsys.readouterr()
    assert (end.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ") and said in err


def test_a_reader_that_goes_away_is_no_error():
    """As `mlx-yoda info | head -0` has it."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as nobody:
        done = subprocess.run(
            [sys.executable, "-m", "mlx_yoda", "info"],
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
    assert done.returncode == 1
    assert done.stderr == ""
