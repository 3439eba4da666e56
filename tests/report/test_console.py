"""The words for a person, with and without a terminal."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console as RichConsole

from mlx_yoda.report.console import Console
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
    Working,
)
from mlx_yoda.report.words import describe

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
    (Working("reading rows"), ["reading rows …"]),
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


def written(events, terminal):
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
    for word in ("10/40", "1.2500", "3.00e-04", "1,234 tok/s (600 supervised)", "2.50 GB"):
        assert word in line
    assert "\x1b" not in shown


def plain(text):
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text)


def test_on_a_terminal_a_panel_shows_where_it_is(stepped):
    said = Sample("You are old.", "Old, you are.", "Old, you are.")
    started = replace(PHI3, machine={"memory_bytes": 10**10})
    events = [started, stepped(39, logged=False), Evaluated(39, 1.0, 0.75, 2.1, 9)]
    shown = plain(written([*events, Sampled(39, said), Saved(39, "there"), stepped(40)], True))
    assert "saved there" in shown
    panel = shown[shown.rindex("╭") :]
    for word in ("40/40", "loss      1.2500", "→ level", "held out  0.7500 at step 39", "3.00e-04"):
        assert word in panel
    for word in ("1,234 input · 600 supervised", "2.50 GB of 10.0 GB (25%)", "→ Old, you are."):
        assert word in panel


def test_what_takes_a_while_is_said_with_its_time():
    now = [100.0]
    stream = io.StringIO()
    terminal = RichConsole(file=stream, force_terminal=True, width=80)
    with Console(terminal, clock=lambda: now[0]) as console:
        console(Working("loading the base"))
        console(PHI3)
        console(Working("compiling the first step"))
        now[0] += 41
    shown = plain(stream.getvalue())
    assert "loading the base …\n" in shown
    assert "compiling the first step … 41.0 s" in shown


def test_the_panel_fits_a_narrow_terminal(stepped):
    stream = io.StringIO()
    with Console(RichConsole(file=stream, force_terminal=True, width=40)) as console:
        for event in (PHI3, stepped(1), Sampled(1, Sample("q" * 90, "r", "a" * 90)), stepped(2)):
            console(event)
    panel = plain(stream.getvalue()).rsplit("╭", 1)[1]
    assert all(len(line) <= 40 for line in panel.splitlines())


def test_off_a_terminal_it_says_what_it_does_before_the_first_step_only(stepped):
    shown = written([Working("loading"), stepped(10), Working("measuring"), stepped(20)], False)
    assert "loading …" in shown
    assert "measuring" not in shown


def test_off_a_terminal_a_line_tells_the_time_left(stepped):
    now, stream = [0.0], io.StringIO()
    with Console(RichConsole(file=stream, width=200), clock=lambda: now[0]) as console:
        for step in (10, 20, 30):
            console(stepped(step))
            now[0] += 60
    lines = stream.getvalue().splitlines()
    assert "left" not in lines[0]
    assert lines[1].endswith("2:00 min left")
    assert lines[2].endswith("1:00 min left")


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
