"""What the processes add up and tell each other; here a single one goes the way of several."""

import json
import os
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_yoda.config.schema import LoraConfig, TrainConfig
from mlx_yoda.errors import UserError
from mlx_yoda.lora.binding import adapter_of
from mlx_yoda.report.events import Stepped
from mlx_yoda.train.forward import forward_of
from mlx_yoda.train.group import Group, Joined, join
from mlx_yoda.train.loop import train
from mlx_yoda.train.meter import Meter
from mlx_yoda.train.plan import make_plan
from mlx_yoda.train.step import State, Sums, make_steps
from tests.machine import PATIENCE
from tests.recipes.launch import free_ports

CONFIG = TrainConfig(max_steps=4, per_device_train_batch_size=4, logging_steps=1)


@pytest.fixture
def joined():
    """A group of one that is added up over `mx.distributed` all the same."""

    def end(words, code):
        raise AssertionError(words)

    return Joined(mx.distributed.init(), end)


def run(make_model, make_rows, group, most_rows=None, update=None):
    model, layers = make_model(lora=LoraConfig(lora_dropout=0.3))
    inner, events = forward_of(model), []

    def forward(batch):
        if most_rows and batch.layout.rows.shape[0] > most_rows:
            raise RuntimeError("[malloc] Unable to allocate 1000000000 bytes.")
        return inner(batch)

    steps = make_steps(CONFIG, layers, forward, compiled=False)
    steps = steps._replace(update=update or steps.update)
    plan, fresh = make_plan(make_rows(24), CONFIG), State.fresh(adapter_of(layers))
    state = train(fresh, plan, steps, CONFIG, Meter(), events.append, lambda *_: None, group)
    return state, [event for event in events if isinstance(event, Stepped)]


def test_without_a_launcher_there_is_nobody_to_meet():
    group = join(lambda words, code: None)
    assert (type(group), group.rank, group.size, group.leads) == (Group, 0, 1, True)


def test_a_sum_over_one_process_changes_no_bits(make_model, make_rows, joined):
    alone, expected = run(make_model, make_rows, None)
    state, events = run(make_model, make_rows, joined)
    for (name, one), (_, other) in zip(
        tree_flatten(state.adapter), tree_flatten(alone.adapter), strict=True
    ):
        assert mx.array_equal(one, other), name
    assert [e.loss for e in events] == [e.loss for e in expected]
    assert [e.input_tokens for e in events] == [e.input_tokens for e in expected]


def test_memory_that_runs_out_before_the_sum_takes_fewer_rows(
    make_model, make_rows, distance, joined
):
    alone, _ = run(make_model, make_rows, None)
    state, _ = run(make_model, make_rows, joined, most_rows=1)
    assert distance(state.adapter, alone.adapter) < 1e-4


def test_memory_that_runs_out_after_the_sum_ends_the_run(make_model, make_rows, joined):
    """For the others have gone on: the step must not be added up a second time."""

    def update(*args):
        raise MemoryError

    with pytest.raises(UserError, match="memory ran out in step 1 after the gradients"):
        run(make_model, make_rows, joined, update=update)


def test_memory_that_runs_out_as_the_sums_are_made_is_the_loops_matter(joined, monkeypatch):
    """The others have not heard of the step, so it may be taken again with fewer rows."""
    sums, evaluate = Sums.zero({"a": {"lora_A": mx.ones((2, 3))}}), mx.eval

    def lack(*arrays):
        monkeypatch.setattr(mx, "eval", evaluate)
        raise RuntimeError("[malloc] Unable to allocate 1000000000 bytes.")

    monkeypatch.setattr(mx, "eval", lack)
    with pytest.raises(RuntimeError, match="malloc"):
        joined.total(sums, 0, 7)
    assert joined.total(sums, 0, 7)[1] == 7


def test_the_same_wish_of_all_is_that_wish(joined):
    """Ctrl-C in a terminal goes to all processes there."""
    joined._wishes = mx.array([2.0, 0.0, 2.0])
    assert joined.wished() == 2


def test_a_wish_to_stop_is_known_after_the_step(joined):
    sums = Sums.zero({"a": {"lora_A": mx.ones((2, 3))}})
    joined.wish = 15
    assert joined.wished() == 0
    total, tokens = joined.total(sums, 0, 7)
    assert (joined.wished(), tokens) == (15, 7)
    assert total.gradients["a"]["lora_A"].shape == (2, 3)


def test_arrays_are_given_to_the_bit(joined):
    bits = np.array([0x80000000, 0x7FC01234, 0x00000001, 0x3F800000], np.uint32)
    tree = {"a": mx.array(bits).view(mx.float32).reshape(2, 2), "b": mx.array([1.5], mx.bfloat16)}
    found = joined.given(tree)
    assert np.array_equal(np.array(found["a"]).view(np.uint32), bits.reshape(2, 2))
    assert mx.array_equal(found["b"], tree["b"])
    assert found["b"].dtype == mx.bfloat16


def test_what_is_said_is_what_is_heard(joined):
    said = {"rows": [1, 2.5, None], "name": "Zoë", "loss": float("inf")}
    assert joined.gathered(said) == [said]
    assert joined.told([0.1, 0.2]) == [0.1, 0.2]


def test_a_process_that_never_comes_is_not_waited_for_for_ever(tmp_path):
    """MLX waits for it with the GIL held, so no thread could end the wait."""
    hosts, ports = tmp_path / "hosts", free_ports(2)
    hosts.write_text(json.dumps([[f"127.0.0.1:{ports}"], [f"127.0.0.1:{ports + 1}"]]))
    waiting = "import mlx_yoda.train.group as group; group._PATIENCE = 1; group.join(None)"
    environment = {**os.environ, "MLX_RANK": "0", "MLX_HOSTFILE": str(hosts)}
    ended = subprocess.run(
        [sys.executable, "-c", waiting], capture_output=True, env=environment, timeout=PATIENCE
    )
    assert b"UserError: the processes do not find each other (some have not come" in ended.stderr
