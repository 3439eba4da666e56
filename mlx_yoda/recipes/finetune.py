"""Fine-tuning from configuration to adapter: the table of contents of the program."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Literal

from mlx_yoda.config.schema import Config
from mlx_yoda.data.sources import public_dataset
from mlx_yoda.errors import UserError
from mlx_yoda.hub.card import CARD_FILE, write_card
from mlx_yoda.lora.binding import Adapter, Layers, adapter_of
from mlx_yoda.machine import machine, versions
from mlx_yoda.model.load import Loaded, is_here, resolve
from mlx_yoda.model.tokenizer_files import copy_tokenizer
from mlx_yoda.recipes.dataset import Dataset, prepare
from mlx_yoda.recipes.fitting import fit_to_machine
from mlx_yoda.recipes.follow import follow
from mlx_yoda.recipes.identity import identify, public_name
from mlx_yoda.recipes.interruption import stop_on_signal
from mlx_yoda.recipes.milestones import Milestones
from mlx_yoda.recipes.outcome import Outcome
from mlx_yoda.recipes.output import Output, open_output
from mlx_yoda.recipes.overwriting import record_written
from mlx_yoda.recipes.respond import interrupted
from mlx_yoda.recipes.samples import generated
from mlx_yoda.recipes.saving import Saver
from mlx_yoda.recipes.start import model_to_train, notes_on, parameters
from mlx_yoda.recipes.together import given, make_sure_of_sameness, part_of
from mlx_yoda.report.events import Event, Finished, Noted, Reporter, Started, Working, both
from mlx_yoda.report.page import REPORT_FILE, write_report
from mlx_yoda.report.redaction import redacted
from mlx_yoda.report.trackers.choice import chosen, open_trackers
from mlx_yoda.train.best import Best
from mlx_yoda.train.checkpoint import Identity, load_checkpoint
from mlx_yoda.train.group import Group
from mlx_yoda.train.loop import train
from mlx_yoda.train.meter import Meter
from mlx_yoda.train.plan import Plan
from mlx_yoda.train.step import State

_STOPPING = Noted("stopping after this step, which is saved; a second signal stops unsaved")


def finetune(
    config: Config,
    *,
    reporter: Reporter,
    resume: bool | Path = False,
    overwrite: bool = False,
    force: bool = False,
    group: Group | None = None,
) -> Outcome:
    """Fine-tune a model as configured and write the adapter.

    Args:
        config: the whole run.
        reporter: told of everything that happens.
        resume: go on from the newest intact checkpoint in the output folder, from the newest in
            this folder, or from this one.
        overwrite: replace what an earlier run left in the output folder.
        force: resume although the run differs from the checkpoint's, where the shapes allow it.
        group: the processes that train together (`recipes.together`); None for this one alone.

    Raises:
        UserError: configuration, data or folders are wrong and nothing has been written, or
            training went wrong and the checkpoints stay.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP came while training.
    """
    if not (group := group or Group()).leads:
        return follow(config, group)
    output = _output(config, resume, overwrite)

    # model and lora
    config, base, layers = _model(config, reporter)

    # data
    data = _data(config, base, reporter)
    part, moved = part_of(group, config, output)
    plan, steps, fitted = fit_to_machine(config, base, layers, data.train, reporter, part)

    # the state to start from
    identity = identify(config, base, data, plan)
    make_sure_of_sameness(group, config, identity, data)
    state, meter, best, forced = _start(group, output, identity, adapter_of(layers), force)

    # from here on the output folder is written to
    notes = (*_start_notes(config, base), *output.notes, *data.notes, *moved, *fitted, *forced)
    started = _started(config, base, data, plan, output)
    with output.locked():
        report = _begin(config, output, state.step, reporter, (started, *map(Noted, notes)))
        answers = partial(_answers, config, base, data)
        answers("before", state.step, report)
        with stop_on_signal(group, partial(redacted(reporter), _STOPPING)) as stop:
            saver = Saver(config, output, identity, report)
            done = Milestones(config.train, plan, base, layers, data, saver, report, best, stop)
            if not best.exhausted(config.train):  # else it had stopped early
                state = train(state, plan, steps, config.train, meter, report, done, group)
        # the adapter
        saver.save_final(done.install_final(state.adapter))
        answers("after", state.step, report)
        report(_finished(state, meter, output, done.kept or state.step))
        _accompany(output.path, base, report)
    return Outcome(output.path, meter.mean_loss(state.step), state.step)


def _output(config: Config, resume: bool | Path, overwrite: bool) -> Output:
    model, path = config.model, Path(config.train.output_dir)
    reads = (resolve(model.model_name_or_path), config.data.dataset_name, model.init_adapter)
    inputs = [Path(name) for name in reads if name]
    return open_output(path, resume=resume, overwrite=overwrite, inputs=inputs)


def _start_notes(config: Config, base: Loaded) -> list[str]:
    start = config.model.init_adapter
    unfinished = interrupted(start) if start else None
    return [*notes_on(config.lora), *base.notes, *filter(None, [unfinished])]


def _model(config: Config, report: Reporter) -> tuple[Config, Loaded, Layers]:
    chosen(config.train.report_to)  # refuses what is not installed, before anything is loaded
    name = config.model.model_name_or_path
    download = "" if is_here(name) else ", from the Hub if it is not here yet"
    redacted(report)(Working(f"loading the base {name}{download}"))
    return model_to_train(config)


def _data(config: Config, base: Loaded, report: Reporter) -> Dataset:
    redacted(report)(Working(f"reading {config.data.dataset_name}"))
    return prepare(config, base.tokenizer, base.limits, redacted(report))


def _start(
    group: Group, output: Output, identity: Identity, fresh: Adapter, force: bool
) -> tuple[State, Meter, Best, list[str]]:
    """The state and the totals to begin with, and what `force` had to override."""
    state, meter, best, different = State.fresh(fresh), Meter(), Best(), list[str]()
    if output.checkpoint is not None:
        state, meter, best, different = load_checkpoint(
            output.checkpoint, identity, fresh, force=force
        )
    forced = [f"--force: {difference}" for difference in different]
    return *given(group, state, meter, best), forced


def _begin(
    config: Config, output: Output, step: int, reporter: Reporter, first: Iterable[Event]
) -> Reporter:
    """Make the folder ready for a run that starts after `step`; whom to tell of it from now on."""
    trackers = open_trackers(config, redacted(reporter))
    report = redacted(both(reporter, *trackers, output.begin(config, step)))
    for event in first:
        report(event)
    return report


def _started(config: Config, base: Loaded, data: Dataset, plan: Plan, output: Output) -> Started:
    trainable, total = parameters(config, base)
    return Started(
        total_steps=plan.total_steps,
        epochs=plan.epoch(plan.total_steps),
        trainable_parameters=trainable,
        total_parameters=total,
        train_rows=len(data.train),
        validation_rows=len(data.validation),
        rows_per_step=plan.rows_per_step,
        micro_batch=plan.micro_batch,
        output_dir=str(output.path),
        base_model=public_name(base),
        dataset=public_dataset(config.data.dataset_name),
        base_bits=base.config.get("quantization", {}).get("bits"),
        machine=machine(),
        versions=versions(),
        processes=plan.part.size if plan.part.size > 1 else None,
    )


def _finished(state: State, meter: Meter, output: Output, kept: int) -> Finished:
    return Finished(
        step=state.step,
        train_loss=meter.mean_loss(state.step),
        train_runtime=meter.seconds,
        input_tokens=meter.input_tokens,
        supervised_tokens=meter.supervised_tokens,
        path=str(output.path),
        kept_step=kept,
    )


def _accompany(folder: Path, base: Loaded, report: Reporter) -> None:
    """Put beside the adapter its tokenizer, and the card and the page made from what is there."""
    copy_tokenizer(base.path, folder)
    pages = {CARD_FILE: write_card, REPORT_FILE: _report_on}
    for name, write in pages.items():
        try:
            write(folder)
        except UserError as error:  # such as metrics that an earlier part of the run left damaged
            report(Noted(f"there is no {name}: {error}"))
    record_written(folder)


def _report_on(folder: Path) -> None:
    write_report([folder], folder / REPORT_FILE)


def _answers(
    config: Config,
    base: Loaded,
    data: Dataset,
    when: Literal["before", "after"],
    step: int,
    report: Reporter,
) -> None:
    """Answer the held-out questions, if that is asked for and there are any."""
    known = when == "before" and step > 0  # a resumed run has said it
    if config.train.predict_with_generate and data.questions and not known:
        most = config.train.generation_max_new_tokens
        report(Working(f"answering {len(data.questions)} held-out questions"))
        report(generated(base, data.questions, when=when, step=step, max_new_tokens=most))
