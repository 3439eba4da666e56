"""The pictures: whole, in words too, and readable without colour."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.report.charts import COLORS, Series, describe, line_chart, thin

LOSS = Series("training", [(10, 2.5), (20, 1.5), (30, 1.0)])
HELD_OUT = Series("held out", [(15, 2.0), (30, 1.25)], dashed=True)


def parsed(svg):
    return ElementTree.fromstring(re.sub(r' xmlns="[^"]+"', "", svg, count=1))


def draw(*series, **options):
    return parsed(line_chart("Loss", series, x_label="step", y_label="nats a token", **options))


def numbers(text):
    return [float(number) for number in re.findall(r"-?[\d.]+", text)]


def polylines(svg):
    """Corners of the lines, without the legend's."""
    lines = [line.get("points") for line in svg.iter("polyline")]
    return [list(zip(*[iter(numbers(points))] * 2, strict=True)) for points in lines]


def test_points_lie_where_they_belong():
    (line,) = polylines(draw(LOSS))
    (x0, y0), (x1, y1), (x2, y2) = line
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y1 - y0 == pytest.approx(2 * (y2 - y1), abs=0.21)
    assert x0 < x2
    assert y0 < y2  # less is lower


def test_title_axes_and_the_words_of_the_picture_are_there():
    svg = draw(LOSS, HELD_OUT)
    names = svg.get("aria-labelledby").split()
    assert [svg.find(f".//*[@id='{name}']").tag for name in names] == ["title", "desc"]
    assert svg.get("role") == "img"
    texts = [text.text for text in svg.iter("text")]
    assert {"Loss", "training", "held out", "nats a token", "step", "20"} <= {*texts}
    assert svg.find("desc").text == describe([LOSS, HELD_OUT], "step", "nats a token")
    assert "training: from 2.5 to 1 at step 30; lowest 1, highest 2.5." in svg.find("desc").text


def test_lines_differ_without_colour():
    series = [Series(f"run {i}", [(1, i), (2, i)]) for i in range(COLORS)]
    marks = [m for m in draw(*series).iter() if "mark" in m.get("class", "")]
    legend = marks[:COLORS]
    shapes = {(m.tag, len(numbers(m.get("points", ""))), m.get("class")) for m in legend}
    assert len(shapes) == COLORS
    [line] = draw(HELD_OUT).iter("polyline")
    assert line.get("class") == "line s0 d1"
    assert ".d1 { stroke-dasharray: 6 5; }" in line_chart("a", [HELD_OUT], x_label="", y_label="")


def test_eighteen_runs_of_two_lines_differ_without_colour():
    series = [
        Series(f"run {i}", [(1, i), (2, i)], color=i, dashed=second)
        for i in range(18)
        for second in (False, True)
    ]
    svg = draw(*series)
    marks = [m.get("class")[-1] for m in svg.iter() if "mark" in m.get("class", "")]
    dashes = [line.get("class")[-1] for line in svg.iter("polyline")]
    legend = list(zip(marks, dashes, strict=False))[: len(series)]  # it comes first
    assert len({*legend}) == len(series)
    style = svg.find("style").text
    patterns = re.findall(r"stroke-dasharray: ([\d ]+);", style)
    assert len({*patterns}) == len(patterns) == 5


def test_both_themes_have_colours_of_their_own_with_contrast(contrast):
    """WCAG 2.2: 4.5:1 for text, 3:1 for lines."""
    style = draw(LOSS).find("style").text
    themes = style.split("prefers-color-scheme: dark")
    assert len(themes) == 2
    for theme in themes:
        colors = dict(re.findall(r"--(\w+): (#\w{6})", theme))
        paper, _ = colors.pop("surface"), colors.pop("grid")
        for name, color in colors.items():
            assert contrast(color, paper) >= (3 if name.startswith("c") else 4.5), name


def test_a_missing_value_breaks_the_line():
    gap = Series("a", [(1, 1.0), (2, 2.0), (3, math.nan), (4, 2.0), (5, 1.0), (6, math.inf)])
    assert [len(line) for line in polylines(draw(gap))] == [2, 2]


@pytest.mark.parametrize("points", [[], [(1, math.nan)]])
def test_no_value_at_all_is_said(points):
    svg = draw(Series("a", points))
    assert "Nothing was measured." in [text.text for text in svg.iter("text")]
    assert "no values" in svg.find("desc").text


def test_one_value_is_a_mark():
    svg = draw(Series("a", [(7, 3.0)]))
    assert len(list(svg.iter("circle"))) == 1
    assert not polylines(svg)


def test_from_zero_starts_there():
    assert "0" not in [t.text for t in draw(Series("a", [(1, 900), (2, 950)])).iter("text")]
    svg = draw(Series("a", [(1, 900), (2, 950)]), from_zero=True)
    assert "0" in [text.text for text in svg.iter("text")]


def test_many_points_are_thinned_and_keep_their_outline():
    points = [(float(i), math.sin(i / 100)) for i in range(10_000)]
    points[5_003] = (5003.0, 9.0)
    few = thin(points, 600)
    assert len(few) <= 600
    assert (5003.0, 9.0) in few
    assert few == sorted(few)
    assert len(line_chart("a", [Series("a", points)], x_label="x", y_label="y")) < 20_000


@given(st.text(max_size=60), st.lists(st.tuples(st.integers(0, 10**6), st.floats()), max_size=20))
def test_whatever_it_is_given_it_draws_within_the_picture(name, points):
    series = Series(name, sorted((float(x), y) for x, y in points if not 1e100 < abs(y) < math.inf))
    svg = draw(series, Series("other", [(1, 2.0)]))
    assert svg.get("class") == "chart"
    for line in polylines(svg):
        assert all(0 <= x <= 480 and 0 <= y <= 300 for x, y in line)
