"""One contender in a process of its own: `python -m benchmarks.contenders.run JOB OUTCOME`."""

import importlib
import json
import sys
from pathlib import Path

from benchmarks.contenders.job import Job
from mlx_yoda.cli.blas import prefer_openblas
from mlx_yoda.files import write_text

NOT_INSTALLED = 3  # exit code


def main() -> int:
    """Run the job and write its outcome, both JSON files."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    if job.program in ("yoda", "apple"):  # PyTorch brings its own BLAS
        prefer_openblas()
    try:
        program = importlib.import_module(f"benchmarks.contenders.{job.program}")
    except ModuleNotFoundError as error:
        sys.stderr.write(f"not installed: {error.name}\n")
        return NOT_INSTALLED
    write_text(Path(sys.argv[2]), program.run(job).as_json() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
