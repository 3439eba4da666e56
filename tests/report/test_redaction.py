"""Reporters hear no access tokens, however deep in an event."""

from mlx_yoda.report.events import Generated, Noted, Sample
from mlx_yoda.report.redaction import redacted

TOKEN = "hf_" + "aB3" * 11 + "Z"


def test_tokens_are_gone_from_every_text_of_an_event():
    heard = []
    report = redacted(heard.append)
    report(Noted(f"not with {TOKEN}"))
    report(Generated("before", 3, 0.5, 70.0, 1, (Sample(TOKEN, "a", f"b {TOKEN}"),)))
    assert heard == [
        Noted("not with hf_***"),
        Generated("before", 3, 0.5, 70.0, 1, (Sample("hf_***", "a", "b hf_***"),)),
    ]
