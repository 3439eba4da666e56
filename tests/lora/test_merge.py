"""What quantising again loses, at its ends."""

import mlx.core as mx
import pytest

from mlx_yoda.lora.merge import Loss, loss

BASE = mx.random.normal((6, 8), key=mx.random.key(0))
CHANGE = mx.random.normal((6, 8), key=mx.random.key(1))


@pytest.mark.parametrize(
    ("wanted", "got", "expected"),
    [
        (CHANGE, CHANGE, Loss(1, 0)),
        (CHANGE, -CHANGE, Loss(-1, 2)),
        (CHANGE, 0 * CHANGE, Loss(0, 1)),  # lost whole
        (0 * CHANGE, CHANGE, Loss(1, 0)),  # nothing to lose: an adapter that changes nothing
    ],
    ids=["exact", "opposite", "lost", "nothing wanted"],
)
def test_the_loss_is_a_number_at_its_ends(wanted, got, expected):
    found = loss(BASE, BASE + wanted, BASE + got)
    assert found == pytest.approx(expected, abs=1e-5)
