"""Signals while training: the first ends the run after the step, the second at once."""

import os
import signal
import subprocess
import sys
import threading
import time

import mlx.core as mx
import pytest

from mlx_yoda.recipes import interruption
from mlx_yoda.recipes.finetune import finetune
from mlx_yoda.recipes.interruption import Interrupted, stop_on_signal
from mlx_yoda.report.events import Noted, Saved, Stepped
from mlx_yoda.train.integrity import flaw

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _as_started_by_a_terminal(monkeypatch):
    """Under nohup the tests themselves ignore SIGHUP; and its handler would close their output."""
    own = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    monkeypatch.setattr(interruption, "_write_nowhere", lambda: None)
    yield
    signal.signal(signal.SIGHUP, own)


def handlers():
    return [signal.getsignal(signum) for signum in SIGNALS]


@pytest.mark.parametrize("signum", SIGNALS)
def test_the_first_is_remembered_and_the_second_raised(signum):
    before = handlers()
    with pytest.raises(Interrupted) as second, stop_on_signal() as stop:
        assert stop.signum is None
        os.kill(os.getpid(), signum)
        assert stop.signum == signum
        os.kill(os.getpid(), signum)
    assert (second.value.signum, second.value.step) == (signum, None)
    assert handlers() == before


def test_it_is_heard_while_mlx_is_busy():
    """The handler comes after the evaluation, the word about it before."""
    times = []
    with stop_on_signal(heard=lambda: times.append(time.monotonic())) as stop:
        wheel = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wheel)
        assert wheel != -1
        x = mx.random.normal((400, 400))
        for _ in range(300):
            x = mx.tanh(x @ x)
        killer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        killer.start()
        mx.eval(x)
        ended = time.monotonic()
        killer.join()
        assert stop.signum == signal.SIGINT
    assert len(times) == 1
    assert times[0] < ended
    assert signal.set_wakeup_fd(-1) == -1


def test_what_is_ignored_stays_ignored():
    own = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signal() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.signum is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, own)


def test_a_thread_handles_none():
    before, seen = handlers(), []

    def look():
        with stop_on_signal() as stop:
            seen.append((stop.signum, handlers()))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(None, before)]


@pytest.mark.slow
@pytest.mark.parametrize("signum", SIGNALS)
def test_the_step_is_finished_saved_and_gone_on_from(configure, tmp_path, signum):
    """Also without any checkpoint asked for; evaluated and logged as in a run never stopped."""

    def interrupted(event):
        events.append(event)
        if isinstance(event, Stepped) and event.step == 3:
            os.kill(os.getpid(), signum)

    sparse = ("train.save_strategy='no'", "train.eval_strategy=steps", "train.eval_steps=1")
    finetune(configure(tmp_path / "whole", *sparse), reporter=lambda event: None)
    config, events, before = configure(tmp_path / "run", *sparse), [], handlers()
    with pytest.raises(Interrupted) as error:
        finetune(config, reporter=interrupted)
    assert (error.value.signum, error.value.step) == (signum, 3)
    assert handlers() == before
    told = [event for event in events if isinstance(event, Noted)]
    assert "stopping after this step" in told[-1].message
    assert [e for e in events if e not in told][-1] == Saved(3, str(tmp_path / "run/checkpoint-3"))
    assert flaw(tmp_path / "run" / "checkpoint-3") is None
    finetune(config, reporter=events.append, resume=True)
    weights = [tmp_path / name / "adapter_model.safetensors" for name in ("whole", "run")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert [e.step for e in events if e.name == "evaluate"] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("size", [1, 2])
def test_a_process_whose_terminal_goes_away_stops_after_the_step(size):
    """As Ctrl-C does to a process that ssh has started; what it writes then goes nowhere."""
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "from mlx_yoda.recipes.interruption import stop_on_signal\n"
        "from mlx_yoda.train.group import Group\n"
        f"with stop_on_signal(Group({size} - 1, {size})) as stop:\n"
        "    os.write(1, b'before')\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    os.write(1, b'after')\n"
        "    os._exit(stop.signum)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (signal.SIGHUP, "before", "")


def test_a_log_file_is_written_on_when_the_terminal_goes_away(tmp_path):
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "from mlx_yoda.recipes.interruption import stop_on_signal\n"
        "with stop_on_signal():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    os.write(1, b'after')\n"
    )
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "after"
