"""Which checkpoints of a run stay; what is in them is looked at in `tests/recipes`."""

from pathlib import Path

import pytest

from mlx_yoda.train.best import Best
from mlx_yoda.train.checkpoint import checkpoints, rotate, step_of


@pytest.mark.parametrize(
    ("limit", "newest", "best", "left"),
    [
        (None, 12, None, [2, 3, 10, 12]),
        (2, 12, None, [10, 12]),
        (1, 12, 3, [3, 12]),  # the best is one more
        (2, 12, 3, [3, 12]),
        (3, 12, 3, [3, 10, 12]),
        (2, 12, 12, [10, 12]),
        (1, 2, None, [2]),  # of a run that goes on from before the others
        (2, 2, None, [2, 12]),
    ],
)
def test_the_one_just_saved_and_the_best_stay(
    tmp_path: Path, limit: int | None, newest: int, best: int | None, left: list[int]
) -> None:
    for step in (2, 3, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
    saved = Best(1.0, best, best) if best else None
    rotate(tmp_path, limit, tmp_path / f"checkpoint-{newest}", saved)
    assert list(map(step_of, checkpoints(tmp_path))) == left
