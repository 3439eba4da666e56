"""The words for a person, with and without a terminal."""

import io
import re

import pytest
from rich.console import Console as RichConsole

from mlx_yoda.report.console import Console, count, describe, duration
from mlx_yoda.report.events import (
    Evaluated,
    Event,
    Finished,
    Generated,
    Noted,
    Sample,
    Sampled,
    Saved,
    Started,
)

PHI3 = Started(
    total_steps=220,
    epochs=10.0,
    trainable_parameters=12_582_912,
    total_parameters=3_833_662_464,
    train_rows=344,
    validation_rows=0,
    rows_per_step=16,
    micro_batch=4,
    output_dir="out",
)
EVENTS = [
    (PHI3, ["12,582,912 trainable parameters of 3.83 B (0.33 %)", "220 steps", "4 micro-batches"]),
    (Evaluated(7, 0.5, 1.5, 4.4817, 99), ["step 7", "1.5000", "4.482"]),
    (Generated("before", 0, 0.025, 40.0, 80, ()), ["before training", "0.025", "40.0", "80"]),
    (Sampled(7, Sample("You are old.", "Old, you are.", "Old,\nyou")), ["step 7", "Old, you"]),
    (Saved(7, "out/checkpoint-7"), ["step 7", "out/checkpoint-7"]),
    (Noted("3 of 9 rows were cut [sic]"), ["note: 3 of 9 rows were cut [sic]"]),
    (
        Finished(40, 0.825, 245.0, 22_018, 9_000, "out"),
        ["40 steps in 4:05 min", "22,018", "0.8250"],
    ),
]


def written(events, *, terminal):
    stream = io.StringIO()
    with Console(RichConsole(file=stream, force_terminal=terminal, width=120)) as console:
        for event in events:
            console(event)
    return stream.getvalue()


@pytest.mark.parametrize(("event", "words"), EVENTS, ids=lambda value: getattr(value, "name", ""))
@pytest.mark.parametrize("terminal", [True, False])
def test_an_event_is_told_as_it_is(event, words, terminal):
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", written([event], terminal=terminal))
    for word in words:
        assert word in shown


def test_off_a_terminal_logged_steps_are_lines_and_nothing_is_coloured(stepped):
    shown = written(
        [stepped(9, logged=False), stepped(10), stepped(11, logged=False)], terminal=False
    )
    (line,) = shown.splitlines()
    for word in ("10/40", "1.2500", "3.00e-04", "1,234 tok/s", "2.50 GB"):
        assert word in line
    assert "\x1b" not in shown


def test_on_a_terminal_there_is_a_bar(stepped):
    shown = written([stepped(39, logged=False), Saved(39, "there"), stepped(40)], terminal=True)
    for word in ("40/40", "loss 1.2500", "tok/s", "2.50 GB", "saved there"):
        assert word in shown


def test_a_long_path_is_not_broken_in_two():
    path = "out/" + "x" * 300
    assert path in written([Saved(1, path)], terminal=False)


def test_every_event_has_words():
    class Strange(Event):
        name = "strange"

    described = {type(event) for event, _ in EVENTS}
    others = set(Event.__subclasses__()) - described - {Strange}
    assert {kind.name for kind in others} == {"step"}  # tested above
    with pytest.raises(TypeError, match="no words"):
        describe(Strange())


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0"), (684_032, "684,032"), (12_582_912, "12.58 M"), (3_833_662_464, "3.83 B")],
)
def test_counts(number, words):
    assert count(number) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (245, "4:05 min"),
        (3599.7, "1:00:00 h"),
        (7445, "2:04:05 h"),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
