"""Events reach every reporter."""

from mlx_yoda.report.events import Noted, Saved, both


def test_both_tells_all_reporters_in_order():
    heard = []
    report = both(
        lambda event: heard.append(("one", event)), lambda event: heard.append(("two", event))
    )
    note, saved = Noted("a remark"), Saved(3, "out/checkpoint-3")
    report(note)
    report(saved)
    assert heard == [("one", note), ("two", note), ("one", saved), ("two", saved)]
