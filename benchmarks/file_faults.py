"""Stop a run at each of its file operations, or have each of them fail, and look for losses.

python -m benchmarks.file_faults --every 3

A run of the demo model on 8 rows trains two steps into a folder that has an earlier run. At the
k-th operation that changes a file or a folder (open for writing, rename, remove, mkdir, rmdir,
truncate) the process is killed, or the operation raises "no space left" once or for ever. Each
of them starts from a fork, so that the program is imported once. After each:

- the folder has an intact checkpoint or adapter of the earlier run or of the new one;
- a process that was not killed said one sentence, or succeeded;
- the same command again ends with the adapter of a run that nobody disturbed, bit for bit.

It writes to a temporary folder only.
"""

import argparse
import errno
import os
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from mlx_yoda.config import Config
from mlx_yoda.config.parse import load_config
from mlx_yoda.errors import UserError
from mlx_yoda.recipes.finetune import finetune
from mlx_yoda.train.checkpoint import checkpoints
from mlx_yoda.train.integrity import flaw

FAULTS = ("kill", "once", "for ever")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_OPERATIONS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
_KILLED, _REFUSED, _FAULT = 137, 2, 70


class Fault:
    """An audit hook that kills, or fails, at the k-th operation on files below a folder.

    Attributes:
        count: the operations so far.
    """

    def __init__(self, below: Path, at: int, kind: str) -> None:
        self.below, self.at, self.kind, self.count = str(below), at, kind, 0

    def __call__(self, event: str, args: tuple[object, ...]) -> None:
        changes = event in _OPERATIONS or (event == "open" and bool(int(str(args[2])) & _WRITING))
        if not changes or not str(args[0]).startswith(self.below):
            return
        self.count += 1
        if self.kind == "kill" and self.count == self.at:
            os._exit(_KILLED)
        hit = self.count == self.at if self.kind == "once" else self.count >= self.at
        if self.kind != "kill" and hit:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))


def in_child(act: Callable[[], object], fault: Fault | None = None) -> tuple[int, str]:
    """Do something in a forked process.

    Returns:
        Its exit code (2 for a sentence to the user, 70 for anything else), and what it said.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code, said = 0, ""
        try:
            if fault is not None:
                sys.addaudithook(fault)
            act()
        except (UserError, OSError) as error:  # the command line says both in one sentence
            code, said = _REFUSED, str(error)
        except BaseException:
            code, said = _FAULT, traceback.format_exc()
        os.write(writing, f"{said}\n{fault.count if fault else 0}".encode()[-60_000:])
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def configured(folder: Path, seed: int, *more: str) -> Config:
    """A run of two steps with a checkpoint after each."""
    settings = ["max_steps=2", "save_strategy=steps", "save_steps=1", "logging_steps=1"]
    settings += ["per_device_train_batch_size=4", f"seed={seed}", f"output_dir={folder}"]
    options = ["model.model_name_or_path=demo", "data.dataset_name=demo", *more]
    return load_config(None, [*options, *(f"train.{setting}" for setting in settings)], {})


def train(config: Config, *, overwrite: bool = False) -> None:
    """`finetune` without a word."""
    finetune(config, reporter=lambda event: None, overwrite=overwrite)


def adapter(folder: Path) -> bytes:
    """The adapter in a folder, empty if there is none."""
    path = folder / "adapter_model.safetensors"
    return path.read_bytes() if path.is_file() else b""


def usable(folder: Path) -> bool:
    """Whether a run is there whose work is not lost: a finished adapter or an intact checkpoint."""
    places = [folder, folder / ".overwritten", folder / ".overwriting"]
    return any(
        adapter(place) or any(not flaw(path) for path in checkpoints(place)) for place in places
    )


class Attack:
    """An earlier run of seed 1 in a folder; each attempt starts from a copy of it."""

    def __init__(self, place: Path) -> None:
        self.place, self.folder = place, place / "run"
        self.results: Counter[str] = Counter()
        self.faults: list[str] = []
        self.earlier = place / "earlier"
        self._must(lambda: train(configured(self.folder, 1)))
        shutil.move(self.folder, self.earlier)
        self._must(lambda: train(configured(self.folder, 2)))
        self.expected = adapter(self.folder)

    def operations(self) -> int:
        """How many there are when nothing is in the way."""
        self._anew()
        counting = Fault(self.folder, 0, "kill")
        code, said = in_child(self._overwrite, counting)
        assert code == 0, said
        return int(said.splitlines()[-1])

    def attempt(self, at: int, kind: str) -> None:
        """Disturb the run at its `at`-th operation, and note what became of it."""
        self._anew()
        code, said = in_child(self._overwrite, Fault(self.folder, at, kind))
        where = f"{kind} at {at}"
        if code == _FAULT:
            self.faults.append(f"{where}: {said}")
        if not usable(self.folder):
            self.faults.append(f"{where}: neither the earlier run nor the new one is there")
        name = {0: "went on", _KILLED: "killed", _REFUSED: "one sentence"}.get(code, str(code))
        self.results[f"{kind}: {name}"] += 1
        code, said = in_child(self._overwrite)
        if code:
            self.faults.append(f"{where}, then again: {said}")
        elif adapter(self.folder) != self.expected:
            self.faults.append(f"{where}, then again: another adapter")
        left = [path.name for path in self.folder.rglob(".*") if "aside" in path.name]
        if left or (self.folder / ".overwritten").exists():
            self.faults.append(f"{where}, then again: left {left or '.overwritten'}")

    def _overwrite(self) -> None:
        train(configured(self.folder, 2), overwrite=True)

    def _anew(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.earlier, self.folder)

    def _must(self, act: Callable[[], object]) -> None:
        code, said = in_child(act)
        assert code == 0, said


def measure(place: Path, every: int, kinds: Iterable[str] = FAULTS) -> Attack:
    """Disturb every `every`-th operation in each way.

    Args:
        place: a folder to work in.
        every: 1 for all of them.
        kinds: of `FAULTS`.
    """
    attack = Attack(place)
    last = attack.operations()
    for kind in kinds:
        for at in range(1, last + 1, every):
            attack.attempt(at, kind)
    return attack


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="take every n-th operation")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        attack = measure(Path(place), args.every)
    for result, count in attack.results.most_common():
        print(f"{count} {result}")
    print(f"{len(attack.faults)} faults", *attack.faults, sep="\n")
    sys.exit(bool(attack.faults))


if __name__ == "__main__":
    main()
