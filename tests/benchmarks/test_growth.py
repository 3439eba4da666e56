"""Memory grows with the tokens and not with the steps."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.growth import Case, main, measure, steady, sweep
from mlx_yoda.train.recompute import Keep

TINY = Case(width=64, depth=2, heads=4, vocabulary=300, length=64)


@pytest.mark.slow
def test_the_peak_is_linear_in_tokens_with_checkpointing():
    sizes = np.array([4, 8, 12, 16])
    points = [
        p for p in sweep(TINY, "batch", sizes.tolist(), repeats=1) if p.checkpointing == "yes"
    ]
    peaks = np.array([point.peak for point in points])
    line = np.polyval(np.polyfit(sizes, peaks, 1), sizes)
    assert np.all(np.abs(line / peaks - 1) < 0.1)
    assert peaks[-1] > 2 * peaks[0]


@pytest.mark.slow
def test_checkpointing_makes_the_peak_grow_slower_with_depth():
    def growth(keep):
        peaks = [measure(replace(TINY, batch=8, depth=d), keep, 1)[1] for d in (2, 6)]
        return peaks[1] - peaks[0]

    assert growth(Keep.INPUT) < 0.5 * growth(Keep.SOURCES)


@pytest.mark.slow
def test_there_is_no_step_at_the_vocabulary():
    """A few chunks' logits are alive at once, however many targets there are."""

    def peak(batch):
        case = Case(width=32, depth=1, heads=4, vocabulary=20_000, length=32, batch=batch)
        return measure(case, Keep.INPUT, 1)[1]

    more_logits = 4 * (192 - 64) * 16 * 20_000
    assert peak(192) - peak(64) < 0.3 * more_logits


@pytest.mark.slow
def test_resident_memory_is_flat_over_steps_of_varying_shapes():
    samples = steady(replace(TINY, batch=4), 240, 20, lambda sample: None)
    assert [sample.step for sample in samples] == list(range(20, 241, 20))
    later = [sample.resident for sample in samples[2:]]
    assert max(later) < 1.03 * min(later)
    assert max(s.active for s in samples) < 1.05 * min(s.active for s in samples)


@pytest.mark.slow
def test_the_command_writes_what_it_prints(tmp_path, capsys):
    tiny = ["--hidden-size", "32", "--layers", "1", "--heads", "4"]
    main(
        [
            *tiny,
            "--sweeps",
            "rank",
            "--most",
            "8",
            "--steps",
            "10",
            "--output",
            str(tmp_path / "new"),
        ]
    )
    written = json.loads((tmp_path / "new" / "growth.json").read_text())
    assert [p["value"] for p in written["points"]] == [4, 4, 8, 8]
    assert all(p["peak"] > 0 and p["seconds"] > 0 for p in written["points"])
    assert len(written["samples"]) == 10
    printed = capsys.readouterr().out
    assert "checkpointing" in printed
    assert "resident" in printed


def test_an_unknown_sweep_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--sweeps", "colour"])
    assert "colour" in capsys.readouterr().err
