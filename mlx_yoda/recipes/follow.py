"""A process that trains beside the first one: the same steps, but nothing written or said."""

from pathlib import Path

from mlx_yoda.config.schema import Config
from mlx_yoda.lora.binding import adapter_of
from mlx_yoda.recipes.dataset import prepare
from mlx_yoda.recipes.fitting import fit_to_machine
from mlx_yoda.recipes.identity import identify
from mlx_yoda.recipes.interruption import stop_on_signal
from mlx_yoda.recipes.milestones import Milestones
from mlx_yoda.recipes.outcome import Outcome
from mlx_yoda.recipes.saving import NotSaving
from mlx_yoda.recipes.start import model_to_train
from mlx_yoda.recipes.together import given, make_sure_of_sameness, part_of
from mlx_yoda.report.events import Event
from mlx_yoda.train.best import Best
from mlx_yoda.train.group import Group
from mlx_yoda.train.loop import train
from mlx_yoda.train.meter import Meter
from mlx_yoda.train.step import State


def follow(config: Config, group: Group) -> Outcome:
    """Train with the first process, which runs `recipes.finetune` meanwhile.

    Whatever is told or added up here is so there, and in the same order.

    Raises:
        UserError: configuration, data or base are wrong, or are not the first process's.
        Interrupted: a signal came to one of the processes.
    """
    config, base, layers = model_to_train(config)
    data = prepare(config, base.tokenizer, base.limits)
    part, _ = part_of(group, config, None)
    plan, steps, _ = fit_to_machine(config, base, layers, data.train, _unheard, part)
    make_sure_of_sameness(group, config, identify(config, base, data, plan), data)
    fresh = State.fresh(adapter_of(layers))
    state, meter, best = given(group, fresh, Meter(), Best())
    with stop_on_signal(group) as stop:
        saver = NotSaving()
        milestones = Milestones(config.train, plan, base, layers, data, saver, _unheard, best, stop)
        if not best.exhausted(config.train):
            state = train(state, plan, steps, config.train, meter, _unheard, milestones, group)
    return Outcome(Path(config.train.output_dir), meter.mean_loss(state.step), state.step)


def _unheard(event: Event) -> None:
    """A reporter for nobody."""
