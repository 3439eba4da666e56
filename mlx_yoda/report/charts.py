"""Line charts as SVG that needs nothing else: in a page, as a file, on light and on dark.

Lines differ in colour, in the shape of their marks and in dashes, never in colour alone. Title and
description are there for those who do not see the picture.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from mlx_yoda.report.scale import Scale, axis

Point = tuple[float, float]  # x, y

COLORS = 6
# Of strokes and gaps: for a run's first and second line, then for those that repeat a colour.
_DASHES = ("", "6 5", "14 4", "1 5", "14 4 1 4", "8 4 1 4 1 4")
_MARKS_A_LINE = 9  # about so many marks tell a line from the others
_MOST_POINTS = 600  # on a line; more cannot be seen
_LETTER = 7.2  # mean width of a letter, for the room that a text takes
_STYLE = (
    """
.chart { --surface: #ffffff; --ink: #1c2321; --faint: #59635f; --grid: #e3e8e5;
  --c0: #2e7d32; --c1: #b45309; --c2: #1d4ed8; --c3: #7e22ce; --c4: #be123c; --c5: #0f766e;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; font-size: 13px; }
@media screen and (prefers-color-scheme: dark) {
  .chart { --surface: #171d1a; --ink: #e8eeea; --faint: #a3afa9; --grid: #2c3531;
    --c0: #7ddc84; --c1: #ffb35c; --c2: #7cb8ff; --c3: #cfa6ff; --c4: #ff95a1; --c5: #57e0cd; }
}
.chart .surface { fill: var(--surface); }
.chart .heading { fill: var(--ink); font-size: 15px; font-weight: 600; }
.chart .entry { fill: var(--ink); }
.chart .number, .chart .axis { fill: var(--faint); }
.chart .grid { stroke: var(--grid); stroke-width: 1; }
.chart .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.chart .mark { stroke: var(--surface); stroke-width: 1; }
"""
    + "".join(
        f".chart .s{i} {{ stroke: var(--c{i}); }} .chart .m{i} {{ fill: var(--c{i}); }}\n"
        for i in range(COLORS)
    )
    + "".join(
        f".chart .d{i} {{ stroke-dasharray: {dash}; }}\n" for i, dash in enumerate(_DASHES) if dash
    )
)


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: as the legend has it.
        points: (x, y) by rising x; a y that is not finite leaves a gap.
        color: number of its colour and mark, from 0; those from `COLORS` on begin again, with other
            dashes. None for its place in the chart.
        dashed: whether it is the second line of its colour.
    """

    name: str
    points: Sequence[Point]
    color: int | None = None
    dashed: bool = False


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    from_zero: bool = False,
    width: int = 480,
    height: int = 300,
) -> str:
    """Draw lines through points.

    Args:
        title: what is shown; its letters also make the ids, so it is to be unique in a page.
        series: the lines; a legend names them where they are several.
        x_label: what the horizontal axis counts, in whole numbers.
        y_label: what the vertical axis measures, with its unit.
        from_zero: start the vertical axis at 0.
        width, height: of the drawing; it fills the width that a page gives it.

    Returns:
        The text of an `<svg>` element.
    """
    name = re.sub(r"\W+", "-", title.lower()).strip("-") or "chart"
    svg = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "class": "chart", "role": "img"})
    svg.attrib |= {"viewBox": f"0 0 {width} {height}", "width": f"{width}", "height": f"{height}"}
    svg.attrib |= {"aria-labelledby": f"{name}-title {name}-desc"}
    SubElement(svg, "title", id=f"{name}-title").text = _clean(title)
    SubElement(svg, "desc", id=f"{name}-desc").text = _clean(describe(series, x_label, y_label))
    SubElement(svg, "style").text = _STYLE
    box = {"width": f"{width}", "height": f"{height}", "rx": "8"}
    SubElement(svg, "rect", {"class": "surface", **box})
    _text(svg, "heading", title, 16, 26)

    top = _legend(svg, series, width) if len(series) > 1 else 50
    _text(svg, "axis", y_label, 16, top)
    _plot(svg, series, x_label, from_zero, (16, top + 20, width - 20, height - 46))
    return ElementTree.tostring(svg, encoding="unicode")


def describe(series: Sequence[Series], x_label: str, y_label: str) -> str:
    """A chart in words: where each line starts, ends, and its extremes."""
    sentences = [f"{y_label} by {x_label}."]
    for one in series:
        seen = _finite(one.points)
        if not seen:
            sentences.append(f"{one.name}: no values.")
            continue
        (_, first), (x, last) = seen[0], seen[-1]
        ys = [y for _, y in seen]
        sentences.append(
            f"{one.name}: from {first:.4g} to {last:.4g} at {x_label} {x:g}; "
            f"lowest {min(ys):.4g}, highest {max(ys):.4g}."
        )
    return " ".join(sentences)


def thin(points: Sequence[Point], most: int) -> list[Point]:
    """At most so many points with the same outline: each stretch's lowest and highest."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / (most // 2))
    kept: list[Point] = []
    for at in range(0, len(points), size):
        stretch = points[at : at + size]
        kept += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return kept


def _plot(
    svg: Element,
    series: Sequence[Series],
    x_label: str,
    from_zero: bool,
    box: tuple[float, float, float, float],
) -> None:
    """Axes and lines within a box (left, top, right, bottom)."""
    left, top, right, bottom = box
    seen = [point for one in series for point in _finite(one.points)]
    if not seen:
        _text(svg, "axis", "Nothing was measured.", left, (top + bottom) / 2)
        return
    ys = axis([y for _, y in seen] + [0.0] * from_zero, bottom, top, parts=4)
    left += 8 + _LETTER * max(map(len, ys.labels()))
    xs = axis([x for x, _ in seen], left + 8, right, parts=5, counts=True)
    for tick, number in zip(ys.ticks, ys.labels(), strict=True):
        place = f"{ys(tick):.1f}"
        ends = {"x1": f"{left:.1f}", "x2": f"{right + 8:.1f}", "y1": place, "y2": place}
        SubElement(svg, "line", {"class": "grid", **ends})
        _text(svg, "number", number, left - 8, ys(tick) + 4.5, anchor="end")
    for tick, number in zip(xs.ticks, xs.labels(), strict=True):
        _text(svg, "number", number, xs(tick), bottom + 19, anchor="middle")
    _text(svg, "axis", x_label, right, bottom + 36, anchor="end")
    for i, one in enumerate(series):
        _line(svg, one, _color(one, i), xs, ys)


def _line(svg: Element, series: Series, color: int, xs: Scale, ys: Scale) -> None:
    """A line, broken where values are missing, with marks here and there."""
    for run in _runs(series.points):
        path = " ".join(f"{xs(x):.1f},{ys(y):.1f}" for x, y in thin(run, _MOST_POINTS))
        SubElement(svg, "polyline", {"class": _stroke(series, color), "points": path})
    seen = _finite(series.points)
    every = max(1, round(len(seen) / _MARKS_A_LINE))
    for x, y in seen[::-1][::every]:  # the last one always
        _mark(svg, color % COLORS, xs(x), ys(y))


def _legend(svg: Element, series: Sequence[Series], width: float) -> float:
    """Name the lines below the title; returns where the next text goes."""
    x, y = 16.0, 50.0
    for i, one in enumerate(series):
        color, name = _color(one, i), _shortened(one.name)
        room = 38 + _LETTER * len(name)
        if x > 16 and x + room > width - 8:
            x, y = 16.0, y + 20
        line = {"points": f"{x},{y - 4.5} {x + 26},{y - 4.5}"}
        SubElement(svg, "polyline", {"class": _stroke(one, color), **line})
        _mark(svg, color % COLORS, x + 13, y - 4.5)
        SubElement(_text(svg, "entry", name, x + 33, y), "title").text = _clean(one.name)
        x += room + 14
    return y + 25


def _mark(svg: Element, color: int, x: float, y: float) -> None:
    """One of six shapes around a place."""
    if color == 0:
        place = {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "3.6"}
        SubElement(svg, "circle", {"class": "mark m0", **place})
        return
    corners = {1: 4, 2: 3, 3: 4, 4: 3, 5: 5}[color]  # square, triangle, diamond, its mirror, star
    turn = {1: 0.125, 2: 0.25, 3: 0.0, 4: 0.75, 5: 0.25}[color]
    angles = [2 * math.pi * (turn + i / corners) for i in range(corners)]
    path = " ".join(f"{x + 4.8 * math.cos(a):.1f},{y - 4.8 * math.sin(a):.1f}" for a in angles)
    SubElement(svg, "polygon", {"class": f"mark m{color}", "points": path})


def _text(svg: Element, kind: str, text: str, x: float, y: float, anchor: str = "start") -> Element:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    element = SubElement(svg, "text", {"class": kind, **place})
    element.text = _clean(text)
    return element


def _color(series: Series, place: int) -> int:
    return place if series.color is None else series.color


def _stroke(series: Series, color: int) -> str:
    """The classes of a line; marks and dashes alone tell 18 runs of two lines apart."""
    dash = (2 * (color // COLORS) + series.dashed) % len(_DASHES)
    return f"line s{color % COLORS} d{dash}"


def _finite(points: Sequence[Point]) -> list[Point]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _runs(points: Sequence[Point]) -> list[list[Point]]:
    """Stretches of two points or more without a gap in them."""
    found: list[list[Point]] = [[]]
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            found[-1].append((x, y))
        else:
            found.append([])
    return [run for run in found if len(run) > 1]


def _shortened(name: str, limit: int = 44) -> str:
    return name if len(name) <= limit else f"…{name[1 - limit :]}"


def _clean(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "�", text)
