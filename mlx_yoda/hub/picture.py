"""The loss picture of a model card: training and held-out loss against the step, as SVG."""

from mlx_yoda.hub.record import Record
from mlx_yoda.report.charts import Series, line_chart


def loss_picture(record: Record) -> str | None:
    """The text of an SVG file, or None for a run that measured no loss twice."""
    found = (
        Series("training", _points(record, "step", "loss")),
        Series("held out", _points(record, "evaluate", "eval_loss"), dashed=True),
    )
    shown = [series for series in found if series.points]
    if not any(len(series.points) > 1 for series in shown):
        return None
    chart = line_chart("Loss", shown, x_label="step", y_label="nats a token", width=720, height=360)
    return chart + "\n"


def _points(record: Record, event: str, key: str) -> list[tuple[float, float]]:
    return [(e["step"], e[key]) for e in record.events if e.get("event") == event]
