"""mlx-yoda, through the parts that its own recipe is made of."""

import time
from dataclasses import replace
from importlib.metadata import version

import mlx.core as mx
import numpy as np

from benchmarks.contenders import resident
from benchmarks.contenders.job import TARGETS, Job, Outcome, Row
from mlx_yoda.config.schema import Config, DataConfig, LoraConfig, ModelConfig, TrainConfig
from mlx_yoda.data.chat import Example
from mlx_yoda.data.packing import pack
from mlx_yoda.lora.binding import adapter_of, install
from mlx_yoda.lora.inject import inject
from mlx_yoda.model.load import load
from mlx_yoda.recipes.fitting import fit_to_memory
from mlx_yoda.report.events import Event
from mlx_yoda.train.compilation import decide
from mlx_yoda.train.evaluate import held_out_loss
from mlx_yoda.train.forward import Arrays, forward_of
from mlx_yoda.train.loop import train
from mlx_yoda.train.meter import Meter
from mlx_yoda.train.plan import Plan, make_plan
from mlx_yoda.train.step import State, Steps, Sums, make_steps


def run(job: Job) -> Outcome:
    """One epoch."""
    train_rows, valid_rows = job.read_rows()
    rows = pack(
        [_example(row) for row in train_rows],
        "best_fit" if job.packing else "none",
        job.max_length,
    )
    # As many examples to an update as the others have, also where several share a row.
    config = _config(job, max(1, round(job.batch_size * len(rows) / len(train_rows))))
    base = load(job.model, dtype=job.dtype)
    layers = inject(base.model, config.lora, mx.random.key(job.seed))
    fit = fit_to_memory(config, base, rows)
    plan = make_plan(rows, config.train, fit.micro_batch)
    steps = make_steps(
        config.train,
        layers,
        forward_of(base.model, fit.keep),
        compiled=decide(config.train.compile).compiled,
    )
    state, meter = State.fresh(adapter_of(layers)), Meter()
    mx.eval(base.model.parameters(), state.adapter, state.moments)
    warm_up = _warm_up(steps, state, plan)

    mx.reset_peak_memory()
    resident.reset_peak()
    started = time.perf_counter()
    state = train(state, plan, steps, config.train, meter, _unheard, _nothing)
    seconds = time.perf_counter() - started
    allocated, held = mx.get_peak_memory(), resident.peak()

    install(layers, state.adapter)
    valid = pack([_example(row) for row in valid_rows], "none", job.max_length)
    loss, tokens = held_out_loss(base.model, valid, job.batch_size)
    return Outcome(
        seconds=seconds,
        warm_up_seconds=warm_up,
        updates=plan.total_steps,
        input_tokens=meter.input_tokens,
        supervised_tokens=meter.supervised_tokens,
        computed_tokens=sum(len(b.tokens) for _, batches in plan.steps() for b in batches),
        peak_allocated=allocated,
        peak_resident=held,
        held_out_loss=loss / tokens,
        device=str(mx.default_device()),
        versions={name: version(name) for name in ("mlx-yoda", "mlx")},
    )


def _example(row: Row) -> Example:
    supervised = np.arange(len(row.tokens)) >= max(1, row.prompt)
    return Example(np.array(row.tokens, np.int32), supervised, whole=row.prompt == 0)


def _config(job: Job, batch_size: int) -> Config:
    train = TrainConfig(
        num_train_epochs=1,
        per_device_train_batch_size=batch_size,
        learning_rate=job.learning_rate,
        lr_scheduler_type="constant",
        seed=job.seed,
    )
    if job.checkpointing:
        train = replace(train, gradient_checkpointing=True)
    if not job.compile:
        train = replace(train, compile=False)
    lora = LoraConfig(
        r=job.rank, lora_alpha=job.alpha, lora_dropout=job.dropout, target_modules=list(TARGETS)
    )
    return Config(ModelConfig(job.model, dtype=job.dtype), lora, DataConfig(), train)


def _warm_up(steps: Steps, state: State, plan: Plan) -> float:
    """A step in each shape, whose result is thrown away; the seconds it took."""
    started = time.perf_counter()
    seen = set()
    for _, batches in plan.steps():
        for batch in batches:
            shape = (len(batch.tokens), *batch.rows.shape, len(batch.targets))
            if shape in seen:
                continue
            seen.add(shape)
            sums = steps.accumulate(
                Sums.zero(state.adapter), state.adapter, Arrays.of(batch), mx.random.key(0)
            )
            one = mx.array(1.0)
            mx.eval(steps.update(sums, state.adapter, state.moments, one, one))
    return time.perf_counter() - started


def _unheard(event: Event) -> None:
    """A reporter that tells nobody."""


def _nothing(state: State, meter: Meter) -> bool:
    """Nothing is due after a step, and it goes on."""
    return False
