"""The loop: running out of memory takes fewer rows at once and loses nothing."""

import mlx.core as mx
import pytest

from mlx_yoda.config.schema import LoraConfig, TrainConfig
from mlx_yoda.errors import UserError
from mlx_yoda.lora.binding import adapter_of
from mlx_yoda.report.events import Noted, Stepped
from mlx_yoda.train.forward import forward_of
from mlx_yoda.train.loop import dropout_key, train, with_fewer_rows
from mlx_yoda.train.meter import Meter
from mlx_yoda.train.plan import Part, make_plan
from mlx_yoda.train.shortage import lacks_memory
from mlx_yoda.train.step import State, make_steps

CONFIG = TrainConfig(max_steps=6, per_device_train_batch_size=4, logging_steps=2)


def run(model, layers, rows, config=CONFIG, most_rows=None):
    """Train; a machine with too little memory fails on more rows than `most_rows`."""
    inner, events = forward_of(model), []

    def forward(batch):
        if most_rows and batch.layout.rows.shape[0] > most_rows:
            raise RuntimeError("[malloc] Unable to allocate 1000000000 bytes.")
        return inner(batch)

    steps = make_steps(config, layers, forward, compiled=False)
    plan = make_plan(rows, config)
    fresh = State.fresh(adapter_of(layers))
    state = train(fresh, plan, steps, config, Meter(), events.append, lambda *_: None)
    return state, events


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_out_of_memory_takes_fewer_rows_and_the_same_steps(
    make_model, make_rows, distance, dropout
):
    model, layers = make_model(lora=LoraConfig(lora_dropout=dropout))
    rows = make_rows(24)
    expected, whole = run(model, layers, rows)
    state, events = run(model, layers, rows, most_rows=1)
    assert state.step == 6
    assert distance(state.adapter, expected.adapter) < 1e-4
    said = [event.message for event in events if isinstance(event, Noted)]
    assert said == [f"out of memory: going on with {n} rows at once" for n in (2, 1)]
    losses = [[e.loss for e in es if isinstance(e, Stepped)] for es in (events, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_with_fewer_rows_at_once_a_process_keeps_its_part_of_a_step(make_rows):
    def rows(plan):
        return [[i for batch in batches for i in batch.indices] for _, batches in plan.steps()]

    plan = make_plan(make_rows(24), CONFIG, part=Part(1, 3, 3))
    fewer = with_fewer_rows(plan, CONFIG)
    assert (plan.micro_batch, fewer.micro_batch) == (4, 2)
    assert rows(fewer) == rows(plan)


def test_out_of_memory_is_an_error_where_rows_may_not_shrink(make_model, make_rows):
    model, layers = make_model()
    fixed = TrainConfig(max_steps=2, auto_find_batch_size=False)
    with pytest.raises(UserError, match=r"memory for 4 rows .*Unable to allocate.*auto_find_batch"):
        run(model, layers, make_rows(8), fixed, most_rows=1)


def test_out_of_memory_with_a_single_row_says_what_to_lower(make_model, make_rows):
    model, layers = make_model()
    with pytest.raises(UserError) as error:
        run(model, layers, make_rows(8), CONFIG, most_rows=0.5)
    said = str(error.value)
    assert said.startswith("there is not enough memory for a single row at once")
    for key in ("data.max_length", "model.quantization={bits: 4}", "checkpoints stay"):
        assert key in said
    assert "batch" not in said  # it cannot be smaller
    assert "gradient_checkpointing" not in said  # auto has done what can be done


@pytest.mark.parametrize(
    ("error", "lack"),
    [
        (RuntimeError("[malloc] Unable to allocate 9 bytes."), True),
        (RuntimeError("[metal::malloc] Attempting to allocate 9 bytes which is greater"), True),
        (
            RuntimeError(
                "[METAL] Command buffer execution failed: Insufficient Memory "
                "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
            ),
            True,
        ),
        (RuntimeError("cudaMallocAsync(&data, size, stream) failed: out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[matmul] Last dimension of first input"), False),
    ],
)
def test_a_lack_of_memory_is_known_by_its_words(error, lack):
    assert lacks_memory(error) is lack


def test_other_errors_are_not_taken_for_a_lack_of_memory(make_model, make_rows):
    _, layers = make_model()
    steps = make_steps(CONFIG, layers, lambda _: 1 / 0, compiled=False)
    with pytest.raises(ZeroDivisionError):
        train(
            State.fresh(adapter_of(layers)),
            make_plan(make_rows(8), CONFIG),
            steps,
            CONFIG,
            Meter(),
            lambda _: None,
            lambda *_: None,
        )


def test_the_logged_loss_is_the_mean_since_the_last_log(make_model, make_rows):
    model, layers = make_model()
    _, events = run(model, layers, make_rows(24))
    each = TrainConfig(max_steps=6, per_device_train_batch_size=4, logging_steps=1)
    _, singles = run(model, layers, make_rows(24), each)
    one_by_one = [event.loss for event in singles]
    for event in events[1::2]:
        assert event.logged
        pair = one_by_one[event.step - 2 : event.step]
        assert event.loss == pytest.approx(sum(pair) / 2)


def test_dropout_keys_are_all_different_and_the_same_again():
    keys = {tuple(dropout_key(seed, step).tolist()) for seed in range(3) for step in range(20)}
    assert len(keys) == 3 * 20
    assert mx.array_equal(dropout_key(1, 2), dropout_key(1, 2))
