"""How several processes share a run; the processes themselves are in `test_distributed.py`."""

import json
from dataclasses import asdict, replace

import mlx.core as mx
import numpy as np
import pytest

from mlx_yoda.config.schema import Config, LoraConfig, TrainConfig
from mlx_yoda.data.chat import Example
from mlx_yoda.data.packing import pack
from mlx_yoda.errors import UserError
from mlx_yoda.recipes.dataset import Dataset
from mlx_yoda.recipes.output import Output
from mlx_yoda.recipes.together import as_one, given, make_sure_of_sameness, part_of
from mlx_yoda.train.best import Best
from mlx_yoda.train.checkpoint import Identity
from mlx_yoda.train.group import Group
from mlx_yoda.train.meter import Last, Meter
from mlx_yoda.train.plan import Part
from mlx_yoda.train.step import State

CONFIG = Config(train=TrainConfig(per_device_train_batch_size=2, gradient_accumulation_steps=3))


class Begun(Output):
    """A folder whose checkpoint was made by so many processes, with so many rows a step."""

    begun = (4, 24)


def test_a_new_run_is_planned_for_the_processes_there_are(tmp_path):
    part, notes = part_of(Group(0, 1), CONFIG, Output(tmp_path, None))
    assert (part, notes) == (Part(0, 1, 1), [])


@pytest.mark.parametrize(
    ("batch", "planned"),
    [(2, 4), (8, 1), (3, 1)],  # the settings of then, as many rows otherwise, something else
)
def test_a_resumed_run_keeps_the_rows_of_its_steps(tmp_path, batch, planned):
    config = replace(CONFIG, train=replace(CONFIG.train, per_device_train_batch_size=batch))
    part, notes = part_of(Group(0, 1), config, Begun(tmp_path, None))
    assert part == Part(0, 1, planned)
    said = "the run began on 4 processes and goes on on one process: a step keeps its 24 rows"
    assert notes == ([said] if planned == 4 else [])


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[malloc] Unable to allocate 1")])
def test_memory_that_runs_out_between_the_steps_ends_several_processes(error):
    with (
        pytest.raises(UserError, match="memory ran out while measuring"),
        as_one(Group(1, 2), "measuring"),
    ):
        raise error
    with pytest.raises(type(error)), as_one(Group(), "measuring"):  # alone it is the loop's matter
        raise error
    with pytest.raises(RuntimeError, match="else"), as_one(Group(1, 2), "measuring"):
        raise RuntimeError("something else")


class Two(Group):
    """Two processes, of which the other one says what this one says, but for some of it."""

    def __init__(self, **theirs):
        super().__init__(0, 2)
        self.theirs, self.mine = theirs, {}

    def gathered(self, value):
        self.mine = value
        return [value, value | self.theirs]


def agree(group, held_out=(1, 2, 3)):
    rows = pack(
        [Example(np.array(held_out, np.int32), np.ones(len(held_out), bool), True)], "none", 8
    )
    identity = Identity(LoraConfig(), "demo", None, {"the base's weights": "abc"}, "phi3")
    make_sure_of_sameness(group, CONFIG, identity, Dataset(rows, rows, [], []))
    return group.mine


def test_processes_that_are_alike_may_train():
    assert agree(Two()).keys() >= {
        *(f"{part}.{key}" for part, keys in asdict(CONFIG).items() for key in keys),
        "the base's weights",
        "the held-out rows",
        "the version of mlx",
        "the version of mlx-yoda",
    }


@pytest.mark.parametrize("name", agree(Two()))
def test_whatever_differs_between_processes_is_named(name):
    with pytest.raises(UserError, match=f"process 1 is not like process 0: {name} is"):
        agree(Two(**{name: "something else"}))


def test_the_last_of_several_processes_is_looked_at_too():
    class Three(Two):
        def gathered(self, value):
            return [value, *super().gathered(value)]

    with pytest.raises(UserError, match="process 2 is not like process 0: the version of mlx is"):
        agree(Three(**{"the version of mlx": "0.1"}))


def test_other_held_out_rows_are_noticed():
    """They decide which checkpoint is best, and when to stop."""
    theirs = agree(Two(), held_out=(1, 2, 4))["the held-out rows"]
    with pytest.raises(UserError, match="the held-out rows"):
        agree(Two(**{"the held-out rows": theirs}))


class Second(Group):
    """The second of two processes, which is told and given what the first one has."""

    def __init__(self, state, meter, best):
        super().__init__(1, 2)
        self.state = state
        self.said = json.dumps((state.step, meter.totals(), best.as_dict()))

    def told(self, value):
        return json.loads(self.said)

    def given(self, tree):
        return self.state.adapter, self.state.moments


def test_all_begin_with_the_first_processs_weights_and_totals():
    """The totals as well: they count the updates for AdamW, and the evaluations waited for."""
    fresh, trained = (
        State.fresh({"a": {"lora_A": mx.full((2, 2), n), "lora_B": mx.zeros((2, 2))}})
        for n in (0.0, 1.0)
    )
    trained, meter, best = trained._replace(step=7), Meter(), Best(1.5, 4, 4, 2)
    meter.add(1, Last(2.0, 1.0, 9, 5, 0.1))
    meter.add(2, Last(float("nan"), 1.0, 9, 5, 0.1))
    state, totals, found = given(Second(trained, meter, best), fresh, Meter(), Best())
    assert state.step == 7
    assert mx.array_equal(state.adapter["a"]["lora_A"], trained.adapter["a"]["lora_A"])
    assert (totals.totals(), totals.skipped, found) == (meter.totals(), 1, best)
    assert given(Group(), trained, meter, best) == (trained, meter, best)
