"""Coverage-guided fuzzing of what strangers write: adapters and configurations.

    python -m benchmarks.fuzz adapter --seconds 60
    python -m benchmarks.fuzz config --seconds 60

libFuzzer (through atheris, which Linux alone has) changes whole files byte by byte and keeps
what reaches new code. Whatever it finds, the reader must give a value or a UserError, within 10
seconds and 2 GB. It ends with the number of inputs tried, or with the input that broke it.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_NAME = "base_model.model.model.layers.0.mlp.down_proj.lora_{}.weight"
_PEFT = {
    "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["down_proj"],
    "base_model_name_or_path": "a/base", "rank_pattern": {"o_proj": 3}, "lora_dropout": 0.1,
}  # fmt: skip
_YAML = (
    "lora: {r: 8, target_modules: [a, 'b'], rank_pattern: {a: 4}}\ntrain:\n  learning_rate: 1e-5\n",
    "model:\n  dtype: bfloat16 # 16 bits\n  model_revision: null\ndata:\n  packing: true\n",
    "train: &a\n  max_steps: !!int 3\ndata: *a\n--- |\n  x\n",
)


def main() -> None:
    """The command line; exit code 0 if nothing broke."""
    parser = argparse.ArgumentParser(description="Fuzz a reader for a bounded time.")
    parser.add_argument("target", choices=["adapter", "config"], help="what to read")
    parser.add_argument("--seconds", type=int, default=60, help="how long")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _fuzz(options.target, options.inside, options.seconds)
    else:
        sys.exit(run(options.target, options.seconds))


def run(target: str, seconds: int) -> int:
    """Fuzz in a process of its own, which libFuzzer ends, and say how it went."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.fuzz", target, "--inside", folder]
        done = subprocess.run(
            [*command, "--seconds", str(seconds)], capture_output=True, text=True, check=False
        )
    tried = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    if done.returncode or not tried:
        print(done.stdout, done.stderr[-6000:], sep="\n")
        print(f"fuzzing the {target} reader failed")
        return 1
    covered = re.findall(r"cov: (\d+)", done.stderr)
    print(
        f"{target}: {int(tried[1]):,} inputs tried in {seconds} s, {covered[-1]} branches reached"
    )
    return 0


def seeds(target: str) -> list[bytes]:
    """Whole inputs to start from: YAML, or a configuration and a tensor file with a NUL between."""
    if target == "config":
        return [text.encode() for text in _YAML]
    import numpy as np
    import safetensors.numpy

    a, b = np.ones((2, 3), np.float32), np.ones((4, 2), np.float16)
    tensors = safetensors.numpy.save({_NAME.format("A"): a, _NAME.format("B"): b})
    keys = [_PEFT, _PEFT | {"use_dora": True}, _PEFT | {"target_modules": "(.*)_proj"}]
    return [json.dumps(one).encode() + b"\0" + tensors for one in keys]


def reader(target: str, folder: Path) -> Callable[[bytes], object]:
    """What writes an input into the folder and reads it as the program does."""
    if target == "config":
        from mlx_yoda.config.parse import load_config

        file = folder / "fuzz.yaml"
        return lambda data: (file.write_bytes(data), load_config(file))
    from mlx_yoda.adapters.peft import CONFIG_FILE, TENSOR_FILE, load_adapter

    def read(data: bytes) -> object:
        keys, _, tensors = data.partition(b"\0")
        (folder / CONFIG_FILE).write_bytes(keys)
        (folder / TENSOR_FILE).write_bytes(tensors)
        return load_adapter(folder)

    return read


def _fuzz(target: str, folder: Path, seconds: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["mlx_yoda", "yaml"]):
        from mlx_yoda.errors import UserError

        read = reader(target, folder)
    corpus = folder / "corpus"
    corpus.mkdir()
    for i, seed in enumerate(seeds(target)):
        (corpus / str(i)).write_bytes(seed)

    def one(data: bytes) -> None:
        try:
            read(data)
        except UserError as error:
            assert 0 < len(str(error)) < 5000

    limits = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=4096"]
    reports = ["-print_final_stats=1", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *limits, *reports, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
