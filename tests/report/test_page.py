"""The report's words and pictures; `test_browser.py` looks at it in a browser."""

import json
import re
from html import unescape
from xml.etree import ElementTree

import pytest

from mlx_yoda.config.schema import Config, LoraConfig
from mlx_yoda.errors import UserError
from mlx_yoda.report.page import _PICTURES, chart, figures, page, write_report
from mlx_yoda.report.run import read_runs


@pytest.fixture
def shown(make_run):
    """The page of one run."""
    return page(read_runs([make_run("yoda")]))


def text_of(html):
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html.split("</head>")[1])).split())


def test_five_charts_with_their_words(shown):
    charts = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", shown, re.S)]
    names = [one.find("{*}title").text for one in charts]
    assert names == ["Loss", "Learning rate", "Gradient norm", "Speed", "Memory"]
    for one in charts:
        assert list(one.iter("{http://www.w3.org/2000/svg}polyline"))
    ids = re.findall(r' id="([^"]+)"', shown)
    assert len(ids) == len({*ids})
    assert "training: from 2 to 1 at step 40" in charts[0].find("{*}desc").text


def test_it_is_one_file_without_scripts_or_addresses(shown):
    assert "<script" not in shown
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')>\s]*)""", shown)
    assert [address for address in addresses if address != "data:,"] == []
    assert "default-src 'none'" in shown


def test_samples_before_and_after_show_what_changed(shown):
    assert "<del>You</del> are <del>old</del>." in shown
    assert "<ins>Old, you</ins> are." in shown
    assert "Old, you are. ✓ as wanted" in text_of(shown).replace("Old, you  are", "Old, you are")
    assert "exact match 0.00 → 0.50" in text_of(shown)


def test_the_journey_of_a_sentence_has_a_line_where_it_changes(shown):
    journey = shown.split("How the answer changed")[1].split("</section>")[0]
    assert re.findall(r"step (\d+)", journey) == ["0", "20", "40"]


def test_settings_that_were_set_stand_out(shown):
    first, rest = shown.split("<h2>Settings")[1].split("All settings")
    assert "lora.r" in first
    assert "lora.lora_alpha" not in first
    assert "lora.lora_alpha" in rest


def test_runs_side_by_side(make_run):
    runs = read_runs([make_run("a"), make_run("b", Config(lora=LoraConfig(r=32)))])
    shown = page(runs)
    assert "2 runs side by side" in shown
    differing = shown.split("What differs between the runs.")[1].split("All settings")[0]
    assert re.findall(r"<code[^>]*>([^<]+)</code>", differing) == ["lora.r", "4", "32"]
    assert "b, held out" in shown
    assert all(len(values) == 2 for _, values in figures(runs))


def test_runs_of_the_same_name_are_told_apart(make_run, tmp_path):
    folders = [make_run("one/run"), make_run("two/run")]
    assert [run.name for run in read_runs(folders)] == [str(folder) for folder in folders]


def test_whatever_a_model_says_is_text(make_run):
    evil = "</svg><script>alert(1)</script><img src=x onerror=alert(1)>"
    folder = make_run("<b>bold", said=evil)
    shown = page(read_runs([folder]))
    assert "<script" not in shown
    assert "<img" not in shown
    assert "<b>" not in shown
    assert evil.replace(" ", "") in text_of(shown).replace(" ", "")


def test_a_run_that_has_just_begun_or_lost_numbers_can_be_looked_at(make_run):
    folder = make_run("new")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "config.yaml").unlink()
    for some in (lines[:1], lines[:4], ['{"event": "step", "step": 1, "loss": NaN}']):
        (folder / "metrics.jsonl").write_text("\n".join(some) + "\n")
        assert "not finished" in text_of(page(read_runs([folder])))


def test_what_is_no_run_is_said(tmp_path, make_run):
    with pytest.raises(UserError, match=r"has no metrics\.jsonl: name the output folder"):
        read_runs([tmp_path])
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no events"):
        read_runs([tmp_path])
    with pytest.raises(UserError, match="there is no folder"):
        write_report([make_run("a")], tmp_path / "no" / "report.html")


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "step", "loss": 1}',
        '{"event": "sample", "step": 1}',
        '{"event": "generate", "when": "after", "samples": [1]}',
        '{"event": "started", "machine": "x", "total_steps": "y"}',
        '{"event": "evaluate", "step": [], "eval_loss": 1}',
        '{"event": "finished", "train_loss": {}}',
    ],
)
def test_damaged_metrics_are_said_in_one_sentence(make_run, line):
    folder = make_run("a")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match="holds what no run writes"):
        write_report([folder], folder / "report.html")
    assert not (folder / "report.html").exists()


def test_both_themes_have_enough_contrast(shown, contrast):
    style = shown.split("<style>")[1].split("</style>")[0]
    themes = style.split("prefers-color-scheme: dark")
    for theme in (themes[0], themes[1].split("* {")[0]):
        colors = dict(re.findall(r"--([\w-]+): (#\w{6})", theme))
        pairs = [("text", "page"), ("text", "card"), ("quiet", "page"), ("quiet", "card")]
        pairs += [("accent", "card"), ("added-text", "added"), ("removed-text", "removed")]
        for ink, paper in pairs:
            assert contrast(colors[ink], colors[paper]) >= 4.5, (ink, paper)


def test_metrics_may_hold_lines_of_other_versions(make_run):
    folder = make_run("old")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"event": "future", "what": [1]}) + "\n[1]\n")
    assert "Loss" in page(read_runs([folder]))


@pytest.mark.parametrize("number", [2, 7])
def test_no_two_lines_of_several_runs_are_drawn_alike(make_run, number):
    runs = read_runs([make_run(f"r{i}") for i in range(number)])
    for picture in _PICTURES:
        svg = ElementTree.fromstring(chart(picture, runs).svg)
        lines = svg.findall("{*}polyline")
        legend = lines[: len(lines) // 2]
        assert len({line.get("class") for line in legend}) == len(legend)
    drawn = [line.get("class") for line in ElementTree.fromstring(loss_of(runs)).iter()]
    assert "line s0 d0" in drawn
    assert "line s0 d1" in drawn  # the same run, held out


def loss_of(runs):
    return chart(_PICTURES[0], runs).svg
